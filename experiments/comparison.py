"""Runs side by side in one figure and one table, where their numbers may be compared."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from isoloss.evaluation.paired import (
    Answers,
    PairedDifference,
    paired_differences,
    read_answers,
    same_samples,
)
from isoloss.evaluation.predictions import ScoresError
from isoloss.experiments.errors import ExperimentError
from isoloss.figures.comparison import comparison_figure
from isoloss.figures.formatting import one_line
from isoloss.figures.style import save_figure
from isoloss.figures.table import (
    ComparisonRow,
    Value,
    comparison_table,
    formatted_table,
    table_notes,
)
from isoloss.records.files import write_text
from isoloss.records.identity import unlike
from isoloss.records.runs import Run, RunError, find_run, write_json
from isoloss.records.spectra import SpectrumData, read_spectrum
from isoloss.records.surfaces import SurfaceData, read_surface


@dataclass(frozen=True)
class Measured:
    """A run with what was measured of it; anything may be missing."""

    run: Run
    surface: SurfaceData | None
    curve: SurfaceData | None
    hessian: SpectrumData | None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        rows: One a run, in the order given.
        differences: What was measured differently, in words; empty where nothing was.
        notes: What a reader must know, the differences included.
        pairs: Differences of test accuracies, of all pairs of runs with the same test samples.
        unpaired: Why other runs are in no pair, in words.
    """

    rows: list[ComparisonRow]
    differences: list[str]
    notes: list[str]
    pairs: list[PairedDifference]
    unpaired: list[str]

    def table(self) -> list[dict[str, Value]]:
        """Return the numbers, unrounded, one dictionary a run."""
        return comparison_table(self.rows)

    def text(self) -> str:
        """Return the table as the figure prints it, in aligned columns, and what its marks mean."""
        return "\n".join([_aligned(formatted_table(self.rows)), *table_notes(self.rows)])

    def figure(self) -> Figure:
        """Return the figure: surfaces at one scale, curves, spectra and the table."""
        return comparison_figure(self.rows, notes=self.notes)

    def save(self, folder: Path) -> list[Path]:
        """Write figure (PNG and PDF) and table (CSV, JSON, Markdown); return the figure's files."""
        paths = save_figure(self.figure(), folder / "comparison")
        table = self.table()
        stored = {"runs": table, "differences": self.differences, "pairs": self.pairs}
        write_json(folder / "table.json", stored)
        write_text(folder / "table.csv", _csv(table))
        write_text(
            folder / "table.md", _markdown(formatted_table(self.rows), table_notes(self.rows))
        )
        return paths


def compare(
    runs: Sequence[str | Run], results: Path | str = "results", *, force: bool = False
) -> Comparison:
    """Set runs side by side.

    Args:
        runs: Runs, or their names.
        results: Folder of all results.
        force: Whether to compare what was measured differently; the notes then say how.

    Raises:
        RunError: For a name without a run.
        ExperimentError: If nothing was measured of any run, or, unless forced, differently.
    """
    found = [run if isinstance(run, Run) else find_run(Path(results), run) for run in runs]
    measured = [measure(run) for run in found]
    if not any(m.surface or m.curve or m.hessian for m in measured):
        raise ExperimentError(
            f"expected a surface or curvature of {', '.join(run.name for run in found)}, got none\n"
            f"make them with: python cli.py surface {found[0].name} --x=-1:1:21 --y=-1:1:21\n"
            f"and: python cli.py hessian {found[0].name}"
        )
    differences = differences_between(measured)
    if differences and not force:
        raise ExperimentError(
            f"expected runs measured alike, but they differ in {'; '.join(differences)}\n"
            "measure them again with the same options, or print the differences with `force`"
        )
    notes = [f"measured differently: {text}" for text in differences] + _other_grids(measured)
    pairs, unpaired = pairs_of(found)
    return Comparison([_row(m) for m in measured], differences, notes, pairs, unpaired)


def pairs_of(runs: Sequence[Run]) -> tuple[list[PairedDifference], list[str]]:
    """Compare the test accuracies of runs, sample by sample.

    Returns:
        All pairs of runs that share their test samples with the first run that has predictions,
        and why the other runs are in none.
    """
    answers: dict[str, Answers] = {}
    first: Run | None = None
    unpaired = []
    for run in runs:
        try:
            found = read_answers(run.path / "predictions.csv")
        except (OSError, ScoresError):
            unpaired.append(f"{run.name} has no predictions of classes: `evaluate` makes them")
            continue
        first = first or run
        if _same_test(run, first) and same_samples(found, answers.get(first.name, found)):
            answers[run.name] = found
        else:
            unpaired.append(f"{run.name} was not scored on the test samples of {first.name}")
    pairs = paired_differences(list(answers.items()))
    return pairs, [f"accuracies not compared in pairs: {text}" for text in unpaired]


def _same_test(a: Run, b: Run) -> bool:
    """Return whether the digests of two runs' test samples agree, or those of all their data."""
    if a is b:
        return True
    with suppress(RunError):
        digests = [run.evaluation().get("test_digest") for run in (a, b)]
        if None not in digests:
            return digests[0] == digests[1]
        whole = [run.facts().data_digest for run in (a, b)]
        return None not in whole and whole[0] == whole[1]
    return False


def measure(run: Run) -> Measured:
    """Read what was measured of a run."""
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
        there = [m for m in measured if getattr(m, kind) is not None]
        settings = {m.run.name: getattr(m, kind).settings for m in there}
        for name, values in unlike(settings).items():
            shown = ", ".join(f"{run} {_short(value)}" for run, value in values.items())
            found.append(f"{kind} {name}: {shown}")
    return found


def _other_weights(m: Measured) -> str:
    """Say where what was measured of one run is of different weights (trained on, or best)."""
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
            m.run.name: " ".join(filter(None, stored.settings["grid"].values()))
            for m in measured
            if (stored := getattr(m, kind)) is not None and stored.settings.get("grid")
        }
        if len(set(grids.values())) > 1:
            found.append(f"{kind} grids: {', '.join(f'{r} {g}' for r, g in grids.items())}")
    return found


def _other_losses(measured: Sequence[Measured]) -> list[str]:
    """Say where the test scores are means of different losses."""
    losses = {}
    for m in measured:
        with suppress(RunError):
            losses[m.run.name] = json.dumps(m.run.evaluation().get("loss"), sort_keys=True)
    if len(set(losses.values())) < 2:
        return []
    return [f"loss of the test scores: {', '.join(f'{r} {_short(v)}' for r, v in losses.items())}"]


def _row(m: Measured) -> ComparisonRow:
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


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}.."


def _csv(table: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _escaped(text: str) -> str:
    """Return a text as a cell of a Markdown table: on one line, its signs no markup."""
    return re.sub(r"([\\|*<`])", r"\\\1", one_line(text))


def _markdown(table: Sequence[dict[str, str]], notes: Sequence[str]) -> str:
    heads = list(table[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(_escaped(row[head]) for head in heads) + " |" for row in table]
    lines += [line for note in notes for line in ("", note)]
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
