"""Runs side by side in one figure and one table, where their numbers may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from isoloss.experiments.grouping import findings, grouped
from isoloss.experiments.likeness import Measured, differences_between, measure, other_grids
from isoloss.experiments.tables import as_csv, as_markdown
from isoloss.figures.comparison import comparison_figure
from isoloss.figures.quantities import (
    ComparisonGroup,
    ComparisonRow,
    Value,
    comparison_table,
    group_table,
)
from isoloss.figures.style import save_figure
from isoloss.figures.table import formatted_table, table_blocks, table_notes
from isoloss.records.files import write_text
from isoloss.records.runs import Run, RunError, find_run, write_json
from isoloss.records.tables import aligned, data_frame

if TYPE_CHECKING:
    import pandas as pd

_PAIRS_SHOWN = 6  # more are in table.json alone


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        groups: The runs in the order given, each for itself or grouped.
        differences: What was measured differently, in words; empty where nothing was.
        notes: What a reader must know, the differences included.
        pairs: Differences of test accuracies, of all pairs of runs with the same test samples;
            none where runs are grouped.
        unpaired: Why other runs are in no pair, in words.
        findings: What medians and ranges of groups say, in sentences, and what they do not.
    """

    groups: list[ComparisonGroup]
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pairs: list[PairedDifference] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def table(self) -> list[dict[str, Value]]:
        """Return the numbers, unrounded, one dictionary a run."""
        return comparison_table(self.groups)

    def to_dataframe(self) -> pd.DataFrame:
        """Return the same as a pandas data frame."""
        return data_frame(self.table())

    def __repr__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the table as the figure prints it, in aligned columns, and what its marks mean."""
        blocks = [aligned(block) for block in table_blocks(self.groups)]
        return "\n\n".join(blocks) + "".join(f"\n{note}" for note in table_notes(self.groups))

    def figure(self) -> Figure:
        """Return the figure: surfaces at one scale, curves, spectra, the table and the pairs."""
        pairs = [pair.text() for pair in self.pairs] if len(self.pairs) <= _PAIRS_SHOWN else []
        return comparison_figure(self.groups, notes=[*self.notes, *pairs])

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, unrounded, and what was measured differently."""
        return {
            "runs": self.table(),
            "groups": group_table(self.groups),
            "differences": self.differences,
            "pairs": self.pairs,
            "findings": self.findings,
        }

    def save(self, folder: Path) -> list[Path]:
        """Write figure (PNG and PDF) and table (CSV, JSON, Markdown); return the figure's files."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = save_figure(self.figure(), folder / "comparison")
        write_json(folder / "table.json", self.to_json())
        write_text(folder / "table.csv", as_csv(self.table()))
        notes = [*table_notes(self.groups), *self.findings]
        write_text(folder / "table.md", as_markdown(formatted_table(self.groups), notes))
        return paths


def compare(
    runs: Sequence[str | Run],
    results: Path | str = "results",
    *,
    by: str | None = None,
    force: bool = False,
) -> Comparison:
    """Set runs side by side.

    Args:
        runs: Runs, or their names.
        results: Folder of all results.
        by: A setting of the training, such as `optimizer`: runs that share it form a group, of
            which medians and ranges are shown. None leaves each run by itself.
        force: Whether to compare what was measured differently; the notes then say how.

    Raises:
        RunError: For a name without a run.
        UsageError: For a setting that no run has.
        ExperimentError: If nothing was measured of any run, or, unless forced, differently.
    """
    found = [run if isinstance(run, Run) else find_run(Path(results), run) for run in runs]
    measured = [measure(run) for run in found]
    if not any(m.surface or m.curve or m.hessian for m in measured):
        raise ExperimentError(
            f"expected a surface or curvature of {', '.join(run.name for run in found)}, got none\n"
            "make them, all alike, with: python cli.py compare "
            f"{' '.join(run.name for run in found)} --measure"
        )
    differences = differences_between(measured)
    if differences and not force:
        raise ExperimentError(
            f"expected runs measured alike, but they differ in {'; '.join(differences)}\n"
            "measure them again with the same options, or print the differences with `force`"
        )
    groups, notes = grouped(found, [_row(m) for m in measured], by)
    notes += [f"measured differently: {text}" for text in differences] + other_grids(measured)
    if any(group.several for group in groups):
        return Comparison(groups, differences, notes, findings=findings(groups))
    return Comparison(groups, differences, notes, *pairs_of(found))


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


def _row(m: Measured) -> ComparisonRow:
    scores: dict[str, Any] = {}
    with suppress(RunError):  # imported weights that were not evaluated
        scores = m.run.evaluation()["splits"]["test"]
    low, high = scores.get("accuracy_interval") or (None, None)
    return ComparisonRow(
        label=m.run.label,
        optimizer=str(m.run.config().get("optimizer", "")),
        run=m.run.name,
        surface=m.surface,
        curve=m.curve,
        hessian=m.hessian,
        accuracy=scores.get("accuracy"),
        accuracy_se=scores.get("accuracy_standard_error"),
        accuracy_interval=None if low is None or high is None else (low, high),
        test_loss=scores.get("loss"),
        test_loss_se=scores.get("loss_standard_error"),
        clusters=scores.get("clusters"),
    )
