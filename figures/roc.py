"""ROC curves of a classifier, one class against the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from isoloss.figures.formatting import with_error
from isoloss.figures.style import (
    PAGE,
    FigureError,
    add_note,
    new_figure,
    series_styles,
    styled,
)
from isoloss.figures.surface import tick_text

LARGEST_APART = 12
"""More classes than this cannot be told apart: the worst few are drawn, the others in grey."""
_WORST = 5


@dataclass(frozen=True)
class RocSeries:
    """The curve of one class.

    Attributes:
        name: Name of the class.
        false_positive_rate: (points,) ascending from 0 to 1.
        true_positive_rate: (points,) ascending from 0 to 1.
        area: Area under the curve.
        standard_error: Of the area; None where it is not known.
    """

    name: str
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    area: float
    standard_error: float | None = None


@styled
def roc_figure(
    series: Sequence[RocSeries], *, title: str = "", notes: Sequence[str] = ()
) -> Figure:
    """Draw ROC curves twice: on linear axes, and with the false positive rate on a log scale.

    Good classifiers differ at false positive rates that linear axes do not show.

    Args:
        series: Up to 12 curves are told apart; of more, the five of the smallest area are, on the
            grey of all the others.
        title: Title at the upper left.
        notes: What to say below, such as classes that have no curve.

    Raises:
        FigureError: If there is no curve.
    """
    if not series:
        raise FigureError("expected one ROC curve or more, got none")
    figure = new_figure(PAGE, 2.7)
    left, right = figure.subplots(1, 2)
    told = list(series)
    if len(series) > LARGEST_APART:
        told = sorted(series, key=lambda curve: curve.area)[:_WORST]
    grey = [curve for curve in series if all(curve is not other for other in told)]
    floor = _smallest_rate(series)
    handles: list[Line2D] = []
    for axes in (left, right):
        for curve in grey:
            axes.plot(*_steps(curve, floor), color="0.8", linewidth=0.5, zorder=1)
        handles = [
            axes.plot(
                *_steps(curve, floor),
                label=f"{curve.name}:  {with_error(curve.area, curve.standard_error)}",
                **line,
            )[0]
            for curve, line in zip(told, _lines(len(told)), strict=True)
        ]
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("true positive rate")
    _frame(left, right, floor)
    left.set_title(title, loc="left")
    head = f"class, AUC{' (lowest five)' if grey else ''}"
    figure.legend(handles=handles, loc="outside right upper", title=head, alignment="left")
    errors = any(curve.standard_error is not None for curve in told)
    explained = ["± is one standard error over samples"] if errors else []
    absent = [f"grey: the other {len(grey)} classes"] if grey else []
    add_note(figure, [*absent, *explained, *notes])
    return figure


def _steps(curve: RocSeries, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the curve, a rate of 0 moved to where the log scale begins."""
    return np.maximum(curve.false_positive_rate, floor), curve.true_positive_rate


def _smallest_rate(series: Sequence[RocSeries]) -> float:
    """Return half of the smallest rate above 0, rounded down to a power of ten times 1, 2 or 5."""
    rates = np.concatenate([curve.false_positive_rate for curve in series])
    half = min(0.05, float(rates[rates > 0].min()) / 2)
    power = 10.0 ** np.floor(np.log10(half))
    return float(power * max(step for step in (1, 2, 5) if step * power <= half * (1 + 1e-9)))


def _lines(count: int) -> list[dict[str, object]]:
    """Return colour and line style for each curve: the house's, or more colours."""
    styles = series_styles([""] * 7)
    colors: list[Any] = [style.color for style in styles]
    if count > len(colors):
        colors = list(matplotlib.colormaps["tab10" if count <= 10 else "tab20"].colors)  # type: ignore[attr-defined]
    return [
        {
            "color": colors[k],
            "linestyle": styles[k % 7].linestyle,
            "linewidth": 1.0,
            "zorder": 2,
        }
        for k in range(count)
    ]


def _frame(left: Axes, right: Axes, floor: float) -> None:
    """Label both panels and draw the line of guessing."""
    chance = {"color": "0.6", "linewidth": 0.6, "linestyle": (0, (2.0, 2.0)), "zorder": 0}
    left.plot([0, 1], [0, 1], **chance)  # type: ignore[arg-type]
    rates = np.geomspace(floor, 1, 200)
    right.plot(rates, rates, **chance)  # type: ignore[arg-type]
    left.set_xlim(-0.02, 1.02)
    left.set_xlabel("false positive rate")
    right.set_xscale("log")
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_xlim(floor, 1.0)
    right.set_xlabel("false positive rate (log scale)")
