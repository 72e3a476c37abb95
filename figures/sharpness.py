"""Rises of the loss against the radius of the ball: worst case, one step, and average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isoloss.figures.style import (
    PAGE,
    FigureError,
    SeriesStyle,
    add_note,
    new_figure,
    series_styles,
    styled,
)
from isoloss.records.identity import unlike

if TYPE_CHECKING:
    from isoloss.records.sharpness import SharpnessData

BALLS = {
    "l2": "radius of the ball, ‖δ‖ at most",
    "adaptive": "radius of the ball, ‖δ / (|w| + η)‖ at most",
}
# Lines are told apart by measure, runs by colour and marker.
MEASURES: dict[str, Any] = {
    "worst case": "solid",
    "one step": (0, (4.5, 1.5)),
    "m-sharpness": (0, (5.0, 1.2, 1.0, 1.2)),
    "average": (0, (1.2, 1.2)),
}
_BESIDE = 1.03  # of a radius, between the runs at one, so that their bars do not cover each other


@styled
def sharpness_figure(
    runs: Sequence[tuple[str, str, SharpnessData]], *, title: str = "", notes: Sequence[str] = ()
) -> Figure:
    """Draw the rises of each run, a panel for each kind of ball.

    Args:
        runs: Label, optimizer and stored sharpness of each run.
        title: Title at the upper left.
        notes: What must be known of them, below.

    Raises:
        FigureError: If no run has a rise.
    """
    kinds = [kind for kind in BALLS if any(data.find("one step", kind) for _, _, data in runs)]
    if not kinds:
        raise FigureError("expected a measure of a ball, got none: give `rho` or `adaptive_rho`")
    figure = new_figure(PAGE, 2.9)
    styles = series_styles([optimizer for _, optimizer, _ in runs])
    panels = np.atleast_1d(figure.subplots(1, len(kinds), squeeze=True))
    drawn: set[str] = set()
    for axes, kind in zip(panels, kinds, strict=True):
        for number, ((_, _, data), style) in enumerate(zip(runs, styles, strict=True)):
            shift = _BESIDE ** (number - (len(runs) - 1) / 2)
            drawn |= _draw(axes, data, kind, style, shift)
        _frame(axes, sorted({r.radius for _, _, data in runs for r in data.find("one step", kind)}))
        axes.set_xlabel(BALLS[kind])
    panels[0].set_ylabel("rise of the loss")
    panels[0].set_title(title, loc="left")
    lines = [
        Line2D([], [], color="0.25", linestyle=style, label=name)
        for name, style in MEASURES.items()
        if name in drawn
    ]
    if len(runs) > 1:
        lines += [
            Line2D([], [], color=s.color, marker=s.marker, markersize=3, label=label)
            for (label, _, _), s in zip(runs, styles, strict=True)
        ]
    figure.legend(handles=lines, loc="outside upper center", ncols=min(5, len(lines)))
    add_note(figure, [*_notes(runs, kinds, drawn), *notes])
    return figure


def _draw(axes: Axes, data: SharpnessData, kind: str, style: SeriesStyle, shift: float) -> set[str]:
    drawn = set()
    for measure, line in MEASURES.items():
        rows = [row for row in data.find(measure, kind) if np.isfinite(row.value)]
        if not rows:
            continue
        drawn.add(measure)
        x = np.array([row.radius for row in rows]) * shift
        y = np.array([row.value for row in rows])
        look = {"color": style.color, "linestyle": line, "marker": style.marker, "markersize": 2.8}
        below, above = np.zeros(len(rows)), np.zeros(len(rows))
        if measure == "worst case":  # down to what the worst start found
            below = np.array([row.value - row.lowest for row in rows])
        elif any(np.isfinite(row.error) for row in rows):
            below = above = np.nan_to_num([row.error for row in rows])
        below = np.where(np.isfinite(below), below, 0.0)
        axes.errorbar(x, y, yerr=[below, above], elinewidth=0.7, capsize=1.5, **look)
    return drawn


def _frame(axes: Axes, ticks: Sequence[float]) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    values = values[np.isfinite(values)]
    axes.set_xscale("log")
    if len(ticks) <= 8:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
    else:
        axes.axhline(0, color="0.6", linewidth=0.6)


def _notes(
    runs: Sequence[tuple[str, str, SharpnessData]], kinds: Sequence[str], drawn: set[str]
) -> list[str]:
    options = runs[0][2].settings.get("options", {})
    notes = []
    if "worst case" in drawn:
        starts, steps = options.get("starts"), options.get("ascent_steps")
        notes.append(
            f"worst case: the best of {starts} starts of {steps} ascent steps, a lower bound; its "
            "bar reaches down to the worst start"
        )
    if drawn & {"average", "m-sharpness"}:
        notes.append("other bars: one standard error over draws or subsets")
    if "m-sharpness" in drawn:
        notes.append(f"m-sharpness: subsets of {options.get('m')} samples")
    if "adaptive" in kinds:
        eta = options.get("eta", 0)
        change = "do not change with" if not eta else "change little with"
        notes.append(f"η = {eta:g}; rises over adaptive balls {change} rescaled layers")
    other = unlike({label: data.settings for label, _, data in runs})
    return notes + ([f"measured differently: {', '.join(other)}"] if other else [])
