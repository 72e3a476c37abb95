"""What means over classes make up of a Gauss-Newton matrix: its parts' spectra, and shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from isoloss.figures.formatting import power_of_ten, with_error
from isoloss.figures.style import PAGE, FigureError, add_note, new_figure, styled
from isoloss.records.classes import (
    PARTS,
    ClassData,
    shares_of_eigenvalues,
    shares_of_trace,
)

# Of the Okabe-Ito palette, which colour-blind readers tell apart; what is within is the rest.
_COLORS = {"class": "#0072B2", "cross": "#E69F00", "same": "#009E73", "within": "0.85"}
_NAMES = {
    "class": "class means",
    "cross": "cross-class means",
    "same": "means of the true class",
    "within": "within classes",
}
_MARKERS = {"class": "s", "cross": "o", "same": "^"}
_WHOLE: dict[str, Any] = {
    "color": "0.1", "marker": "o", "markersize": 4.0, "markerfacecolor": "white", "linewidth": 0.8,
}  # fmt: skip
_DECADES = 5  # drawn below the largest value


@styled
def classes_figure(
    classes: ClassData,
    eigenvalues: np.ndarray | None = None,
    trace: tuple[float, float] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draw the eigenvalues of G and of its parts by rank, and what these make up of G's.

    Args:
        classes: Parts of G.
        eigenvalues: Largest ones of G, descending, those that the parts were taken along.
        trace: Of G, and its standard error.
        title: Title at the upper left.

    Raises:
        FigureError: If no eigenvalue is above 0.
    """
    parts = {"class": classes.of_class, "cross": classes.of_cross, "same": classes.of_same}
    whole = np.empty(0) if eigenvalues is None else np.asarray(eigenvalues)
    largest = max([float(np.nanmax(x, initial=0.0)) for x in (whole, *parts.values())])
    if not largest > 0:
        raise FigureError("expected classes with an eigenvalue above 0, got none")
    figure = new_figure(PAGE, 2.5)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1])
    _draw_ranks(left, whole, parts, largest)
    left.set_title(title, loc="left")
    columns = {}
    if len(whole):
        shares = shares_of_eigenvalues(classes, whole)
        columns = {str(rank + 1): [shares[part][rank] for part in PARTS] for rank in _shown(whole)}
    if trace is not None:
        of_trace = shares_of_trace(classes, *trace)
        columns["trace"] = [of_trace[part][0] for part in PARTS]
    _draw_shares(right, columns)
    handles: list[Artist] = [Line2D([], [], **_line(part), label=_NAMES[part]) for part in parts]
    if len(whole):
        handles = [Line2D([], [], **_WHOLE, label="G"), *handles]
    if columns:
        within = Patch(color=_COLORS["within"], label=_NAMES["within"])
        handles.append(within)
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    notes = [
        f"{len(classes.weights)} classes; left: eigenvalues of G and of its parts, whose sum is G; "
        "right: what they make up of each"
    ]
    if trace is not None:
        share, error = shares_of_trace(classes, *trace)["within"]
        notes.append(f"within classes {with_error(share, error)} of the trace (s.e. over probes)")
    add_note(figure, notes)
    return figure


def _line(part: str) -> dict[str, Any]:
    """Return how the eigenvalues of a part are drawn."""
    return {
        "color": _COLORS[part], "marker": _MARKERS[part], "markersize": 3.0, "linewidth": 0.6,
    }  # fmt: skip


def _shown(eigenvalues: np.ndarray) -> list[int]:
    """Return ranks, from 0, whose bars find room."""
    return list(range(min(len(eigenvalues), 24)))


def _draw_ranks(
    axes: Axes, whole: np.ndarray, parts: dict[str, np.ndarray], largest: float
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for part, values in parts.items():
        drawn = values[values > 0]
        axes.plot(np.arange(1, len(drawn) + 1), drawn, **_line(part), label=part)
    if len(drawn := whole[whole > 0]):
        axes.plot(np.arange(1, len(drawn) + 1), drawn, **_WHOLE, label="G")
    low = min([float(v[v > 0].min()) for v in (whole, *parts.values()) if (v > 0).any()])
    axes.set_ylim(max(0.5 * low, largest * 10.0**-_DECADES), 2 * largest)
    axes.set_xlabel("rank")
    axes.set_ylabel("eigenvalue")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: power_of_ten(round(np.log10(y)))))


def _draw_shares(axes: Axes, columns: dict[str, list[float]]) -> None:
    """Draw a stacked bar for each eigenvalue, and one for the trace apart from them."""
    places = np.arange(len(columns), dtype=float)
    if "trace" in columns:
        places[-1] += 0.5
    base = np.zeros(len(columns))
    for index, part in enumerate(PARTS):
        heights = np.nan_to_num([column[index] for column in columns.values()])
        axes.bar(places, heights, bottom=base, width=0.8, color=_COLORS[part])
        base += heights
    axes.set_xticks(places, list(columns))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("eigenvalue of G by rank, and trace" if "trace" in columns else "rank")
    axes.set_ylabel("share")
