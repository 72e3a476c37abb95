"""`compare`: runs side by side in one figure and one table, where their numbers may be compared."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.commands.console import Console
from isoloss.commands.errors import CommandError, UsageError
from isoloss.commands.flags import command
from isoloss.commands.options import Printed, check_name_or_usage
from isoloss.experiments.options import option
from isoloss.experiments.settings import Results

if TYPE_CHECKING:
    from isoloss.figures.comparison import ComparisonRow
    from isoloss.records.runs import Run
    from isoloss.records.spectra import SpectrumData
    from isoloss.records.surfaces import SurfaceData

# What must agree for numbers of two runs to say something of the runs, by path in the settings.
COMPARED = {
    "loss": ("loss",),
    "split": ("split",),
    "samples": ("samples",),
    "sample digest": ("digest",),
    "batch-norm policy": ("bn",),
    "batch-norm batch": ("bn_batch",),
    "dtype": ("dtype",),
}
COMPARED_OF_SURFACES = {
    f"{what} of {axis}": ("directions", axis, what)
    for axis in "xy"
    for what in ("kind", "normalisation", "ignore", "seed", "orthogonal")
}


@dataclass(frozen=True)
class Measured:
    """A run with what was measured of it; anything may be missing."""

    run: Run
    surface: SurfaceData | None
    curve: SurfaceData | None
    hessian: SpectrumData | None


@dataclass(frozen=True, kw_only=True)
class Comparison(Printed):
    """What to compare, and where to."""

    runs: tuple[str, ...] = option(
        (), "Two runs or more.", positional=True, metavar="RUN..", otherwise="the newest two"
    )
    out: Path | None = option(None, "Folder to write.", otherwise="results/comparisons/RUN_RUN")
    force: bool = option(False, "Compare what was measured differently; the figure says how.")


@command(Comparison, Results)
def compare(asked: Comparison, folders: Results) -> None:
    """Set runs side by side: surfaces at one scale, curves, spectra and a table with errors.

    Runs need a `surface`, a `hessian`, or both. For example: compare mnist-sgd mnist-adam mnist-sam
    """
    console = Console(asked.as_json)
    runs = _chosen(asked.runs, folders.results, console)
    compare_runs(runs, folders.results, console, asked.out, asked.force)


def compare_runs(
    runs: Sequence[Run], results: Path, console: Console, out: Path | None = None,
    force: bool = False,
) -> Path:  # fmt: skip
    """Write the comparison of some runs and return its folder."""
    from isoloss.commands.drawing import png_files
    from isoloss.figures.comparison import comparison_figure, comparison_table, formatted_table
    from isoloss.figures.style import save_figure
    from isoloss.records.files import write_text
    from isoloss.records.runs import write_json

    measured = [measure(run) for run in runs]
    if not any(m.surface or m.curve or m.hessian for m in measured):
        raise CommandError(
            f"expected a surface or curvature of {', '.join(run.name for run in runs)}, got none\n"
            f"make them with: python cli.py surface {runs[0].name} --x=-1:1:21 --y=-1:1:21\n"
            f"and: python cli.py hessian {runs[0].name}"
        )
    differences = differences_between(measured)
    if differences and not force:
        raise CommandError(
            f"expected runs measured alike, but they differ in {'; '.join(differences)}\n"
            "measure them again with the same options, or print the differences with --force"
        )
    rows = [_row(m) for m in measured]
    notes = [f"measured differently: {text}" for text in differences] + _other_grids(measured)
    folder = out or results / "comparisons" / "_".join(run.name for run in runs)
    paths = save_figure(comparison_figure(rows, notes=notes), folder / "comparison")
    table, printed = comparison_table(rows), formatted_table(rows)
    write_json(folder / "table.json", {"runs": table, "differences": differences})
    write_text(folder / "table.csv", _csv(table))
    write_text(folder / "table.md", _markdown(printed))
    console.say(_aligned(printed))
    for text in notes:
        console.say(text)
    console.say(f"wrote {png_files(paths)[0]} (and .pdf, table.csv, table.json, table.md)")
    console.result({"runs": table, "differences": differences, "figures": paths})
    return folder


def measure(run: Run) -> Measured:
    """Read what was measured of a run."""
    from isoloss.records.spectra import read_spectrum
    from isoloss.records.surfaces import read_surface

    surface, curve, hessian = (
        run.path / name for name in ("surface-2d.h5", "surface-1d.h5", "hessian.h5")
    )
    return Measured(
        run,
        read_surface(surface) if surface.exists() else None,
        read_surface(curve) if curve.exists() else None,
        read_spectrum(hessian) if hessian.exists() else None,
    )


def differences_between(measured: Sequence[Measured]) -> list[str]:
    """Name what was measured differently, as `surface dtype: run float32, other float64`."""
    found = [text for m in measured if (text := _other_weights(m))]
    found += _other_losses(measured)
    for kind in ("surface", "curve", "hessian"):
        keys = COMPARED if kind == "hessian" else COMPARED | COMPARED_OF_SURFACES
        settings = {
            m.run.name: getattr(m, kind).settings for m in measured if getattr(m, kind) is not None
        }
        for name, path in keys.items():
            values = {run: _at(stored, path) for run, stored in settings.items()}
            texts = {run: json.dumps(value, sort_keys=True) for run, value in values.items()}
            if len(set(texts.values())) > 1:
                shown = ", ".join(f"{run} {_short(value)}" for run, value in values.items())
                found.append(f"{kind} {name}: {shown}")
    return found


def _other_weights(m: Measured) -> str:
    """Say where what was measured of one run is of different weights (trained on, or best)."""
    from isoloss.records.runs import RunError

    weights = {
        kind: stored.settings.get("checkpoint_sha256")
        for kind in ("surface", "curve", "hessian")
        if (stored := getattr(m, kind)) is not None
    }
    with suppress(RunError):
        weights["test accuracy"] = m.run.evaluation().get("checkpoint_sha256")
    known = {kind: digest for kind, digest in weights.items() if digest is not None}
    if len(set(known.values())) < 2:
        return ""
    shown = ", ".join(f"{kind} {digest[:8]}" for kind, digest in known.items())
    return f"weights measured of {m.run.name}: {shown}"


def _other_grids(measured: Sequence[Measured]) -> list[str]:
    """Say where surfaces or curves span different ranges, which may be compared all the same."""
    found = []
    for kind in ("surface", "curve"):
        grids = {
            m.run.name: " ".join(filter(None, _at(stored.settings, ("grid",)).values()))
            for m in measured
            if (stored := getattr(m, kind)) is not None and _at(stored.settings, ("grid",))
        }
        if len(set(grids.values())) > 1:
            found.append(f"{kind} grids: {', '.join(f'{r} {g}' for r, g in grids.items())}")
    return found


def _other_losses(measured: Sequence[Measured]) -> list[str]:
    """Say where the test scores are means of different losses."""
    from isoloss.records.runs import RunError

    losses = {}
    for m in measured:
        with suppress(RunError):
            losses[m.run.name] = json.dumps(m.run.evaluation().get("loss"), sort_keys=True)
    if len(set(losses.values())) < 2:
        return []
    return [f"loss of the test scores: {', '.join(f'{r} {_short(v)}' for r, v in losses.items())}"]


def _chosen(names: Sequence[str], results: Path, console: Console) -> list[Run]:
    from isoloss.records.runs import find_run, list_runs

    if names:
        if len(set(names)) != len(names):
            raise UsageError(f"expected each run once, got {' '.join(names)}")
        return [find_run(results, check_name_or_usage(name, "RUN")) for name in names]
    there = sorted(list_runs(results), key=lambda run: run.path.stat().st_mtime_ns)[-2:]
    if len(there) == 2:
        console.say(f"the two newest runs: {there[0].name} and {there[1].name}")
        return there
    if there:
        raise UsageError(f"expected two runs or more to compare, there is one: {there[0].name}")
    from isoloss.commands.demo import DEMO_RUNS, measure_demo_run

    console.say(f"no run in {results}: training SGD and SAM on the digits first")
    return [
        measure_demo_run(DEMO_RUNS[name], results, console.of_part()) for name in ("sgd", "sam")
    ]


def _row(m: Measured) -> ComparisonRow:
    from isoloss.figures.comparison import ComparisonRow
    from isoloss.records.runs import RunError

    scores: dict[str, Any] = {}
    with suppress(RunError):  # imported weights that were not evaluated
        scores = m.run.evaluation()["splits"]["test"]
    return ComparisonRow(
        label=m.run.label,
        optimizer=str(m.run.config().get("optimizer", "")),
        run=m.run.name,
        surface=m.surface,
        curve=m.curve,
        hessian=m.hessian,
        accuracy=scores.get("accuracy"),
        accuracy_se=scores.get("accuracy_standard_error"),
        test_loss=scores.get("loss"),
        test_loss_se=scores.get("loss_standard_error"),
    )


def _at(settings: dict[str, Any], path: Sequence[str]) -> Any:
    value: Any = settings
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}.."


def _csv(table: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _markdown(table: Sequence[dict[str, str]]) -> str:
    heads = list(table[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row[head] for head in heads) + " |" for row in table]
    return "\n".join(lines) + "\n"


def _aligned(table: Sequence[dict[str, str]]) -> str:
    heads = list(table[0])
    widths = [max(len(head), *(len(row[head]) for row in table)) for head in heads]
    rows = [heads] + [[row[head] for head in heads] for row in table]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)
