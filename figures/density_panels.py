r"""Spectral densities of different networks, each in a panel of its own.

The axis of a panel is u = asinh(lambda / c), linear within c and logarithmic beyond, and the
density is one per unit of u: areas on it are shares of the eigenvalues, of the bulk about 0 as of
outliers thousands of times as large. c is about what m Lanczos steps tell apart next to an end of a
spectrum of width w, two distances of Chebyshev points there, w (pi / m)^2 / 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from isoloss.figures.density import (
    has_density,
    has_finite_density,
    leading,
    signed,
    smoothed,
    symlog_ticks,
)
from isoloss.figures.formatting import number, power_of_ten, with_error
from isoloss.figures.scale import Look
from isoloss.figures.style import (
    COLUMN,
    PAGE,
    SMALL,
    FigureError,
    add_note,
    new_figure,
    note_text,
    series_styles,
    styled,
)
from isoloss.records.identity import drawn_by_class

if TYPE_CHECKING:
    from isoloss.records.spectra import DensityData, SpectrumData

_WIDTH = 0.15  # of the Gaussians, in u: nodes next to an end are about 0.3 apart
_MARGIN = 4.5  # Gaussian widths beyond the nodes
_POINTS = 1501
_MOST_STEPS = 100  # beyond which c stays as it is: all eigenvalues are many
_FLOOR = 0.2  # of the peak of a single eigenvalue; without sizes of networks, of the lowest bump


@styled
def density_panels(
    runs: Sequence[tuple[str, str, SpectrumData]], *, look: Look | None = None, title: str = ""
) -> Figure:
    """Draw the spectral density of each run in a panel of its own, on its own axis.

    For networks whose spectra differ too much in width to share one.

    Args:
        runs: Label, optimizer and stored curvature of each run.
        look: What is asked of every panel: `xlim` of the eigenvalues, `vmin` and `vmax` of shares.
        title: Title at the upper left.

    Raises:
        FigureError: If no run has a density.
    """
    held = [(label, data) for label, _, data in runs if has_density(data)]
    if not held:
        raise FigureError("expected a stored spectral density, got none: compute it with `hessian`")
    notes = [f"{label}: {', '.join(_own_notes(data))}" for label, data in held]
    notes += [
        "band: range over probes",
        "ticks above: extreme eigenvalues",
        "areas are shares of the eigenvalues",
        "±: standard errors, of the largest eigenvalue over samples, of the trace over probes and "
        "samples",
    ]
    columns = min(2, len(held))
    rows, width = -(-len(held) // columns), PAGE if columns > 1 else COLUMN
    lines = note_text(notes, width).count("\n") + 1
    figure = new_figure(width, 1.95 * rows + 0.11 * lines + (0.2 if title else 0.0))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (label, data) in zip(panels, held, strict=False):
        _draw(axes, data, look or Look())
        axes.set_title(_heading(label, data), loc="left", pad=9)
    for axes in panels[len(held) :]:
        axes.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left")
    add_note(figure, notes)
    return figure


def linear_width(density: DensityData) -> float:
    """Return c, within which the axis of a density is linear: the next 1, 2, 5 of a power of 10."""
    steps = min(density.nodes.shape[1], _MOST_STEPS)
    resolved = float(np.ptp(density.nodes)) * (math.pi / steps) ** 2 / 2 or 1.0
    power = 10.0 ** math.floor(math.log10(resolved))
    return float(f"{power * next(m for m in (1, 2, 5, 10) if m * power >= resolved * 0.999):.0e}")


def _draw(axes: Axes, data: SpectrumData, look: Look) -> None:
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("share per unit of axis")
    density = data.density
    if density is None or not has_finite_density(data):
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, ha="center", color="0.4")
        return
    (style,), width = series_styles([""]), linear_width(density)
    nodes, ends = np.arcsinh(density.nodes / width), np.arcsinh(np.array(leading(data)) / width)
    low, high = (
        end(np.concatenate([nodes.ravel(), ends])) + sign * _MARGIN * _WIDTH
        for end, sign in ((np.min, -1), (np.max, 1))
    )
    u = np.linspace(low, high, _POINTS)
    curve = smoothed(nodes, density.weights, u, _WIDTH)
    peak, floor = float(curve.high.max()), _floor(data, nodes, curve.curve, u)
    places = width * np.sinh(u)
    axes.set_xscale("asinh", linear_width=width)
    axes.set_yscale("log")
    axes.fill_between(
        places, np.maximum(curve.low, 0.1 * floor), np.maximum(curve.high, 0.1 * floor),
        color=style.color, alpha=0.22, linewidth=0,
    )  # fmt: skip
    axes.plot(places, curve.curve, color=style.color, linewidth=1.0)
    if len(ends):
        lift = ScaledTranslation(0, 3 / 72, axes.figure.dpi_scale_trans)
        axes.plot(
            width * np.sinh(ends), np.ones(len(ends)), "|", color=style.color,
            markersize=4, markeredgewidth=0.8, clip_on=False,
            transform=axes.get_xaxis_transform() + lift,
        )  # fmt: skip
    axes.set_xlim(look.xlim or (places[0], places[-1]))
    axes.set_ylim(floor, 3 * peak)
    axes.set_ylim(look.vmin, look.vmax)  # None leaves an end as it is
    axes.axvline(0.0, color="0.6", linewidth=0.5, zorder=0.5)
    axes.set_xlabel(f"eigenvalue (linear within ±{number(width)})")
    axes.xaxis.set_major_locator(FixedLocator(symlog_ticks(places[0], places[-1], width)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(value)))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: power_of_ten(round(np.log10(y)))))
    axes.text(
        0.98, 0.97, "\n".join(_numbers(data)), transform=axes.transAxes, ha="right", va="top",
        fontsize=SMALL, color="0.25",
    )  # fmt: skip


def _floor(data: SpectrumData, nodes: np.ndarray, curve: np.ndarray, u: np.ndarray) -> float:
    """Return the lower end of the shares: below the bump of one eigenvalue."""
    size = data.settings.get("parameters")
    if isinstance(size, int) and size > 0:
        return _FLOOR / (size * _WIDTH * math.sqrt(2 * math.pi))
    bump = float(np.interp(nodes.max(), u, curve))
    return max(_FLOOR * bump, 1e-9 * float(curve.max()))


def _numbers(data: SpectrumData) -> list[str]:
    """Return the largest eigenvalue and the trace with their errors, those there are."""
    found = []
    if data.eigenpairs is not None and len(data.eigenpairs.eigenvalues):
        errors = data.eigenpairs.sample_standard_error
        error = None if errors is None else float(errors[0])
        found.append(f"largest {with_error(float(data.eigenpairs.eigenvalues[0]), error)}")
    if data.trace is not None:
        whole = math.hypot(data.trace.standard_error, data.trace.sample_standard_error or 0.0)
        found.append(f"trace {with_error(data.trace.estimate, whole)}")
    return found


def _own_notes(data: SpectrumData) -> list[str]:
    """Return what a reader must know of the density in one panel."""
    if not has_finite_density(data) or data.density is None:
        return ["density is not finite"]
    density, settings = data.density, data.settings
    probes, steps = density.nodes.shape
    how = f"all {steps:,} eigenvalues" if density.exact else f"{probes} probes of {steps} steps"
    samples, population = settings.get("samples"), settings.get("population")
    of = f" of {population:,}" if isinstance(population, int) and population != samples else ""
    drawn = [f"{samples:,}{of} samples"] if isinstance(samples, int) else []
    if drawn_by_class(settings):
        drawn.append("a class-balanced sample, not that of the split")
    return [*drawn, how]


def _heading(label: str, data: SpectrumData) -> str:
    """Return label and size of a network."""
    size = data.settings.get("parameters")
    return f"{label}, {size:,} parameters" if isinstance(size, int) else label
