"""The comparison of runs: surfaces at one scale, curves, spectra and the numbers in one figure."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isoloss.figures.curve import curve_notes, draw_curves
from isoloss.figures.density import density_notes, draw_densities, has_density, title_pad
from isoloss.figures.fields import (
    Field,
    common_key,
    field,
    is_accuracy,
    log_notes,
    quantity,
    row_through_origin,
)
from isoloss.figures.formatting import one_line
from isoloss.figures.scale import Scale, shared_scale
from isoloss.figures.style import (
    PAGE,
    SMALL,
    FigureError,
    SeriesStyle,
    inches,
    new_figure,
    note_text,
    series_styles,
    styled,
)
from isoloss.figures.surface import (
    draw_filled_contour,
    draw_surface_3d,
    origin_text,
    shared_colorbar,
    surface_notes,
)
from isoloss.figures.table import ComparisonRow, draw_table, shorten, table_height, table_notes

if TYPE_CHECKING:
    from isoloss.records.spectra import SpectrumData
    from isoloss.records.surfaces import SurfaceData


# Inches. A panel is the square a contour is drawn in; with many runs it shrinks to keep one page.
_PANEL = {1: 1.9, 2: 1.8, 3: 1.5, 4: 1.25}
_SMALLEST_PANEL = 1.0
_LEFT = 0.62
_ABOVE = 0.24  # a row's heading
_BELOW = 0.22  # its tick labels
_LOWER = 1.45  # height of the curve and density panels
_NOTE = 0.11  # a line of the note


@styled
def comparison_figure(
    rows: Sequence[ComparisonRow],
    *,
    key: str | None = None,
    notes: Sequence[str] = (),
    program: str = "python cli.py",
) -> Figure:
    """Set runs side by side.

    One row a run: its surface as filled contours and in three dimensions, all at one scale; then
    their curves, their spectral densities, a table and, below, what a reader must know.

    Args:
        rows: The runs, in the order to be drawn.
        key: Stored quantity of the surfaces; None takes a loss that all have.
        notes: Lines to add to the note, such as forced differences.
        program: How the command line is called, for the commands that blank panels name.

    Raises:
        FigureError: Without any row.
    """
    if not rows:
        raise FigureError("expected one run or more to compare, got none")
    styles = series_styles([row.optimizer for row in rows])
    surfaces = _fields([row.surface for row in rows], key)
    curves = _fields([_curve_of(row) for row in rows], key)
    scale = _scale([what for what in surfaces if what is not None])
    densities = [
        (row.label, style, row.hessian)
        for row, style in zip(rows, styles, strict=True)
        if row.hessian is not None and has_density(row.hessian)
    ]
    words = [*table_notes(rows), *notes, *_notes(rows, surfaces, curves, scale)]
    words += density_notes(densities)
    words += [
        f"{row.label}: no spectral density ({program} hessian {row.run or row.label})"
        for row in rows
        if densities and not has_density(row.hessian)
    ]
    panel = _PANEL.get(len(rows), _SMALLEST_PANEL)
    text = note_text(words, PAGE - 0.3)
    pitch = _ABOVE + panel + _BELOW
    table = table_height(rows) + 0.12
    between = 0.34 + title_pad(len(rows)) / 72  # the last row's axis label, then titles
    height = (
        len(rows) * pitch + between + _LOWER + 0.42 + table + (text.count("\n") + 1) * _NOTE + 0.05
    )
    size = (PAGE, height)
    figure = new_figure(*size, constrained=False)
    for index, (row, style, what) in enumerate(zip(rows, styles, surfaces, strict=True)):
        top = height - index * pitch - _ABOVE
        extent, place = (top - panel, panel), (index, len(rows))
        _draw_row(figure, size, extent, place, row, style, what, scale, program)
    bottom = height - len(rows) * pitch - between
    if any(what is not None for what in surfaces):
        names = {what.label for what in surfaces if what is not None}
        long = min(3.0, len(rows) * pitch - _ABOVE - _BELOW)
        middle = height - (len(rows) * pitch) / 2 - (_ABOVE - _BELOW) / 2
        cax = figure.add_axes(inches(size, PAGE - 0.78, middle - long / 2, 0.11, long))
        shared_colorbar(figure, cax, scale, names.pop() if len(names) == 1 else "loss")
    left = figure.add_axes(inches(size, _LEFT, bottom - _LOWER, 2.6, _LOWER))
    right = figure.add_axes(inches(size, PAGE - 2.65, bottom - _LOWER, 2.6, _LOWER))
    letter = string.ascii_lowercase[len(rows) % 26]
    _draw_curves(left, letter, rows, styles, curves, program)
    letter = string.ascii_lowercase[(len(rows) + 1) % 26]
    _draw_densities(right, letter, rows, densities, program)
    box = inches(
        size, 0.1, bottom - _LOWER - 0.42 - table_height(rows), PAGE - 0.2, table_height(rows)
    )
    draw_table(figure.add_axes(box), rows, styles)
    figure.text(0.1 / PAGE, 0.05 / height, text, va="bottom", fontsize=SMALL, color="0.25")
    return figure


def _curve_of(row: ComparisonRow) -> SurfaceData | None:
    """Return the 1-D surface of a row, its own or cut from the 2-D one."""
    if row.curve is not None:
        return row.curve
    return None if row.surface is None else row_through_origin(row.surface)


def _fields(surfaces: Sequence[SurfaceData | None], key: str | None) -> list[Field | None]:
    """Return the same quantity of each surface, or each one's own loss where they share none."""
    held = [surface for surface in surfaces if surface is not None]
    if key is None and held:
        key = common_key(*held)
    return [None if surface is None else field(surface, key) for surface in surfaces]


def _scale(fields: Sequence[Field]) -> Scale:
    """Return one scale for all surfaces; accuracies are never logarithmic."""
    linear = any(is_accuracy(what.key) for what in fields)
    return shared_scale([what.drawable for what in fields], log=False if linear else None)


def _notes(
    rows: Sequence[ComparisonRow],
    surfaces: Sequence[Field | None],
    curves: Sequence[Field | None],
    scale: Scale,
) -> list[str]:
    """Return what the panels leave out or take from elsewhere, run by run."""
    notes = []
    for row, surface, curve in zip(rows, surfaces, curves, strict=True):
        if surface is not None:
            notes += _prefixed(row.label, surface_notes(surface, scale, "filled"))
        if row.curve is not None and curve is not None:
            notes += _prefixed(f"{row.label}, curve", curve_notes([curve]))
        if row.curve is None and row.surface is not None and curve is None:
            notes.append(f"{row.label}: no curve, its surface has no row y = 0")
    for what in (surfaces, curves):
        held = {(row.label, f.key) for row, f in zip(rows, what, strict=True) if f is not None}
        if len({key for _, key in held}) > 1:
            notes += sorted(f"{label} shows its {quantity(key)}" for label, key in held)
    named = [(row.label, f) for row, f in zip(rows, surfaces, strict=True) if f is not None]
    if apart := log_notes(named, scale):
        notes.append(f"surfaces: {apart[0]}; curvature is in the table")
    return notes


def _prefixed(name: str, notes: Sequence[str]) -> list[str]:
    """Return the notes of one run as one, or none."""
    return [f"{name}: {', '.join(notes)}"] if notes else []


def _draw_row(
    figure: Figure,
    size: tuple[float, float],
    extent: tuple[float, float],
    place: tuple[int, int],
    row: ComparisonRow,
    style: SeriesStyle,
    what: Field | None,
    scale: Scale,
    program: str,
) -> None:
    """Draw the heading, the contours and the 3-D surface of one run."""
    bottom, panel = extent
    index, count = place
    figure.text(
        _LEFT / size[0], (bottom + panel + 0.06) / size[1],
        f"({string.ascii_lowercase[index % 26]}) {shorten(row.label, 34)}",
        fontweight="bold", color=style.color,
    )  # fmt: skip
    if what is None:
        box = inches(size, _LEFT, bottom, PAGE - 1.0 - _LEFT, panel)
        _draw_blank(
            figure.add_axes(box),
            f"no surface of {shorten(row.label, 60)}",
            [row],
            "surface",
            program,
        )
        return
    axes = figure.add_axes(inches(size, _LEFT, bottom, panel, panel))
    draw_filled_contour(axes, what, scale)
    axes.set_xlabel(what.x_label if index == count - 1 else "")
    if panel == _SMALLEST_PANEL:  # too short for the whole label and for five ticks
        axes.set_ylabel("y")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(2))
    figure.text(
        (PAGE - 1.0) / size[0], (bottom + panel + 0.06) / size[1], origin_text(what),
        ha="right", fontsize=SMALL + 0.5,
    )  # fmt: skip
    # Three-dimensional axes keep wide margins inside their box: it may reach beyond the row.
    left = _LEFT + panel + 0.1
    box = inches(size, left, bottom - 0.22 * panel, PAGE - 0.95 - left, 1.36 * panel)
    space = figure.add_axes(box, projection="3d")
    space.patch.set_visible(False)
    draw_surface_3d(space, what, scale)


def _draw_blank(
    axes: Axes, text: str, rows: Sequence[ComparisonRow], command: str, program: str
) -> None:
    """Draw an empty panel that says what is missing and how to make it."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set(color="0.7", linestyle=(0, (4.0, 3.0)))
    commands = [one_line(f"{program} {command} {row.run or row.label}") for row in rows]
    axes.text(
        0.5, 0.5, "\n".join([text, "make it with", *commands]), transform=axes.transAxes,
        ha="center", va="center", color="0.4", fontsize=SMALL + 0.5, linespacing=1.5,
    )  # fmt: skip


def _draw_curves(
    axes: Axes,
    letter: str,
    rows: Sequence[ComparisonRow],
    styles: Sequence[SeriesStyle],
    curves: Sequence[Field | None],
    program: str,
) -> None:
    """Draw the overlaid 1-D curves, or say how to make them."""
    pad = title_pad(len(rows))
    axes.set_title(f"({letter}) along y = 0", loc="left", fontweight="bold", pad=pad)
    held = [
        (row.label, style, what)
        for row, style, what in zip(rows, styles, curves, strict=True)
        if what is not None
    ]
    if held:
        draw_curves(axes, held)
    else:
        _draw_blank(axes, "no curves", rows, "surface --x=-1:1:51", program)


def _draw_densities(
    axes: Axes,
    letter: str,
    rows: Sequence[ComparisonRow],
    densities: Sequence[tuple[str, SeriesStyle, SpectrumData]],
    program: str,
) -> None:
    """Draw the overlaid spectral densities, or say how to make them."""
    pad = title_pad(len(rows))
    axes.set_title(f"({letter}) Hessian spectrum", loc="left", fontweight="bold", pad=pad)
    if densities:
        draw_densities(axes, densities)
    else:
        _draw_blank(axes, "no spectral densities", rows, "hessian", program)
