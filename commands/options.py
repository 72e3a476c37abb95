"""Options that several commands share, declared once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.commands.errors import CommandError, UsageError, usage

if TYPE_CHECKING:
    import torch

RunName = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Name of a run; the newest one where left out."),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        "--model_file",
        help="last or best of the run; or a FILE of weights from elsewhere, with --model and "
        "--dataset, which is imported as a run.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Network: a name of `list models`, or file.py:factory."),
]
ModelArgOption = Annotated[
    list[str] | None, typer.Option("--model-arg", metavar="K=V", help="Argument of the network.")
]
DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="Data: a name of `list data`, or file.py:factory.")
]
DatasetArgOption = Annotated[
    list[str] | None, typer.Option("--dataset-arg", metavar="K=V", help="Argument of the data set.")
]
LossOption = Annotated[
    str | None,
    typer.Option(
        "--loss",
        "--loss_name",
        help="Loss: a name of `list losses`, or file.py:function; the run's own where left out.",
    ),
]
LossArgOption = Annotated[
    list[str] | None, typer.Option("--loss-arg", metavar="K=V", help="Argument of the loss.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda[:N], xpu or mps; auto takes the fastest.")
]
DtypeOption = Annotated[
    str, typer.Option("--dtype", help="float32, float64, or bfloat16 (autocast).")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="ISOLOSS_DATA",
        help="Folder of the data; where left out, the run's own, else ./data.",
    ),
]
ResultsOption = Annotated[
    Path,
    typer.Option("--results", envvar="ISOLOSS_RESULTS", help="Folder that runs are written to."),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Allow fetching missing data from the network.")
]
FiguresOption = Annotated[
    bool, typer.Option("--plot/--no-figures", help="Whether to draw figures into the run's folder.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, nothing else, to standard output.")
]
EstimateOption = Annotated[
    bool,
    typer.Option("--estimate", help="Measure a little, print time, memory and disk, and stop."),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Start over where a result is there already.")
]
SamplesOption = Annotated[
    str | None,
    typer.Option(
        "--samples",
        help="all, or N samples of the split, each class in proportion, fixed seed; "
        "all up to 10000, above that 10000.",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "--batch_size",
        min=1,
        help="Samples in one forward pass; changes speed and rounding only. Chosen where left out.",
    ),
]
BnOption = Annotated[
    str,
    typer.Option(
        "--bn",
        help="Batch norm: eval (stored statistics), train (of each statistics batch), or "
        "recalibrate (estimated anew at each point).",
    ),
]
BnBatchOption = Annotated[
    int, typer.Option("--bn-batch", min=2, help="Samples of one batch-norm statistics batch.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="File to write; in the run's folder where left out.")
]

DEFAULT_RESULTS = Path("results")
DEFAULT_DATA_DIR = Path("data")
LARGEST_SAMPLE = 10_000
# The subset that surfaces and curvature are measured on is the same for every seed of directions
# and probes, so that what differs between seeds is those alone.
SAMPLE_SEED = 0


def key_values(pairs: list[str] | None, option: str) -> dict[str, object]:
    """Read repeated `key=value` options."""
    from isoloss.registry import parse_arguments

    with usage(option):
        return parse_arguments(pairs or [])


def sample_count(text: str | None, available: int) -> int:
    """Return how many of a split's samples to use."""
    if text is None:
        return min(available, LARGEST_SAMPLE)
    if text == "all":
        return available
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--samples: expected all or a number of 1 or more, got {text!r}")
    return min(int(text), available)


def resolve_device(text: str) -> torch.device:
    """Return a device that is there.

    Raises:
        UsageError: For a name that is no device.
        CommandError: For a device this machine does not have.
    """
    import torch

    present = {
        "xpu": torch.xpu.is_available(),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if text == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    kind, _, index = text.partition(":")
    if kind not in present or (index and not index.isdigit()):
        raise UsageError(f"--device: expected auto, {', '.join(present)} or cuda:N, got {text!r}")
    if not present[kind]:
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise CommandError(f"expected a {kind} device, this machine and torch offer: {there}")
    return torch.device(text)


def resolve_dtype(text: str) -> torch.dtype:
    """Return a floating type by name."""
    import torch

    known = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
    if text not in known:
        raise UsageError(f"--dtype: expected {', '.join(known)}, got {text!r}")
    return known[text]


def check_name_or_usage(name: str, option: str) -> str:
    """Return a run's name; one that cannot be one is wrong usage."""
    from isoloss.trainers.runs import RunError, check_name

    try:
        return check_name(name)
    except RunError as error:
        raise UsageError(f"{option}: {error}") from error


def check_out(path: Path) -> None:
    """Refuse a file whose companions (summary, figures) would replace it or a run's own files.

    Raises:
        UsageError: For another suffix than .h5, or a stem that a run uses itself.
    """
    if path.suffix != ".h5":
        raise UsageError(f"--out: expected a file that ends in .h5, got {path}")
    if (
        path.stem in ("config", "run", "history", "evaluation")
        and path.parent.joinpath("config.json").exists()
    ):
        raise UsageError(f"--out: {path.stem}.json is the run's own, choose another name")


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes; 0 where that is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else 1024 * peak
