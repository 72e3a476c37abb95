"""Paths of trainings on the contours of the plane they are projected on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from isoloss.figures.contours import label_contours
from isoloss.figures.curve import scale_axis
from isoloss.figures.fields import Field, field, gap_polygons, has_area
from isoloss.figures.formatting import one_line
from isoloss.figures.scale import Scale, shared_scale
from isoloss.figures.style import (
    COLUMN,
    FLAWED,
    NORMAL,
    SMALL,
    FigureError,
    SeriesStyle,
    inches,
    legend_lines,
    new_figure,
    note_text,
    series_styles,
    styled,
    wrap,
)
from isoloss.figures.surface import draw_heatmap, flat_aspect, origin_text, surface_notes

if TYPE_CHECKING:
    from isoloss.records.surfaces import SurfaceData
    from isoloss.records.trajectories import Trajectory

_GREY = "0.6"  # of contour lines, which paths are in front of
_NUMBERED = 5  # epochs of a path that are numbered, about
_APART = 8.0  # points between a number and whatever it must not cover
_PANEL = (1.14, 0.92)  # inches, of each of the two below
_TALL = 2.05  # inches of an axis that a whole label fits beside
_MARKED = 40  # of the points of a path so many have a marker, about
_HALO = [patheffects.withStroke(linewidth=1.6, foreground="white")]


@styled
def trajectory_figure(data: SurfaceData, *, title: str = "") -> Figure:
    """Draw the paths on a surface, and below it how far they are from what the surface shows.

    Above, contours of the plane with each run's path: a marker at each stored epoch, some of them
    numbered. Below left, the loss at the points of the paths (lines) and on the plane at their
    projections (open markers); right, their distances from the plane (lines) and from theta0
    (thin). Where the two losses differ, the path has left the plane.

    Args:
        data: A surface with trajectories.
        title: Title at the upper left.

    Raises:
        FigureError: For a curve, or a surface without paths.
    """
    if data.y is None or not data.trajectories:
        held = "a curve" if data.y is None else "one without any"
        raise FigureError(f"expected a surface with the paths of runs, got {held}")
    what, paths = field(data), list(data.trajectories.values())
    scale = what.scale()
    styles = series_styles([str(path.about.get("optimizer", "")) for path in paths])
    names = [
        wrap(one_line(str(path.about.get("label") or name)), COLUMN - 0.7)
        for name, path in data.trajectories.items()
    ]
    columns = max(1, min(3, len(names), int(60 / (8 + max(map(len, names))))))
    rows = [names[first::columns] for first in range(columns)]
    notes = note_text(_notes(data, what, scale), COLUMN - 0.1)
    heading = wrap(title, COLUMN - 0.1, NORMAL) if title else ""
    # Axes are placed in inches: layout engines do not get along with equal aspect.
    left, width = 0.56, 2.7
    heights = {
        "notes": 0.08 + 0.11 * (notes.count("\n") + 1),
        "epochs": 0.32,
        "panels": _PANEL[1],
        "label": 0.42,
        "plane": width * min(flat_aspect(what), 1.15),
        "origin": 0.16,
        "legend": 0.05 + 0.14 * max(sum(1 + n.count("\n") for n in row) for row in rows),
        "title": 0.14 * (heading.count("\n") + 1) if heading else 0.0,
    }
    size = (COLUMN, sum(heights.values()))
    top = dict(zip(heights, np.cumsum(list(heights.values())), strict=True))
    figure = new_figure(*size, constrained=False)
    axes = figure.add_axes(inches(size, left, top["label"], width, heights["plane"]))
    _draw_plane(axes, what, scale, paths)
    for path, style in zip(paths, styles, strict=True):
        _draw_path(axes, path, style)
    _number_epochs(axes, paths, styles)
    axes.set_xlabel(what.x_label)
    low = heights["plane"] < _TALL
    axes.set_ylabel(what.y_label.replace(" (", "\n(") if low else what.y_label)
    losses, distances = (
        figure.add_axes(inches(size, at, top["epochs"], *_PANEL))
        for at in (left, COLUMN - _PANEL[0] - 0.1)
    )
    _draw_losses(losses, paths, styles)
    _draw_distances(distances, paths, styles)
    figure.legend(
        handles=legend_lines(names, styles, marked=True),
        loc="center",
        bbox_to_anchor=(0.5, (top["legend"] - heights["legend"] / 2) / size[1]),
        ncols=columns,
        borderaxespad=0.0,
    )
    figure.text(0.03 / size[0], 1 - 0.02 / size[1], heading, va="top")
    small: dict[str, Any] = {"fontsize": SMALL + 0.5}
    above = (top["plane"] + 0.03) / size[1]
    figure.text((left + width) / size[0], above, origin_text(what), ha="right", **small)
    figure.text(left / size[0], above, f"{what.label}, {scale.name}", **small)
    figure.text(0.03 / size[0], 0.04 / size[1], notes, va="bottom", fontsize=SMALL, color="0.25")
    return figure


def _draw_plane(axes: Axes, what: Field, scale: Scale, paths: Sequence[Trajectory]) -> None:
    """Draw grey labelled contours, or a heat map where there can be none."""
    assert what.y is not None
    if not has_area(what):
        draw_heatmap(axes, what, scale)
        return
    axes.set_xlim(float(what.x[0]), float(what.x[-1]))
    axes.set_ylim(float(what.y[0]), float(what.y[-1]))
    equal = np.ptp(what.y) == flat_aspect(what) * np.ptp(what.x)
    axes.set_aspect("equal" if equal else "auto", adjustable="datalim" if equal else "box")
    for spine in axes.spines.values():
        spine.set_visible(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    gaps = gap_polygons(what)
    if gaps:
        axes.add_collection(PolyCollection(gaps, zorder=0.5, **FLAWED), autolim=False)
    values = scale.clip(what.drawable)
    sound = values[what.sound]
    levels = [level for level in scale.levels if sound.min() < level < sound.max()]
    if levels:
        lines = axes.contour(
            what.x, what.y, np.ma.masked_invalid(values), levels=levels, colors=_GREY,
            linewidths=0.6,
        )  # fmt: skip
        points = [np.column_stack([path.x, path.y]) for path in paths]
        label_contours(axes, lines, avoid=np.concatenate([np.zeros((1, 2)), *points, *gaps]))
    axes.plot(0, 0, "*", markersize=7, mfc="white", mec="black", mew=0.6, zorder=6)


def _draw_path(axes: Axes, path: Trajectory, style: SeriesStyle) -> None:
    axes.plot(path.x, path.y, color="white", linewidth=2.4, zorder=3)  # apart from contours
    axes.plot(
        path.x,
        path.y,
        color=style.color,
        linestyle=style.linestyle,
        linewidth=1.1,
        marker=style.marker,
        markersize=3.2,
        mec="white",
        mew=0.4,
        markevery=max(1, len(path.epoch) // _MARKED),
        zorder=4,
    )


def _number_epochs(axes: Axes, paths: Sequence[Trajectory], styles: Sequence[SeriesStyle]) -> None:
    """Write numbers of epochs beside each path where there is room: first, last, some between."""
    axes.apply_aspect()
    unit = 72.0 / axes.figure.dpi
    every = [axes.transData.transform(np.column_stack([p.x, p.y])) * unit for p in paths]
    markers = np.concatenate([*every, axes.transData.transform([(0.0, 0.0)]) * unit])
    frame = axes.bbox.get_points() * unit
    taken: list[np.ndarray] = []
    written: set[tuple[int, ...]] = set()  # epoch and place: a common start has one number
    for path, style, points in zip(paths, styles, every, strict=True):
        for index in _numbered(len(path.epoch)):
            along = points[min(index + 1, len(points) - 1)] - points[max(index - 1, 0)]
            place = _free_place(points[index], along, [*markers, *taken], frame)
            label = (int(path.epoch[index]), *(int(c) for c in np.round(points[index])))
            if place is None or label in written:
                continue
            taken.append(place)
            written.add(label)
            axes.annotate(
                str(path.epoch[index]),
                (path.x[index], path.y[index]),
                xytext=tuple(place - points[index]),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=SMALL - 0.5,
                color=style.color,
                path_effects=_HALO,
                zorder=7,
            )


def _numbered(count: int) -> list[int]:
    """Return the places of a path that are numbered, the ends first."""
    step = max(1, round((count - 1) / (_NUMBERED - 1)))
    return list(dict.fromkeys([0, count - 1, *range(0, count, step)]))


def _free_place(
    point: np.ndarray, along: np.ndarray, others: Sequence[np.ndarray], frame: np.ndarray
) -> np.ndarray | None:
    """Return where beside a point a number is furthest from all else; None where there is no room.

    Args:
        point: The point, (2,); all in points of 1/72 inch.
        along: Direction of the path there, whose two sides are tried first.
        others: What a number must not cover.
        frame: Corners of the axes, (2, 2).
    """
    angle = float(np.arctan2(along[1], along[0]))
    best, room = None, 0.7 * _APART
    for turn in (0.5, -0.5, 0.25, -0.25, 0.75, -0.75):
        direction = np.array([np.cos(angle + np.pi * turn), np.sin(angle + np.pi * turn)])
        place = point + _APART * direction
        if np.minimum(place - frame[0], frame[1] - place).min() < _APART / 2:
            continue
        distance = float(np.linalg.norm(np.array(others) - place, axis=1).min())
        if distance > room + 0.5:
            best, room = place, distance
    return best


def _draw_losses(axes: Axes, paths: Sequence[Trajectory], styles: Sequence[SeriesStyle]) -> None:
    """Draw losses by epoch: lines at the points themselves, open markers on the plane."""
    arrays = [values for path in paths for values in (path.loss, path.plane_loss)]
    scale = shared_scale(arrays, clip=False)
    for path, style in zip(paths, styles, strict=True):
        on_axis = [np.where(np.isfinite(v), v, np.nan) for v in (path.loss, path.plane_loss)]
        axes.plot(path.epoch, on_axis[0], color=style.color, linestyle=style.linestyle, lw=1.0)
        axes.plot(
            path.epoch,
            on_axis[1],
            color=style.color,
            linestyle="",
            marker=style.marker,
            mfc="white",
            markersize=2.8,
            mew=0.7,
            markevery=max(1, len(path.epoch) // 12),
        )
    split = {str(path.about.get("split", "")) for path in paths}
    scale_axis(axes, scale, f"{split.pop()} loss".strip() if len(split) == 1 else "loss")
    axes.set_ylabel(axes.get_ylabel().removesuffix(" (log scale)"))  # its ticks say so
    if scale.log and scale.vmax > 30 * scale.vmin:
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
    _frame_epochs(axes)


def _draw_distances(axes: Axes, paths: Sequence[Trajectory], styles: Sequence[SeriesStyle]) -> None:
    """Draw distances by epoch: from the plane, and thin from theta0."""
    for path, style in zip(paths, styles, strict=True):
        line = {"color": style.color, "linestyle": style.linestyle}
        axes.plot(path.epoch, path.distance, linewidth=1.0, **line)  # type: ignore[arg-type]
        axes.plot(path.epoch, path.from_origin, linewidth=0.4, **line)  # type: ignore[arg-type]
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("distance")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    _frame_epochs(axes)


def _frame_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch", labelpad=1.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _notes(data: SurfaceData, what: Field, scale: Scale) -> list[str]:
    """Return what a reader must know of plane and paths, and what is not drawn of the values."""
    around = str(data.settings.get("label") or data.settings.get("run") or "the network")
    notes = [
        f"★ {around}, the weights that the plane goes through",
        "below: loss at the points of the paths (lines) and on the plane below them (open); "
        "distance from the plane (thick) and from ★ (thin)",
    ]
    recipes = data.settings.get("directions", {}).values()
    if any(recipe.get("kind") == "pca" for recipe in recipes):
        notes.append("PC: share of the checkpoints' variance, and of random walks of equal steps")
    if any(path.about.get("buffers") == "held" for path in data.trajectories.values()):
        notes.append("batch-norm statistics on the plane: those of ★; on the paths: their own")
    for name, path in data.trajectories.items():
        if outside := int(_outside(what, path).sum()):
            whose = path.about.get("label") or name
            notes.append(f"{outside} of {len(path.epoch)} points of {whose} are outside")
    return [*notes, *surface_notes(what, scale, "contour")]


def _outside(what: Field, path: Trajectory) -> np.ndarray:
    """Return which points of a path are beyond the axes."""
    assert what.y is not None
    return np.any(
        [(p < axis.min()) | (p > axis.max()) for p, axis in ((path.x, what.x), (path.y, what.y))],
        axis=0,
    )
