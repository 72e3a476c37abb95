"""One-dimensional surfaces: the loss, and the accuracy, along a line through the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from isoloss.figures.fields import Field, edges, field, is_accuracy, quantity, row_through_origin
from isoloss.figures.formatting import number
from isoloss.figures.scale import Scale, shared_scale
from isoloss.figures.style import (
    COLUMN,
    FLAWED,
    SMALL,
    FigureError,
    SeriesStyle,
    add_note,
    new_figure,
    note_text,
    styled,
)
from isoloss.figures.surface import tick_text

if TYPE_CHECKING:
    from isoloss.records.surfaces import SurfaceData

LOSS_COLOR = "#0072B2"
ACCURACY_COLOR = "#D55E00"
_SPLITS = {"train": "solid", "val": (0, (1.2, 1.2)), "test": (0, (4.5, 1.5))}
_MEDIAN_WIDTH = 1.8  # points; single directions are thin
_MARK: dict[str, Any] = {"color": "0.4", "ls": (0, (1.0, 1.5)), "lw": 0.7, "zorder": 0.8}
_MARKED = 31  # up to this many points each is marked, so that the resolution is seen


@styled
def curve_figure(data: SurfaceData, *, log: bool | None = None, title: str = "") -> Figure:
    """Draw losses (left axis) and accuracies (right axis, percent) along x.

    Training is solid, test dashed; the origin is a dotted line with its values in the legend. Of
    several directions the lines are their medians; each of them is a thin line of the first loss,
    and bands show what they span, of the first loss and the first accuracy.

    Args:
        data: A 1-D surface, or a 2-D one whose grid has the row y = 0.
        log: Whether the loss axis is logarithmic; None decides by the range of the losses.
        title: Title at the upper left.

    Raises:
        FigureError: If there is no row y = 0, or neither a loss nor an accuracy.
    """
    line = row_through_origin(data)
    if line is None:
        raise FigureError("expected a 1-D curve or a surface with a row y = 0; its y axis misses 0")
    fields = [field(line, key) for key in _drawable_keys(line)]
    losses = [what for what in fields if not is_accuracy(what.key)]
    accuracies = [what for what in fields if is_accuracy(what.key)]
    notes = curve_notes(fields)
    if losses and losses[0].several:
        notes.append(f"thin: {losses[0].label} along each")
    lines = (len(fields) + 1) // 2 + bool(title) + (note_text(notes, COLUMN).count("\n") + 1)
    figure = new_figure(COLUMN, 1.85 + 0.13 * lines)
    axes = figure.add_subplot()
    handles: list[Artist] = []
    each = [what.several.each for what in losses[:1] if what.several]
    scale = shared_scale([*(what.drawable for what in losses), *each], log=log, clip=False)
    for what in losses[:1]:
        _draw_band(axes, what, scale, LOSS_COLOR)
        _draw_each(axes, what, scale, LOSS_COLOR)
    for what in losses:
        handles += _draw_split(axes, what, _on_axis(what.drawable, scale), LOSS_COLOR)
    scale_axis(axes, scale, "loss" if losses else "")
    if accuracies:
        right = axes.twinx()
        _draw_band(right, accuracies[0], None, ACCURACY_COLOR)
        for what in accuracies:
            handles += _draw_split(right, what, what.drawable, ACCURACY_COLOR)
        right.set_ylabel("accuracy (%)", color=ACCURACY_COLOR)
        right.set_ylim(-3, 103)
        right.tick_params(axis="y", colors=ACCURACY_COLOR)
        right.spines["right"].set_visible(True)
        axes.tick_params(axis="y", colors=LOSS_COLOR)
        axes.yaxis.label.set_color(LOSS_COLOR)
    handles += frame_curve(axes, fields)
    axes.set_title(title, loc="left")
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    add_note(figure, notes)
    return figure


def draw_curves(
    axes: Axes,
    curves: Sequence[tuple[str, SeriesStyle, Field]],
    *,
    log: bool | None = None,
    each: bool = False,
) -> None:
    """Overlay one quantity of several runs, each in its own colour and line style.

    A run measured along several directions is their median over a band of what they span.

    Args:
        axes: Where to draw.
        curves: Label, style and 1-D field of each run.
        log: Whether the axis is logarithmic; None decides by the common range.
        each: Whether to draw what a median is of as thin lines, too.
    """
    arrays = [what.drawable for _, _, what in curves]
    for _, _, what in curves:
        if what.several:
            arrays += [what.several.low, what.several.high]
    scale = shared_scale(arrays, log=log, clip=False)
    for label, style, what in curves:
        _draw_band(axes, what, scale, style.color)
        if each:
            _draw_each(axes, what, scale, style.color)
        axes.plot(
            what.x,
            _on_axis(what.drawable, scale),
            color=style.color,
            linestyle=style.linestyle,
            marker=style.marker if what.sound.sum() <= 1 else "",
            label=label,
        )
    keys = {what.key for _, _, what in curves}
    scale_axis(axes, scale, quantity(keys.pop()) if len(keys) == 1 else "loss")
    frame_curve(axes, [what for _, _, what in curves])


def scale_axis(axes: Axes, scale: Scale, label: str) -> None:
    """Set the y axis to a scale and state on it which kind it is."""
    axes.set_ylabel(f"{label} ({scale.name})" if scale.log else label)
    if scale.log:
        axes.set_yscale("log")
        room = (scale.vmax / scale.vmin) ** 0.05
        axes.set_ylim(scale.vmin / room, scale.vmax * room)
        if scale.vmax < 1e3 * scale.vmin:  # else there are enough powers of ten
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    else:
        room = 0.05 * (scale.vmax - scale.vmin)
        axes.set_ylim(scale.vmin - room, scale.vmax + room)


def frame_curve(axes: Axes, fields: Sequence[Field]) -> list[Patch]:
    """Draw what is common to the curves of a panel: x axis, origin, spans of non-finite points.

    Returns:
        Handles for a legend: one for the hatching where there is any.
    """
    low = min(float(edge) for what in fields for edge in (what.x[0], what.x[-1]))
    high = max(float(edge) for what in fields for edge in (what.x[0], what.x[-1]))
    room = 0.02 * (high - low) or 0.5
    axes.set_xlim(low - room, high + room)
    axes.set_xlabel(fields[0].x_label)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if low <= 0 <= high:
        axes.axvline(0.0, **_MARK)
    for x, name in sorted({(end[0], end[2]) for what in fields for end in what.ends if end[0]}):
        if low <= x <= high:  # another checkpoint
            axes.axvline(x, **_MARK)
            axes.text(
                x, 1.01, name, ha="center", fontsize=SMALL, transform=axes.get_xaxis_transform()
            )
    spans = sorted({span for what in fields for span in flawed_spans(what)})
    for left, right in spans:
        axes.axvspan(left, right, zorder=0.5, **FLAWED)
    return [Patch(label="non-finite", **FLAWED)] if spans else []


def flawed_spans(field: Field) -> list[tuple[float, float]]:
    """Return intervals of x covered by the cells of neighbouring non-finite points of a curve."""
    borders = edges(field.x)
    padded = np.concatenate([[False], field.flawed, [False]]).astype(int)
    starts, stops = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
    return [(float(borders[a]), float(borders[b])) for a, b in zip(starts, stops, strict=True)]


def curve_notes(fields: Sequence[Field]) -> list[str]:
    """Return what is not drawn as an ordinary point, once where it holds for all fields."""
    notes: dict[str, list[str]] = {}
    for what in fields:
        for note in what.notes():
            notes.setdefault(note.replace("blank: ", "left out: "), []).append(what.label)
    return [
        note if len(labels) == len(fields) else f"{', '.join(labels)}: {note}"
        for note, labels in notes.items()
    ]


def _drawable_keys(data: SurfaceData) -> list[str]:
    """Return losses, then accuracies, training before test; others have no axis here."""
    keys = [key for key in data.values if key.endswith("_loss") or key.endswith("_acc")]
    if not keys:
        held = ", ".join(sorted(data.values)) or "nothing"
        raise FigureError(f"expected a loss or an accuracy such as train_loss; the file has {held}")
    order = list(_SPLITS)
    return sorted(
        keys, key=lambda k: (is_accuracy(k), *(i for i, s in enumerate(order) if k.startswith(s)))
    )


def _draw_split(axes: Axes, what: Field, values: np.ndarray, color: str) -> list[Line2D]:
    """Draw one quantity of one split; returns the legend handles."""
    label = what.label.replace(" (%)", "")
    if what.origin is not None:
        label += f" ({number(what.origin)} at 0)"
    split = what.key.partition("_")[0]
    return axes.plot(
        what.x,
        values,
        color=color,
        linestyle=_SPLITS.get(split, "solid"),
        linewidth=_MEDIAN_WIDTH if what.several else None,
        marker="o" if what.x.size <= _MARKED else "",
        markersize=2.2,
        mfc=color if split == "train" else "white",
        mew=0.6,
        label=label,
    )


def _draw_band(axes: Axes, what: Field, scale: Scale | None, color: str) -> None:
    """Fill what several directions span; where the upper end is infinite, up to the axis's."""
    if what.several is None:
        return
    low, high = (_on_axis(end, scale) for end in (what.several.low, what.several.high))
    if scale is not None:
        high = np.minimum(high, scale.vmax)
    axes.fill_between(what.x, low, high, color=color, alpha=0.15, linewidth=0.0, zorder=1.2)


def _draw_each(axes: Axes, what: Field, scale: Scale, color: str) -> None:
    """Draw each of several directions as a thin line."""
    if what.several is None:
        return
    for values in what.several.each:
        drawable = _on_axis(np.where(np.isfinite(values), values, np.nan), scale)
        axes.plot(what.x, drawable, color=color, alpha=0.5, linewidth=0.4, zorder=1.5)


def _on_axis(values: np.ndarray, scale: Scale | None) -> np.ndarray:
    """Return values for the axis of a scale: zeros of a logarithmic one at its lower end."""
    return np.maximum(values, scale.vmin) if scale is not None and scale.log else values
