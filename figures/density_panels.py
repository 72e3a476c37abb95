"""Spectral densities of different networks, each in a panel of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from isoloss.figures.density import (
    bandwidth_of,
    draw_densities,
    has_density,
    has_finite_density,
    title_pad,
)
from isoloss.figures.formatting import number
from isoloss.figures.scale import Look
from isoloss.figures.style import (
    COLUMN,
    PAGE,
    FigureError,
    add_note,
    new_figure,
    note_text,
    series_styles,
    styled,
)
from isoloss.records.identity import drawn_by_class

if TYPE_CHECKING:
    from isoloss.records.spectra import SpectrumData


@styled
def density_panels(
    runs: Sequence[tuple[str, str, SpectrumData]], *, look: Look | None = None, title: str = ""
) -> Figure:
    """Draw the spectral density of each run in a panel of its own, on its own linear axis.

    For networks whose spectra differ too much in width to share one. Arguments and errors are those
    of `density_figure`; `look` holds for every panel.
    """
    held = [(label, data) for label, _, data in runs if has_density(data)]
    if not held:
        raise FigureError("expected a stored spectral density, got none: compute it with `hessian`")
    (style,) = series_styles([""])
    drawn = [(label, style, data) for label, data in held]
    notes = [f"{label}: {', '.join(_own_notes(data))}" for label, data in held]
    notes += ["band: range over probes", "ticks above: extreme eigenvalues"]
    columns = min(2, len(held))
    rows = -(-len(held) // columns)
    width = PAGE if columns > 1 else COLUMN
    lines = note_text(notes, width).count("\n") + 1
    figure = new_figure(width, 1.75 * rows + 0.11 * lines)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, one in zip(panels, drawn, strict=False):
        draw_densities(axes, [one], look)
        axes.set_title(_heading(one[0], one[2]), loc="left", pad=title_pad(1))
    for axes in panels[len(drawn) :]:
        axes.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left")
    add_note(figure, notes)
    return figure


def _own_notes(data: SpectrumData) -> list[str]:
    """Return what a reader must know of the density in one panel."""
    if not has_finite_density(data) or data.density is None:
        return ["density is not finite"]
    density, account = data.density, data.settings
    probes, steps = density.nodes.shape
    how = f"all {steps:,} eigenvalues" if density.exact else f"{probes} probes of {steps} steps"
    samples, population = account.get("samples"), account.get("population")
    of = f" of {population:,}" if isinstance(population, int) and population != samples else ""
    drawn = [f"{samples:,}{of} samples"] if isinstance(samples, int) else []
    if drawn_by_class(account):
        drawn.append("a class-balanced sample, not that of the split")
    return [*drawn, how, f"bandwidth {number(bandwidth_of(density))}"]


def _heading(label: str, data: SpectrumData) -> str:
    """Return label and size of a network."""
    size = data.settings.get("parameters")
    return f"{label}, {size:,} parameters" if isinstance(size, int) else label
