"""`surface`: the loss on a line or plane through a run's weights."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from isoloss.commands.console import Console
from isoloss.commands.errors import CommandError, UsageError, usage
from isoloss.commands.options import (
    DEFAULT_RESULTS,
    SAMPLE_SEED,
    BatchSizeOption,
    BnBatchOption,
    BnOption,
    CheckpointOption,
    DataDirOption,
    DatasetArgOption,
    DatasetOption,
    DeviceOption,
    DownloadOption,
    DtypeOption,
    EstimateOption,
    FiguresOption,
    ForceOption,
    JsonOption,
    LossArgOption,
    LossOption,
    ModelArgOption,
    ModelOption,
    OutOption,
    ResultsOption,
    RunName,
    SamplesOption,
    SeedOption,
    check_out,
    peak_memory,
    resolve_device,
    resolve_dtype,
    sample_count,
)

if TYPE_CHECKING:
    from isoloss.commands.subject import Subject
    from isoloss.landscape import Surface, SurfaceData

SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "both": ("train", "test")}


@dataclasses.dataclass(frozen=True)
class SurfaceOptions:
    """What surface to evaluate: the defaults are those of the command line."""

    x: str = "-1:1:51"
    y: str | None = None
    normalisation: tuple[str, str] = ("filter", "filter")
    ignore: tuple[str, str] = ("biasbn", "biasbn")
    orthogonal: bool = True
    split: str = "train"
    samples: str | None = None
    batch_size: int | None = None
    bn: str = "eval"
    bn_batch: int = 128
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"


def surface(
    run: RunName = None,
    x: Annotated[
        str, typer.Option("--x", metavar="MIN:MAX:COUNT", help="First axis, both ends included.")
    ] = "-1:1:51",
    y: Annotated[
        str | None,
        typer.Option("--y", metavar="MIN:MAX:COUNT", help="Second axis; a curve without it."),
    ] = None,
    norm: Annotated[
        str,
        typer.Option(
            "--norm", help="filter, layer, weight, dfilter, dlayer, model or none (Li et al. 2018)."
        ),
    ] = "filter",
    xnorm: Annotated[str | None, typer.Option("--xnorm", help="The same for x alone.")] = None,
    ynorm: Annotated[str | None, typer.Option("--ynorm", help="The same for y alone.")] = None,
    ignore: Annotated[
        str, typer.Option("--ignore", help="biasbn keeps biases and batch norm fixed, or none.")
    ] = "biasbn",
    xignore: Annotated[str | None, typer.Option("--xignore", help="For x alone.")] = None,
    yignore: Annotated[str | None, typer.Option("--yignore", help="For y alone.")] = None,
    orthogonal: Annotated[
        bool,
        typer.Option(
            "--orthogonal/--no-orthogonal",
            help="Whether the two directions are orthogonal after normalisation.",
        ),
    ] = True,
    split: Annotated[
        str, typer.Option("--split", help="train, val, test, or both (train and test).")
    ] = "train",
    samples: SamplesOption = None,
    loss: LossOption = None,
    loss_arg: LossArgOption = None,
    batch_size: BatchSizeOption = None,
    bn: BnOption = "eval",
    bn_batch: BnBatchOption = 128,
    checkpoint: CheckpointOption = None,
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    dataset: DatasetOption = None,
    dataset_arg: DatasetArgOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    data_dir: DataDirOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    download: DownloadOption = False,
    force: ForceOption = False,
    figures: FiguresOption = True,
    as_json: JsonOption = False,
    estimate: EstimateOption = False,
) -> None:
    """Evaluate the loss on a line or plane of filter-normalised random directions, and draw it.

    Finished points are kept as they come: after an interruption the same command goes on. For
    example: surface mnist-sam --x=-1:1:51 --y=-1:1:51
    """
    from isoloss.commands.subject import Selection, load_subject

    console = Console(as_json)
    options = SurfaceOptions(
        x=x,
        y=y,
        normalisation=(xnorm or norm, ynorm or norm),
        ignore=(xignore or ignore, yignore or ignore),
        orthogonal=orthogonal,
        split=split,
        samples=samples,
        batch_size=batch_size,
        bn=bn,
        bn_batch=bn_batch,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    check_options(options)
    subject = load_subject(
        Selection(
            run, checkpoint, model, model_arg, dataset, dataset_arg, loss, loss_arg,
            data_dir, results, download,
        ),
        console,
    )  # fmt: skip
    surface_of(subject, options, console, out=out, force=force, figures=figures, estimate=estimate)


def check_options(options: SurfaceOptions) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    from isoloss.landscape.batch_norm import check_policy
    from isoloss.landscape.grid import Grid
    from isoloss.landscape.normalisation import check_rules

    with usage():
        Grid.parse(options.x, options.y)
        for rule, skip in zip(options.normalisation, options.ignore, strict=True):
            check_rules(rule, skip)
        check_policy(options.bn, options.bn_batch)
    if options.split not in SPLITS:
        raise UsageError(f"--split: expected {', '.join(SPLITS)}, got {options.split!r}")
    sample_count(options.samples, 1)
    resolve_dtype(options.dtype)


def surface_of(
    subject: Subject,
    options: SurfaceOptions,
    console: Console,
    *,
    out: Path | None = None,
    force: bool = False,
    figures: bool = True,
    estimate: bool = False,
) -> Path:
    """Evaluate a surface of a subject into its run's folder and return the file."""
    from isoloss.records.identity import SettingsDifferError
    from isoloss.records.runs import write_json

    path = out or subject.run.path / f"surface-{'1d' if options.y is None else '2d'}.h5"
    check_out(path)
    task = build_surface(subject, options, path, resuming=not (force or estimate))
    if estimate:
        _estimate(task, console)
        return path
    store = task.store(path, fresh=force)
    finished = len(store.load())
    total = task.grid.size + 1
    if store.complete:
        console.say(f"{path} is complete: all {task.grid.size} points are done, nothing to do")
    elif finished:
        console.say(f"{path}: going on after {finished} of {total} points")
    began = time.monotonic()
    try:
        with console.progress(f"surface of {subject.run.name}") as progress:
            data = task.run(path, progress, fresh=force)
    except KeyboardInterrupt:
        with contextlib.suppress(SettingsDifferError):  # before a point replaced an old file
            finished = len(task.store(path).load())
        again = "the same command without --force" if force else "the same command"
        raise CommandError(
            f"interrupted after {finished} of {total} points, which are kept in {path}\n"
            f"{again} goes on from there"
        ) from None
    seconds = time.monotonic() - began
    summary = summarise(data) | {"file": path, "points_computed": total - finished}
    if finished < total:
        summary["seconds"] = seconds
    if finished < total or not path.with_suffix(".json").exists():
        write_json(path.with_suffix(".json"), summary)
    _say(summary, data, console)
    written: list[Path] = []
    if figures:
        from isoloss.commands.drawing import draw_surface

        written = draw_surface(path)
        console.say(f"wrote {path} and {', '.join(p.name for p in written if p.suffix == '.png')}")
    console.result({**summary, "figures": written})
    return path


def build_surface(
    subject: Subject, options: SurfaceOptions, path: Path, *, resuming: bool = True
) -> Surface:
    """Assemble problems, directions and grid; a surface begun at `path` lends its plan."""
    from isoloss.landscape import Grid, Plan, Surface, random_directions
    from isoloss.records.surfaces import stored_settings

    device, dtype = resolve_device(options.device), resolve_dtype(options.dtype)
    stored = stored_settings(path) if resuming else None
    plan = None if stored is None else Plan.from_json(stored["plan"])
    problems, population = {}, {}
    for name in SPLITS[options.split]:
        population[name] = len(subject.split(name))
        problems[name] = subject.problem(
            name,
            sample_count(options.samples, population[name]),
            device=device,
            dtype=dtype,
            bn=options.bn,
            bn_batch=options.bn_batch,
            plan=plan,
        )
        if options.batch_size is not None:
            chosen = problems[name].plan
            problems[name].plan = dataclasses.replace(chosen, micro_batch=options.batch_size)
        plan = problems[name].plan
    grid = Grid.parse(options.x, options.y)
    first = next(iter(problems.values()))
    directions = random_directions(
        first.parameters,
        len(grid.shape),
        seed=options.seed,
        normalisation=options.normalisation,
        ignore=options.ignore,
        orthogonal=options.orthogonal,
    )
    settings = {
        **subject.provenance,
        "label": subject.run.label,
        "optimizer": subject.run.config().get("optimizer"),
        "split": options.split,
        "population": population,
        "sample_seed": SAMPLE_SEED,
    }
    return Surface(problems, grid, directions, population=population, about=settings)


def summarise(data: SurfaceData) -> dict[str, Any]:
    """Return the numbers people ask of a surface: origin, extremes, and what is not finite."""
    columns: dict[str, Any] = {}
    for name, values in data.values.items():
        finite = values[np.isfinite(values)]
        columns[name] = {
            "origin": data.origin.get(name),
            "min": float(finite.min()) if finite.size else None,
            "max": float(finite.max()) if finite.size else None,
            # An accuracy that has no meaning, of a regression, is NaN throughout.
            "not_finite": int(np.sum(data.done & ~np.isfinite(values))) if finite.size else None,
        }
    return {
        "shape": list(data.done.shape),
        "points": int(data.done.size),
        "done": int(data.done.sum()),
        "cosine": data.cosine,
        "columns": columns,
    }


def _say(summary: Mapping[str, Any], data: SurfaceData, console: Console) -> None:
    for name, column in summary["columns"].items():
        if not name.endswith("_loss"):
            continue
        error = data.origin.get(f"{name}_se")
        spread = "" if error is None else f" ± {error:.2g} (s.e. of the sample)"
        bounds = "no finite value"
        if column["min"] is not None:
            bounds = f"from {column['min']:.5g} to {column['max']:.5g}"
        lost = f", {column['not_finite']} points not finite" if column["not_finite"] else ""
        console.say(f"{name}: {column['origin']:.6g}{spread} at the origin, {bounds}{lost}")
    if data.cosine is not None and abs(data.cosine) > 0.01:
        console.say(f"the directions are not orthogonal: their cosine is {data.cosine:.3f}")


def _estimate(task: Surface, console: Console) -> None:
    zero = (0.0,) * len(task.directions)
    task.evaluate_at(*zero)  # the first pass sets buffers up
    began = time.perf_counter()
    repeats = 3
    for _ in range(repeats):
        task.evaluate_at(*zero)
    point = (time.perf_counter() - began) / repeats
    numbers = sum(t.numel() for d in task.directions for t in d.tensors.values())
    size = 4 * numbers + 8 * len(task.columns) * task.grid.size
    seconds = point * (task.grid.size + 1)
    console.say(
        f"about {seconds:.0f} s for {task.grid.size + 1} points of {1000 * point:.0f} ms; "
        f"peak memory {peak_memory() / 2**20:.0f} MiB; file {size / 2**20:.1f} MiB"
    )
    console.result({"seconds": seconds, "peak_memory_bytes": peak_memory(), "file_bytes": size})
