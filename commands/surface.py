"""`surface`: the loss on a line or plane through a run's weights."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoloss.commands.console import Console
from isoloss.commands.errors import CommandError, usage
from isoloss.commands.flags import command
from isoloss.commands.options import (
    Output,
    check_out,
    peak_memory,
    resolve_device,
    resolve_dtype,
    sample_count,
)
from isoloss.experiments.settings import SAMPLE_SEED, SPLITS, Selection, SurfaceSettings

if TYPE_CHECKING:
    from isoloss.commands.subject import Subject
    from isoloss.landscape import Surface, SurfaceData


@command(SurfaceSettings, Selection, Output)
def surface(settings: SurfaceSettings, selection: Selection, output: Output) -> None:
    """Evaluate the loss on a line or plane of filter-normalised random directions, and draw it.

    Finished points are kept as they come: after an interruption the same command goes on. For
    example: surface mnist-sam --x=-1:1:51 --y=-1:1:51
    """
    from isoloss.commands.subject import load_subject

    console = Console(output.as_json)
    check_options(settings)
    surface_of(
        load_subject(selection, console),
        settings,
        console,
        out=output.out,
        force=output.force,
        figures=output.figures,
        estimate=output.estimate,
    )


def check_options(options: SurfaceSettings) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    from isoloss.landscape.batch_norm import check_policy
    from isoloss.landscape.grid import Grid
    from isoloss.landscape.normalisation import check_rules

    with usage():
        Grid.parse(options.x, options.y)
        for rule, skip in zip(options.normalisation, options.ignored, strict=True):
            check_rules(rule, skip)
        check_policy(options.bn, options.bn_batch)


def surface_of(
    subject: Subject,
    options: SurfaceSettings,
    console: Console,
    *,
    out: Path | None = None,
    force: bool = False,
    figures: bool = True,
    estimate: bool = False,
) -> Path:
    """Evaluate a surface of a subject into its run's folder and return the file."""
    from isoloss.landscape.store import remove_surface
    from isoloss.trainers.runs import write_json

    path = out or subject.run.path / f"surface-{'1d' if options.y is None else '2d'}.h5"
    check_out(path)
    if force and not estimate:
        remove_surface(path)
    task = build_surface(subject, options, path, resuming=not (force or estimate))
    if estimate:
        _estimate(task, console)
        return path
    store = task.store(path)
    finished = len(store.load())
    total = task.grid.size + 1
    if store.complete:
        console.say(f"{path} is complete: all {task.grid.size} points are done, nothing to do")
    elif finished:
        console.say(f"{path}: going on after {finished} of {total} points")
    began = time.monotonic()
    try:
        with console.progress(f"surface of {subject.run.name}") as progress:
            data = task.run(path, progress)
    except KeyboardInterrupt:
        done = len(task.store(path).load())
        raise CommandError(
            f"interrupted after {done} of {total} points, which are kept in {path}\n"
            "the same command goes on from there"
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
    subject: Subject, options: SurfaceSettings, path: Path, *, resuming: bool = True
) -> Surface:
    """Assemble problems, directions and grid; a surface begun at `path` lends its plan."""
    from isoloss.landscape import Grid, Plan, Surface, random_directions
    from isoloss.landscape.store import stored_settings

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
            balance=options.sample_balance,
            parameters=options.parameters,
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
        ignore=options.ignored,
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
    return Surface(problems, grid, directions, population=population, settings=settings)


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
