"""What several random planes span: the lowest, the median and the highest value at each point."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from isoloss.figures.fields import field, log_notes, scale_of
from isoloss.figures.scale import Look
from isoloss.figures.style import (
    NORMAL,
    PAGE,
    SMALL,
    FigureError,
    inches,
    new_figure,
    note_text,
    styled,
    wrap,
)
from isoloss.figures.surface import (
    draw_filled_contour,
    flat_aspect,
    shared_colorbar,
    surface_notes,
)

if TYPE_CHECKING:
    from isoloss.records.surfaces import SurfaceData

_PANEL = 1.7  # inches
_LEFT, _BETWEEN = 0.5, 0.26


@styled
def range_figure(
    data: SurfaceData, *, key: str | None = None, look: Look | None = None, title: str = ""
) -> Figure:
    """Draw what the planes of a surface with repeats span, point by point, at one scale.

    Three filled contours: the lower end of the band over planes, the median, the upper end. Each
    point is taken by itself, so that none of the panels need be a plane of the network.

    Args:
        data: A 2-D surface with two finished planes or more.
        key: Stored name such as ``"train_loss"``; None takes the training loss.
        look: What is asked of the scale.
        title: Title at the upper left.

    Raises:
        FigureError: For a curve, an unknown quantity, or a surface of one plane.
    """
    if data.y is None:
        raise FigureError("expected a 2-D surface, got a 1-D curve: draw it with curve_figure")
    what = field(data, key)
    several = what.several
    if several is None:
        raise FigureError(
            "expected two finished planes or more, got one: `repeat` says how many to draw"
        )
    panels = [dataclasses.replace(what, values=values) for values in (several.low, several.high)]
    panels.insert(1, what)
    scale = scale_of(panels, look)
    words = [*surface_notes(what, scale, "filled"), *log_notes([("", what)], scale)]
    words.append("each point by itself: no panel need be one of the planes")
    notes = note_text(words, PAGE - 0.1)
    heading = wrap(title, PAGE - 0.6, NORMAL) if title else ""
    above = 0.24 + 0.14 * (heading.count("\n") + 1 if title else 0)
    bottom = 0.44 + 0.11 * (notes.count("\n") + 1)
    height = _PANEL * flat_aspect(what)
    size = (PAGE, bottom + height + above)
    figure = new_figure(*size, constrained=False)
    ends = (
        ("lowest", "highest") if several.band == "range" else ("10th percentile", "90th percentile")
    )
    names = (ends[0], "median", ends[1])
    for index, (name, panel) in enumerate(zip(names, panels, strict=True)):
        left = _LEFT + index * (_PANEL + _BETWEEN)
        axes = figure.add_axes(inches(size, left, bottom, _PANEL, height))
        draw_filled_contour(axes, panel, scale)
        axes.set_title(f"{name} of {len(several.each)} planes", fontsize=NORMAL)
        if index:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
    left = _LEFT + 3 * _PANEL + 2 * _BETWEEN + 0.1
    shared_colorbar(
        figure, figure.add_axes(inches(size, left, bottom, 0.1, height)), scale, what.label
    )
    figure.text(_LEFT / size[0], 1 - 0.04 / size[1], heading, va="top")
    figure.text(0.03 / size[0], 0.04 / size[1], notes, va="bottom", fontsize=SMALL, color="0.25")
    return figure
