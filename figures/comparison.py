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
from isoloss.figures.fields import Field, log_notes, quantity, scale_of
from isoloss.figures.formatting import one_line
from isoloss.figures.groups import (
    curve_of,
    group_curve,
    group_surface,
    shared_key,
    with_median_eigenvalue,
)
from isoloss.figures.quantities import ComparisonGroup
from isoloss.figures.scale import Scale
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
from isoloss.figures.table import draw_table, shorten, table_height, table_notes

if TYPE_CHECKING:
    from isoloss.records.spectra import SpectrumData


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
    groups: Sequence[ComparisonGroup],
    *,
    notes: Sequence[str] = (),
    program: str = "python cli.py",
) -> Figure:
    """Set runs, or groups of runs, side by side.

    One row a group: a surface of it as filled contours and in three dimensions, all at one scale;
    then the curves, the spectral densities, a table and, below, what a reader must know. Of several
    runs the first surface is shown, the median of their curves over each of them and what they
    span, and the density of the one with the median largest eigenvalue.

    Args:
        groups: The runs, in the order to be drawn.
        notes: Lines to add to the note, such as forced differences.
        program: How the command line is called, for the commands that blank panels name.

    Raises:
        FigureError: Without any group.
    """
    if not groups:
        raise FigureError("expected one run or more to compare, got none")
    styles = series_styles([group.optimizer for group in groups])
    rows = [row for group in groups for row in group.rows]
    key = shared_key([row.surface for row in rows])
    surfaces = [group_surface(group, key) for group in groups]
    key = shared_key([curve_of(row) for row in rows])
    curves = [group_curve(group, key) for group in groups]
    scale = scale_of([what for what in surfaces if what is not None])
    spectra = [with_median_eigenvalue(group) for group in groups]
    densities = [
        (group.label, style, data)
        for group, style, data in zip(groups, styles, spectra, strict=True)
        if data is not None
    ]
    words = [*table_notes(groups), *notes, *_notes(groups, surfaces, curves, scale)]
    words += density_notes(densities)
    if any(group.several for group in groups) and densities:
        words.append("densities are of the runs with the median λmax")
    words += [
        f"{row.label}: no spectral density ({program} hessian {row.name})"
        for row in rows
        if densities and not has_density(row.hessian)
    ]
    panel = _PANEL.get(len(groups), _SMALLEST_PANEL)
    text = note_text(words, PAGE - 0.3)
    pitch = _ABOVE + panel + _BELOW
    table = table_height(groups)
    between = 0.34 + title_pad(len(groups)) / 72  # the last row's axis label, then titles
    height = (
        len(groups) * pitch
        + between
        + _LOWER
        + 0.54
        + table
        + (text.count("\n") + 1) * _NOTE
        + 0.05
    )
    size = (PAGE, height)
    figure = new_figure(*size, constrained=False)
    for index, (group, style, what) in enumerate(zip(groups, styles, surfaces, strict=True)):
        top = height - index * pitch - _ABOVE
        extent, place = (top - panel, panel), (index, len(groups))
        _draw_row(figure, size, extent, place, group, style, what, scale, program)
    bottom = height - len(groups) * pitch - between
    if any(what is not None for what in surfaces):
        names = {what.label for what in surfaces if what is not None}
        long = min(3.0, len(groups) * pitch - _ABOVE - _BELOW)
        middle = height - (len(groups) * pitch) / 2 - (_ABOVE - _BELOW) / 2
        cax = figure.add_axes(inches(size, PAGE - 0.78, middle - long / 2, 0.11, long))
        shared_colorbar(figure, cax, scale, names.pop() if len(names) == 1 else "loss")
    left = figure.add_axes(inches(size, _LEFT, bottom - _LOWER, 2.6, _LOWER))
    right = figure.add_axes(inches(size, PAGE - 2.65, bottom - _LOWER, 2.6, _LOWER))
    letter = string.ascii_lowercase[len(groups) % 26]
    _draw_curves(left, letter, groups, styles, curves, program)
    letter = string.ascii_lowercase[(len(groups) + 1) % 26]
    _draw_densities(right, letter, groups, densities, program)
    box = inches(size, 0.1, bottom - _LOWER - 0.42 - table, PAGE - 0.2, table)
    draw_table(figure.add_axes(box), groups, styles)
    figure.text(0.1 / PAGE, 0.05 / height, text, va="bottom", fontsize=SMALL, color="0.25")
    return figure


def _notes(
    groups: Sequence[ComparisonGroup],
    surfaces: Sequence[Field | None],
    curves: Sequence[Field | None],
    scale: Scale,
) -> list[str]:
    """Return what the panels leave out or take from elsewhere, group by group."""
    notes, along = [], dict[str, list[str]]()
    for group, surface, curve in zip(groups, surfaces, curves, strict=True):
        own = any(row.curve is not None for row in group.rows)
        if surface is not None:
            notes += _prefixed(group.label, surface_notes(surface, scale, "filled"))
        if (own or group.several) and curve is not None:
            along.setdefault(", ".join(curve_notes([curve])), []).append(group.label)
        if not own and surface is not None and curve is None:
            notes.append(f"{group.label}: no curve, its surface has no row y = 0")
    notes += [f"{', '.join(labels)}, curve: {text}" for text, labels in along.items() if text]
    for what in (surfaces, curves):
        held = {(one.label, f.key) for one, f in zip(groups, what, strict=True) if f is not None}
        if len({key for _, key in held}) > 1:
            notes += sorted(f"{label} shows its {quantity(key)}" for label, key in held)
    named = [(one.label, f) for one, f in zip(groups, surfaces, strict=True) if f is not None]
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
    group: ComparisonGroup,
    style: SeriesStyle,
    what: Field | None,
    scale: Scale,
    program: str,
) -> None:
    """Draw the heading, the contours and the 3-D surface of one group."""
    bottom, panel = extent
    index, count = place
    figure.text(
        _LEFT / size[0], (bottom + panel + 0.06) / size[1],
        f"({string.ascii_lowercase[index % 26]}) {_heading(group)}",
        fontweight="bold", color=style.color,
    )  # fmt: skip
    if what is None:
        box = inches(size, _LEFT, bottom, PAGE - 1.0 - _LEFT, panel)
        _draw_blank(
            figure.add_axes(box),
            f"no surface of {shorten(group.label, 60)}",
            [group],
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


def _heading(group: ComparisonGroup) -> str:
    """Name a group; of several runs, the one whose surface is drawn, too."""
    shown = next((row for row in group.rows if row.surface is not None), None)
    if not group.several or shown is None:
        return shorten(group.label, 34)
    return f"{shorten(group.label, 16)}: {shorten(shown.name, 24)}"


def _draw_blank(
    axes: Axes, text: str, groups: Sequence[ComparisonGroup], command: str, program: str
) -> None:
    """Draw an empty panel that says what is missing and how to make it."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set(color="0.7", linestyle=(0, (4.0, 3.0)))
    commands = [one_line(f"{program} {command} {group.rows[0].name}") for group in groups]
    axes.text(
        0.5, 0.5, "\n".join([text, "make it with", *commands]), transform=axes.transAxes,
        ha="center", va="center", color="0.4", fontsize=SMALL + 0.5, linespacing=1.5,
    )  # fmt: skip


def _draw_curves(
    axes: Axes,
    letter: str,
    groups: Sequence[ComparisonGroup],
    styles: Sequence[SeriesStyle],
    curves: Sequence[Field | None],
    program: str,
) -> None:
    """Draw the overlaid 1-D curves, or say how to make them."""
    pad = title_pad(len(groups))
    own = any(row.curve is not None for group in groups for row in group.rows)
    title = f"({letter}) along {'x' if own else 'y = 0'}"
    axes.set_title(title, loc="left", fontweight="bold", pad=pad)
    held = [
        (group.label, style, what)
        for group, style, what in zip(groups, styles, curves, strict=True)
        if what is not None
    ]
    if held:
        draw_curves(axes, held, each=any(group.several for group in groups))
    else:
        _draw_blank(axes, "no curves", groups, "surface --x=-1:1:51", program)


def _draw_densities(
    axes: Axes,
    letter: str,
    groups: Sequence[ComparisonGroup],
    densities: Sequence[tuple[str, SeriesStyle, SpectrumData]],
    program: str,
) -> None:
    """Draw the overlaid spectral densities, or say how to make them."""
    pad = title_pad(len(groups))
    axes.set_title(f"({letter}) Hessian spectrum", loc="left", fontweight="bold", pad=pad)
    if densities:
        draw_densities(axes, densities)
    else:
        _draw_blank(axes, "no spectral densities", groups, "hessian", program)
