"""Options that several commands share, declared once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isoloss.commands.errors import CommandError, UsageError
from isoloss.experiments.options import Options, option
from isoloss.experiments.settings import LARGEST_SAMPLE

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Printed(Options):
    """How a result is said."""

    as_json: bool = option(
        False, "Print the result as JSON, nothing else, to standard output.", flag="json"
    )


@dataclass(frozen=True, kw_only=True)
class Drawn(Printed):
    """Whether a result is drawn."""

    figures: bool = option(
        True, "Whether to draw figures into the run's folder.", flag="plot", off="no-figures"
    )


@dataclass(frozen=True, kw_only=True)
class Forced(Options):
    """What happens to a result that is there."""

    force: bool = option(False, "Start over where a result is there already.")


@dataclass(frozen=True, kw_only=True)
class Estimated(Options):
    """Whether a command says what it would take, and stops."""

    estimate: bool = option(False, "Measure a little, print time, memory and disk, and stop.")


@dataclass(frozen=True, kw_only=True)
class Output(Forced, Drawn, Estimated):
    """What becomes of a measurement."""

    out: Path | None = option(
        None, "File to write, ending in .h5.", otherwise="one in the run's folder"
    )


def sample_count(asked: int | str | None, available: int) -> int:
    """Return how many of a split's samples to use: "all", a number, or None for the default."""
    if asked is None:
        return min(available, LARGEST_SAMPLE)
    return available if isinstance(asked, str) else min(asked, available)


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

    dtype: torch.dtype = getattr(torch, text)
    return dtype


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
