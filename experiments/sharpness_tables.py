"""The sharpness of several runs in one table and one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isoloss.experiments.tables import as_csv
from isoloss.figures.sharpness import BALLS, sharpness_figure
from isoloss.figures.style import save_figure
from isoloss.records.files import write_text
from isoloss.records.json_text import to_json
from isoloss.records.sharpness import SharpnessData, sharpness_rows


def write_sharpness_over_runs(
    folder: Path, runs: Sequence[tuple[str, SharpnessData]], *, figures: bool = True
) -> list[Path]:
    """Write `sharpness.csv`, and the figure where a run has a measure of a ball.

    Args:
        folder: Made where it is missing.
        runs: Label and sharpness of each.
        figures: Whether to draw.

    Returns:
        The files, the table first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "sharpness.csv"
    write_text(table, as_csv([to_json(row) for row in sharpness_rows(runs)]))
    in_balls = any(data.find("one step", kind) for _, data in runs for kind in BALLS)
    if not (figures and in_balls):
        return [table]
    named = [(label, str(data.settings.get("optimizer") or ""), data) for label, data in runs]
    title = runs[0][0] if len(runs) == 1 else ""
    return [table, *save_figure(sharpness_figure(named, title=title), folder / "sharpness")]
