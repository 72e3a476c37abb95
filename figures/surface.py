"""Two-dimensional surfaces: contour lines, filled contours, heat map, three-dimensional surface.

All four take the same field and the same scale, so that any of them can be set beside any other.
The `draw_*` functions draw into given axes and return what a reader must be told; `surface_figure`
makes a whole figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]
from mpl_toolkits.mplot3d.axes3d import Axes3D  # type: ignore[import-untyped]

from isoloss.figures.contours import label_contours
from isoloss.figures.fields import (
    Field,
    cell_polygons,
    edges,
    field,
    gap_polygons,
    has_area,
    log_notes,
)
from isoloss.figures.formatting import number, power_of_ten
from isoloss.figures.scale import Scale
from isoloss.figures.style import (
    COLORMAP,
    COLUMN,
    FLAWED,
    NORMAL,
    SMALL,
    FigureError,
    inches,
    new_figure,
    note_text,
    styled,
    wrap,
)

if TYPE_CHECKING:
    from isoloss.records.surfaces import SurfaceData

_FILL_LEVELS = 48
_MOST_LINES = 101  # grid lines of a 3-D surface each way; more would be ink only
_TITLE_BESIDE = 20  # letters of a title that still fit beside the value at the origin
_WIDEST_EQUAL = 3.0  # ranges further apart than this are not drawn at equal aspect


def draw_heatmap(axes: Axes, field: Field, scale: Scale) -> None:
    """Draw each grid point as a cell of its colour.

    Args:
        axes: Where to draw.
        field: A 2-D field.
        scale: The scale, its own or a shared one.
    """
    assert field.y is not None
    axes.pcolormesh(
        edges(field.x),
        edges(field.y),
        np.ma.masked_invalid(scale.clip(field.drawable)),
        cmap=COLORMAP,
        norm=scale.norm(),
        rasterized=field.values.size > 400,  # vector cells show seams in PDF viewers
    )
    _hatch(axes, cell_polygons(field.x, field.y, field.flawed))
    _frame(axes, field, edges(field.x), edges(field.y))


def draw_filled_contour(axes: Axes, field: Field, scale: Scale) -> None:
    """Draw a continuous fill with labelled lines on the scale's levels.

    Falls back to a heat map where no contour can exist; the arguments are those of `draw_heatmap`.
    """
    if not has_area(field):
        draw_heatmap(axes, field, scale)
        return
    space = np.geomspace if scale.log else np.linspace
    levels = space(scale.vmin, scale.vmax, _FILL_LEVELS)
    levels[0], levels[-1] = scale.vmin, scale.vmax  # exactly, or the extreme values drop out
    bands = axes.contourf(
        field.x,
        field.y,
        np.ma.masked_invalid(scale.clip(field.drawable)),
        levels=levels,
        cmap=COLORMAP,
        norm=scale.norm(),
    )
    bands.set(edgecolor="face", linewidth=0.25)  # else PDF viewers show seams between bands
    _draw_lines(axes, field, scale, line_color="white")


def draw_contour(axes: Axes, field: Field, scale: Scale) -> None:
    """Draw labelled lines of equal value, coloured by value, on the scale's levels.

    Falls back to a heat map where no contour can exist; the arguments are those of `draw_heatmap`.
    """
    if not has_area(field):
        draw_heatmap(axes, field, scale)
        return
    _draw_lines(axes, field, scale, line_color=None)


def draw_surface_3d(axes: Axes, field: Field, scale: Scale) -> None:
    """Draw the field as a height over the plane; flawed points are hatched on the floor.

    Args:
        axes: Three-dimensional axes.
        field: A 2-D field.
        scale: The scale; on a logarithmic one heights are decimal logarithms, labelled by value.
    """
    assert isinstance(axes, Axes3D)
    assert field.y is not None
    heights = scale.height(field.drawable)
    low, high = (float(h) for h in scale.height([scale.vmin, scale.vmax]))
    grid_x, grid_y = np.meshgrid(field.x, field.y)
    axes.computed_zorder = False  # floor, surface, mark: in this order, whatever the view
    if has_area(field):
        surface = axes.plot_surface(
            grid_x,
            grid_y,
            heights,
            rcount=_MOST_LINES,
            ccount=_MOST_LINES,
            cmap=COLORMAP,
            vmin=low,
            vmax=high,
            edgecolor=(0.0, 0.0, 0.0, 0.25),
            linewidth=0.15,
            antialiased=True,
        )
        surface.set_rasterized(True)
    elif field.sound.any():
        at = field.sound
        axes.scatter(
            grid_x[at], grid_y[at], heights[at], c=heights[at], cmap=COLORMAP, vmin=low, vmax=high
        )
    floor = low - 0.02 * (high - low)
    if field.origin is not None and np.isfinite(field.origin) and _contains_origin(field):
        top = scale.height([field.origin])
        axes.plot([0], [0], top, "*", ms=6, mfc="white", mec="black", mew=0.6, zorder=3)
    polygons = [
        np.column_stack([polygon, np.full(len(polygon), floor)])
        for polygon in cell_polygons(field.x, field.y, field.flawed)
    ]
    if polygons:
        axes.add_collection3d(Poly3DCollection(polygons, zorder=0, **FLAWED))
    _frame_3d(axes, field, scale, floor, high)


_DRAW: dict[str, Callable[[Axes, Field, Scale], None]] = {
    "contour": draw_contour,
    "filled": draw_filled_contour,
    "heatmap": draw_heatmap,
    "3d": draw_surface_3d,
}
KINDS = tuple(_DRAW)
"""The kinds of surface figures."""


@styled
def surface_figure(
    data: SurfaceData,
    kind: str = "contour",
    *,
    key: str | None = None,
    scale: Scale | None = None,
    log: bool | None = None,
    title: str = "",
) -> Figure:
    """Draw one quantity of a 2-D surface as a one-column figure.

    Args:
        data: The surface; `values[key]` is (ny, nx) with rows along y.
        kind: One of `KINDS`: contour lines, filled contours, heat map, 3-D surface.
        key: Stored name such as ``"train_loss"``; None takes the training loss.
        scale: A scale shared with other figures (`figures.scale.shared_scale`); None makes one.
        log: Whether that one is logarithmic; None decides by the range of the values.
        title: Title at the upper left.

    Raises:
        FigureError: For an unknown kind or quantity, and for a 1-D curve.
    """
    if kind not in _DRAW:
        raise FigureError(f"expected a kind of surface among {', '.join(KINDS)}; got {kind!r}")
    if data.y is None:
        raise FigureError("expected a 2-D surface, got a 1-D curve: draw it with curve_figure")
    what = field(data, key)
    scale = what.scale(log=log) if scale is None else scale
    words = [*surface_notes(what, scale, kind), *log_notes([("", what)], scale)]
    notes = note_text(words, COLUMN - 0.1)
    below = 0.06 + 0.11 * (notes.count("\n") + 1 if notes else 0)
    # Axes are placed in inches rather than by a layout engine: those do not get along with equal
    # aspect and with three dimensions.
    flat = kind != "3d"
    width, height = (2.05, 2.05 * flat_aspect(what)) if flat else (2.65, 2.5)
    bottom = below + (0.34 if flat else 0.05)
    heading = wrap(title, COLUMN - 0.6, NORMAL) if title else ""
    apart = 0.14 * (heading.count("\n") + 1) if len(title) > _TITLE_BESIDE else 0.0
    size = (COLUMN, bottom + height + 0.22 + apart)
    figure = new_figure(*size, constrained=False)
    left = 0.5 if flat else 0.0
    axes = figure.add_axes(
        inches(size, left, bottom, width, height), projection=None if flat else "3d"
    )
    _DRAW[kind](axes, what, scale)
    long = height if flat else 0.65 * height
    box = inches(size, left + width + 0.08, bottom + (height - long) / 2, 0.1, long)
    shared_colorbar(figure, figure.add_axes(box), scale, what.label)
    left = max(left, 0.03)
    right = left + width if flat else COLUMN - 0.05
    above = size[1] - 0.14
    figure.text(left / size[0], (above + 0.1) / size[1], heading, va="top")
    figure.text(
        right / size[0], (above - apart) / size[1], origin_text(what), ha="right",
        fontsize=SMALL + 0.5,
    )  # fmt: skip
    figure.text(0.03 / size[0], 0.04 / size[1], notes, va="bottom", fontsize=SMALL, color="0.25")
    return figure


def surface_notes(field: Field, scale: Scale, kind: str) -> list[str]:
    """Return what a drawing of a field does not show as a reader would expect, in words."""
    notes = field.notes(scale)
    if kind == "3d":  # there is no room at the axes
        named = zip("xy", (field.x_label, field.y_label), strict=True)
        notes += [f"{axis}: {name}" for axis, name in named if not name.startswith(axis)]
    if kind == "heatmap" or not field.sound.any():
        return notes
    if not has_area(field):
        shape = " x ".join(map(str, field.values.shape))
        drawn = "points" if kind == "3d" else "heat map"
        return [*notes, f"no complete cell in the {shape} grid: {drawn} drawn"]
    if kind == "3d" and max(field.values.shape) > _MOST_LINES:
        strides = [-(-count // _MOST_LINES) for count in field.values.shape[::-1]]
        notes.append(f"one grid line in {strides[0]} (x) and {strides[1]} (y) drawn")
    if kind != "3d" and not _levels_within(field, scale) and np.ptp(field.values[field.sound]):
        notes.append("no contour level lies within the values")
    return notes


def origin_text(field: Field) -> str:
    """Return the value at the origin beside its mark, and whether it is in the grid."""
    inside = _contains_origin(field)
    if field.origin is None:
        return "" if inside else "origin outside the grid"
    return f"{'★ origin' if inside else 'origin (outside the grid)'} {number(field.origin)}"


def shared_colorbar(figure: Figure, cax: Axes, scale: Scale, label: str) -> None:
    """Draw the colour bar of a scale into axes of its own, with ticks at round values.

    A pointed end says that values above the scale are drawn as its end; the label of a logarithmic
    one, that its zero is that of the values and not their minimum.
    """
    extend = "max" if scale.clipped else "neither"
    mappable = ScalarMappable(norm=scale.norm(), cmap=COLORMAP)
    bar = figure.colorbar(mappable, cax=cax, extend=extend)
    bar.set_label(f"{label}{' above 0' if scale.log else ''}, {scale.name}")
    bar.outline.set_linewidth(0.4)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_locator(FixedLocator(scale_ticks(scale)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))


def scale_ticks(scale: Scale, count: int = 6) -> list[float]:
    """Return round values within a scale: powers of ten where there are enough of them."""
    if not scale.log:
        ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.vmin, scale.vmax)
        return [float(tick) for tick in ticks if scale.vmin <= tick <= scale.vmax]
    first, last = np.ceil(np.log10(scale.vmin) - 1e-9), np.floor(np.log10(scale.vmax) + 1e-9)
    step = max(1, int(np.ceil((last - first + 1) / (count + 2))))
    powers = [float(f"1e{int(power)}") for power in np.arange(first, last + 1, step)]
    return powers if len(powers) >= 3 else one_two_five(scale.vmin, scale.vmax)


def one_two_five(low: float, high: float) -> list[float]:
    """Return the values 1, 2, 5 times powers of ten within an interval."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    values = [float(f"{mantissa}e{power}") for power in powers for mantissa in (1, 2, 5)]
    return [value for value in values if low <= value <= high]


def tick_text(value: float) -> str:
    """Return a tick's value; bare powers of ten far from one are written as powers."""
    exponent = np.log10(value) if value > 0 else 0.5
    if abs(exponent - round(exponent)) < 1e-9 and not -3.5 <= exponent <= 3.5:
        return power_of_ten(round(exponent))
    return number(value)


def _draw_lines(axes: Axes, field: Field, scale: Scale, line_color: str | None) -> None:
    """Draw and label contour lines; the flawed gaps between them are hatched."""
    assert field.y is not None
    levels = _levels_within(field, scale)
    gaps = gap_polygons(field)
    _hatch(axes, gaps)
    _frame(axes, field, field.x, field.y)
    if levels:
        colors = {"colors": line_color} if line_color else {"cmap": _line_colormap()}
        lines = axes.contour(
            field.x,
            field.y,
            np.ma.masked_invalid(scale.clip(field.drawable)),
            levels=levels,
            norm=None if line_color else scale.norm(),
            linewidths=0.5 if line_color else 0.8,
            **colors,
        )
        label_contours(axes, lines, avoid=np.concatenate([_marks(field), *gaps]))


def _marks(field: Field) -> np.ndarray:
    """Return the origin and the other checkpoints, (n, 2)."""
    return np.array([(0.0, 0.0), *((x, y) for x, y, _ in field.ends)])


def _levels_within(field: Field, scale: Scale) -> list[float]:
    """Return the scale's levels that some contour line can have; matplotlib warns of others."""
    values = scale.clip(field.drawable)[field.sound]
    return [level for level in scale.levels if values.min() < level < values.max()]


def _hatch(axes: Axes, polygons: list[np.ndarray]) -> None:
    """Hatch areas whose values are NaN or infinite."""
    if polygons:
        axes.add_collection(PolyCollection(polygons, zorder=0.5, **FLAWED), autolim=False)


def _frame(axes: Axes, field: Field, x: np.ndarray, y: np.ndarray) -> None:
    """Set limits, aspect, labels and the mark at the origin of a flat panel."""
    assert field.y is not None
    wide, tall = (abs(float(p[-1] - p[0])) for p in (x, y))
    axes.set_xlim(float(x[0]), float(x[-1]))
    axes.set_ylim(float(y[0]), float(y[-1]))
    axes.set_aspect("equal" if max(wide, tall) <= _WIDEST_EQUAL * min(wide, tall) else "auto")
    axes.set_xlabel(field.x_label)
    axes.set_ylabel(field.y_label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    for spine in axes.spines.values():
        spine.set_visible(True)
    if _contains_origin(field):
        axes.plot(0, 0, "*", markersize=6, mfc="white", mec="black", mew=0.6, zorder=5)
    halo = [withStroke(linewidth=1.5, foreground="white")]
    for at_x, at_y, name in field.ends:
        if x.min() <= at_x <= x.max() and y.min() <= at_y <= y.max():
            axes.plot(at_x, at_y, "o", markersize=4, mfc="white", mec="black", mew=0.6, zorder=5)
            text = axes.annotate(name, (at_x, at_y), (4, 3), textcoords="offset points")
            text.set(fontsize=SMALL, path_effects=halo, zorder=5)


def _frame_3d(axes: Axes3D, field: Field, scale: Scale, floor: float, high: float) -> None:
    """Set limits, labels and a quiet look of a three-dimensional panel."""
    assert field.y is not None
    axes.set_xlim(*_span(field.x))
    axes.set_ylim(*_span(field.y))
    axes.set_zlim(floor, high)
    axes.set_xlabel("x", labelpad=-9)
    axes.set_ylabel("y", labelpad=-9)
    axes.tick_params(labelsize=SMALL, pad=-3.5)
    axes.tick_params(axis="z", pad=-2.0)
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
    axes.yaxis.set_major_locator(MaxNLocator(4, prune="both"))
    ticks = scale_ticks(scale, 5)
    ticks = ticks[:: -(-len(ticks) // 6)]  # the axis is short: six labels at most
    axes.zaxis.set_major_locator(FixedLocator([float(h) for h in scale.height(ticks)]))
    text = {float(h): tick_text(t) for h, t in zip(scale.height(ticks), ticks, strict=True)}
    axes.zaxis.set_major_formatter(FuncFormatter(lambda height, _: text.get(height, "")))
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis.line.set_linewidth(0.5)
        axis._axinfo["grid"].update(color="0.88", linewidth=0.4)
        axis._axinfo["tick"].update(inward_factor=0.0, outward_factor=0.12)
    wide, tall = (np.ptp(_span(p)) for p in (field.x, field.y))
    equal = max(wide, tall) <= _WIDEST_EQUAL * min(wide, tall)
    larger = max(wide, tall)
    axes.set_box_aspect((wide / larger, tall / larger, 0.75) if equal else (1, 1, 0.75), zoom=0.97)
    axes.view_init(elev=40, azim=-58)


def flat_aspect(field: Field) -> float:
    """Return height over width of a flat panel; 1 where equal steps would not fit."""
    assert field.y is not None
    wide, tall = (float(np.ptp(_span(points))) for points in (field.x, field.y))
    return tall / wide if max(wide, tall) <= _WIDEST_EQUAL * min(wide, tall) else 1.0


def _span(points: np.ndarray) -> tuple[float, float]:
    """Return the limits of an axis, of cell width 1 for a single point."""
    ends = points if len(points) > 1 else edges(points)
    return float(ends[0]), float(ends[-1])


def _contains_origin(field: Field) -> bool:
    """Return whether (0, 0) lies in the range of the grid, up to rounding."""
    axes = [points for points in (field.x, field.y) if points is not None]
    return all(bool(points.min() <= 1e-9 and points.max() >= -1e-9) for points in axes)


def _line_colormap() -> Colormap:
    """Return the house colours for lines on white, without the lightest, not seen there."""
    colors = matplotlib.colormaps[COLORMAP](np.linspace(0.0, 0.82, 256))
    return ListedColormap(colors, name=f"{COLORMAP}_lines")
