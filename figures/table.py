"""The table of a comparison: the numbers of each run with their uncertainties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from isoloss.figures.formatting import number, one_line, with_error
from isoloss.figures.style import NORMAL, PAGE, SeriesStyle

if TYPE_CHECKING:
    from isoloss.records.spectra import SpectrumData
    from isoloss.records.surfaces import SurfaceData

Value = str | float | bool | None
UNCONVERGED = "\u2020"
"""The mark of a value that did not converge: a dagger, as stars are read as significance."""
_LINE = 0.165  # inches
_LABEL = 22  # letters of a label that fit the table


@dataclass(frozen=True)
class ComparisonRow:
    """One run of a comparison and what is known of it; anything but the names may be missing.

    Attributes:
        label: What the figure calls the run.
        optimizer: Name of the optimizer; decides colour and line style.
        run: The run's name, or how else the command line knows it; None repeats the label.
        surface: A 2-D surface.
        curve: A 1-D surface; None takes the row y = 0 of `surface` where the grid has it.
        hessian: Eigenvalues, trace and density, each of which may be missing.
        accuracy: Test accuracy as a fraction.
        accuracy_se: Its standard error over test samples, as a fraction.
        test_loss: Mean test loss.
        test_loss_se: Its standard error over test samples.
    """

    label: str
    optimizer: str
    run: str | None = None
    surface: SurfaceData | None = None
    curve: SurfaceData | None = None
    hessian: SpectrumData | None = None
    accuracy: float | None = None
    accuracy_se: float | None = None
    test_loss: float | None = None
    test_loss_se: float | None = None


@dataclass(frozen=True)
class _Curvature:
    """Largest eigenvalue and trace of one run, each None where it is missing or not known."""

    eigenvalue: float | None = None
    residual: float | None = None
    eigenvalue_converged: bool | None = None
    trace: float | None = None
    trace_error: float | None = None
    trace_converged: bool | None = None

    @classmethod
    def of(cls, data: SpectrumData | None) -> _Curvature:
        found: dict[str, Any] = {}
        pairs = None if data is None else data.eigenpairs
        if pairs is not None and len(pairs.eigenvalues):
            value, residual = float(pairs.eigenvalues[0]), float(pairs.residuals[0])
            found = {
                "eigenvalue": value,
                "residual": residual,
                "eigenvalue_converged": _met(pairs.account, value, residual),
            }
        if data is not None and (trace := data.trace) is not None:
            found["trace"] = float(trace.estimate)
            found["trace_error"] = float(trace.standard_error)
            found["trace_converged"] = trace.account.get("converged")
        return cls(**found)


def _met(account: dict[str, Any], value: float, residual: float) -> bool | None:
    """Return whether one eigenpair met its tolerance, also where others of the run did not.

    None where the file does not say.
    """
    tolerance = account.get("settings", {}).get("tol")
    if account.get("converged") is False and tolerance is not None:
        return residual <= tolerance * abs(value)
    return account.get("converged")


def comparison_table(rows: Sequence[ComparisonRow]) -> list[dict[str, Value]]:
    """Return the numbers of a comparison, unrounded, one dictionary a run; None where not known.

    Accuracies are fractions. `lambda_max_residual` is ||H u - lambda u|| of the unit eigenvector.
    `lambda_max_converged` and `trace_converged` say whether residual and standard error met what
    was asked of them.
    """
    table: list[dict[str, Value]] = []
    for row in rows:
        found = _Curvature.of(row.hessian)
        table.append(
            {
                "run": row.run or row.label,
                "label": row.label,
                "optimizer": row.optimizer,
                "accuracy": row.accuracy,
                "accuracy_se": row.accuracy_se,
                "test_loss": row.test_loss,
                "test_loss_se": row.test_loss_se,
                "lambda_max": found.eigenvalue,
                "lambda_max_residual": found.residual,
                "lambda_max_converged": found.eigenvalue_converged,
                "trace": found.trace,
                "trace_se": found.trace_error,
                "trace_converged": found.trace_converged,
            }
        )
    return table


def formatted_table(rows: Sequence[ComparisonRow]) -> list[dict[str, str]]:
    """Return the numbers of a comparison as the figure prints them: heading to text, one a run.

    The column of the test loss is there when some run has one. Values that did not converge are
    marked by `UNCONVERGED`, which `table_notes` explains.
    """
    table = []
    for row in rows:
        found = _Curvature.of(row.hessian)
        percent = None if row.accuracy is None else 100 * row.accuracy
        spread = None if row.accuracy_se is None else 100 * row.accuracy_se
        cells = {
            "run": one_line(row.label),
            "optimizer": one_line(row.optimizer),
            "test accuracy (%)": with_error(percent, spread),
        }
        if any(other.test_loss is not None for other in rows):
            cells["test loss"] = with_error(row.test_loss, row.test_loss_se)
        largest = number(found.eigenvalue, 4)
        if found.residual is not None:
            largest += f" ({number(found.residual, 2)})"
        cells["λmax (residual)"] = largest + _mark(found.eigenvalue_converged)
        error = with_error(found.trace, found.trace_error)
        cells["trace ± s.e."] = error + _mark(found.trace_converged)
        table.append(cells)
    return table


def table_notes(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return what the marks of the table mean, where there are any."""
    found = [_Curvature.of(row.hessian) for row in rows]
    notes = []
    if any(one.eigenvalue_converged is False for one in found):
        notes.append(
            f"λmax{UNCONVERGED}: not converged, its residual is above the tolerance: some "
            "eigenvalue lies within the residual, the largest may be larger"
        )
    if any(one.trace_converged is False for one in found):
        notes.append(
            f"trace{UNCONVERGED}: not converged, its standard error is above the one asked for"
        )
    return notes


def table_height(rows: Sequence[ComparisonRow]) -> float:
    """Return the height of the drawn table in inches."""
    return _LINE * (len(rows) + 1)


def draw_table(axes: Axes, rows: Sequence[ComparisonRow], styles: Sequence[SeriesStyle]) -> None:
    """Draw the table: rules above, below and under the headings, a sample of each line style.

    Args:
        axes: Where to draw, `PAGE` - 0.2 by `table_height` inches.
        rows: The runs.
        styles: The style of each.
    """
    table = formatted_table(rows)
    axes.set_axis_off()
    axes.set_xlim(0, PAGE - 0.2)
    axes.set_ylim(-len(rows), 1)
    for y, width in ((1, 0.8), (0, 0.5), (-len(rows), 0.8)):
        axes.plot([0, PAGE - 0.2], [y, y], color="black", linewidth=width, clip_on=False)
    headings = list(table[0])
    # The label takes what the columns of numbers leave.
    widths = {"optimizer": 0.6, "test accuracy (%)": 1.1, "test loss": 0.95}
    numbers = [widths.get(heading, 1.25) for heading in headings[1:]]
    right = PAGE - 0.25
    edges = right - np.cumsum([0.0, *numbers[::-1]])[::-1]
    for column, heading in enumerate(headings):
        first = column == 0
        x = 0.42 if first else float(edges[column])
        align = "left" if first else "right"
        axes.text(x, 0.5, heading, ha=align, va="center_baseline", fontsize=NORMAL - 0.5)
        for line, cells in enumerate(table):
            text = shorten(cells[heading], _LABEL) if first else cells[heading]
            axes.text(x, -line - 0.5, text, ha=align, va="center_baseline", fontsize=NORMAL - 0.5)
    for line, style in enumerate(styles):
        axes.plot([0.05, 0.34], [-line - 0.5] * 2, color=style.color, linestyle=style.linestyle)


def shorten(text: str, letters: int) -> str:
    """Cut a text that would run into its neighbour, and put it on one line."""
    text = one_line(text)
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _mark(converged: bool | None) -> str:
    return UNCONVERGED if converged is False else ""
