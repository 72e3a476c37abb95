"""The spectral density of the Hessian, on a logarithmic axis, with the leading eigenvalues.

One run is drawn as it is stored. Several runs may have spectra of very different widths: each keeps
the bandwidth it was stored with, and they share an axis that is linear near 0 and logarithmic
beyond (symlog). Only the axis is transformed: heights remain densities per unit of eigenvalue, so
that areas on it are not masses, and the height of a peak narrower than the bandwidth s is its mass
over s sqrt(2 pi).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from isoloss.figures.formatting import number, power_of_ten, with_error
from isoloss.figures.scale import Look
from isoloss.figures.style import (
    COLUMN,
    FigureError,
    SeriesStyle,
    add_note,
    legend_lines,
    new_figure,
    note_text,
    series_styles,
    styled,
)
from isoloss.records.identity import drawn_by_class
from isoloss.records.summary import mass_below, resolution

if TYPE_CHECKING:
    from isoloss.records.spectra import DensityData, SpectrumData

_MARGIN = 6.5  # bandwidths beyond a node: a Gaussian falls there to less than the axis shows
_POINTS = 1001  # of a symlog grid, besides those around the nodes
_POINTS_PER_BANDWIDTH = 4
_LINEAR = 0.1  # of the range of the flattest run: its bulk, in which most eigenvalues are
_ROOM = 0.2  # of the ends of a symlog axis, as far beyond them
_LINEAR_WIDTH = 1.5  # of each half of the linear part, in decades
# The axis ends below the bump of the largest Ritz value, but within these shares of the peak.
_FLOOR = (1e-9, 1e-2)


_TICK = 5.0  # points of height for one run's eigenvalues above the panel


@dataclass(frozen=True)
class DensityCurve:
    """A smoothed density on a grid, with the range of the single probes' curves."""

    grid: np.ndarray  # (points,)
    curve: np.ndarray  # (points,) mean over probes
    low: np.ndarray  # (points,) smallest over probes
    high: np.ndarray  # (points,) largest over probes
    bandwidth: float  # standard deviation of the Gaussians


@styled
def density_figure(
    runs: Sequence[tuple[str, str, SpectrumData]], *, look: Look | None = None, title: str = ""
) -> Figure:
    """Draw the spectral densities of one or several runs.

    Args:
        runs: Label, optimizer and stored curvature of each run.
        look: What is asked of the axes: `xlim` of the eigenvalues, `vmin` and `vmax` of densities.
        title: Title at the upper left.

    Raises:
        FigureError: If no run has a density.
    """
    held = [(label, optimizer, data) for label, optimizer, data in runs if has_density(data)]
    if not held:
        raise FigureError("expected a stored spectral density, got none: compute it with `hessian`")
    styles = series_styles([optimizer for _, optimizer, _ in held])
    drawn = [(label, style, data) for (label, _, data), style in zip(held, styles, strict=True)]
    notes = density_notes(drawn)
    lines = note_text(notes, COLUMN).count("\n") + 1
    figure = new_figure(COLUMN, 2.2 + 0.11 * lines)
    axes = figure.add_subplot()
    draw_densities(axes, drawn, look)
    axes.set_title(title, loc="left", pad=title_pad(len(drawn)))
    if len(held) > 1:
        handles = legend_lines([label for label, _, _ in drawn], styles)
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(held)))
    add_note(figure, notes)
    return figure


def draw_densities(
    axes: Axes,
    runs: Sequence[tuple[str, SeriesStyle, SpectrumData]],
    look: Look | None = None,
) -> None:
    """Overlay spectral densities, with bands over probes and leading eigenvalues.

    Args:
        axes: Where to draw.
        runs: Label, style and stored curvature of each run, each with a density.
        look: What is asked of the axes.
    """
    look = look or Look()
    sound = [run for run in runs if has_finite_density(run[2])]
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("spectral density (log)")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_power))
    if not sound:
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, ha="center", color="0.4")
        return
    densities = [data.density for _, _, data in sound if data.density]
    alone = len(densities) == 1
    if alone:
        (one,) = densities
        curves = [DensityCurve(one.grid, one.curve, one.low, one.high, bandwidth_of(one))]
    else:
        curves = overlaid_densities(densities)
        _set_symlog(axes, curves, linear_threshold(densities))
    floor, peak = _limits(curves, densities)
    for row, ((label, style, data), curve) in enumerate(zip(sound, curves, strict=True)):
        line: dict[str, Any] = {"color": style.color, "label": label}
        line["linestyle"] = "solid" if alone else style.linestyle  # dashes break narrow peaks up
        axes.plot(curve.grid, curve.curve, **line)
        low, high = (np.maximum(side, 0.1 * floor) for side in (curve.low, curve.high))
        axes.fill_between(curve.grid, low, high, color=style.color, alpha=0.18, linewidth=0)
        if data.density and data.density.exact:
            _draw_rug(axes, data.density.nodes[0], style.color, row)
        low_end, high_end = look.xlim or (-np.inf, np.inf)
        if eigenvalues := [value for value in leading(data) if low_end <= value <= high_end]:
            # Above the panel, one line a run: inside they would lie on the bumps they mark.
            lift = ScaledTranslation(0, (_TICK * row + 3) / 72, axes.figure.dpi_scale_trans)
            axes.plot(
                eigenvalues,
                np.ones(len(eigenvalues)),
                "|",
                color=style.color,
                markersize=_TICK - 1,
                markeredgewidth=1.0,
                transform=axes.get_xaxis_transform() + lift,
                clip_on=False,
            )
    _make_room(axes, [value for _, _, data in sound for value in leading(data)])
    axes.set_ylim(floor, peak * 2.5)
    axes.set_ylim(look.vmin, look.vmax)  # None leaves an end as it is
    axes.set_xlim(look.xlim)
    axes.axvline(0.0, color="0.6", linewidth=0.5, zorder=0.5)


def _make_room(axes: Axes, eigenvalues: Sequence[float]) -> None:
    """Widen an axis to eigenvalues that no node of a density comes near to."""
    low, high = axes.get_xlim()
    beyond = 0.02 * (high - low)
    if eigenvalues and min(eigenvalues) < low:
        axes.set_xlim(left=min(eigenvalues) - beyond)
    if eigenvalues and max(eigenvalues) > high:
        axes.set_xlim(right=max(eigenvalues) + beyond)


def _draw_rug(axes: Axes, eigenvalues: np.ndarray, color: str, row: int) -> None:
    """Mark all eigenvalues along the lower end of the panel, one line a run."""
    lift = ScaledTranslation(0, (_TICK * row + 3) / 72, axes.figure.dpi_scale_trans)
    axes.plot(
        eigenvalues,
        np.zeros(len(eigenvalues)),
        "|",
        color=color,
        alpha=0.8,
        markersize=_TICK - 1,
        markeredgewidth=0.5,
        transform=axes.get_xaxis_transform() + lift,
    )


def density_notes(runs: Sequence[tuple[str, SeriesStyle, SpectrumData]]) -> list[str]:
    """Return what a reader must know of densities: smoothing, probes, band, ticks, failures."""
    notes = [
        f"{label}: density is not finite" for label, _, data in runs if not has_finite_density(data)
    ]
    notes += [
        f"{label}: a class-balanced sample, not that of the split"
        for label, _, data in runs
        if drawn_by_class(data.settings)
    ]
    densities = [
        (label, data.density)
        for label, _, data in runs
        if has_finite_density(data) and data.density
    ]
    if not densities:
        return notes
    counts = sorted({(*one.nodes.shape, one.exact) for _, one in densities})
    probes = " / ".join(
        f"all {s:,} eigenvalues" if exact else f"{p} probe{'s' * (p > 1)} of {s} steps"
        for p, s, exact in counts
    )
    if len(densities) == 1:
        notes.append(
            f"density: Gaussian of bandwidth {number(bandwidth_of(densities[0][1]))}, {probes}"
        )
    else:
        each = ", ".join(f"{label} {number(bandwidth_of(one))}" for label, one in densities)
        notes.append(
            f"density: Gaussians of each run's own bandwidth ({each}), {probes}, per unit of "
            "eigenvalue: narrow peaks are the higher the smaller the bandwidth, areas on this axis "
            "are no masses"
        )
    notes.append(_negative_note(densities))
    if any(p > 1 for p, *_ in counts):
        notes.append("band: range over probes")
    if any(leading(data) for _, _, data in runs if has_finite_density(data)):
        notes.append("ticks above: extreme eigenvalues")
    if any(density.exact for _, density in densities):
        notes.append("ticks at the bottom: all eigenvalues")
    return notes


def title_pad(runs: int) -> float:
    """Distance in points of a title from a panel that has eigenvalues of some runs above it."""
    return 4.0 + _TICK * runs


def overlaid_densities(stored: Sequence[DensityData]) -> list[DensityCurve]:
    """Return densities to be drawn on one symlog axis, each at its own bandwidth.

    Each probe's quadrature is smoothed again, sum_j w_j N(x; theta_j, s^2) with the stored s, on a
    grid that is fine around each node and, elsewhere, equidistant on the axis: a stored grid is too
    coarse near 0.
    """
    linear = linear_threshold(stored)
    return [
        smoothed(
            one.nodes, one.weights, _grid(one.nodes, bandwidth_of(one), linear), bandwidth_of(one)
        )
        for one in stored
    ]


def linear_threshold(stored: Sequence[DensityData]) -> float:
    """Return where the axis stops being linear: a tenth of the smallest range, cut to 1, 2 or 5."""
    ranges = [float(np.abs(one.nodes).max()) for one in stored]
    tenth = _LINEAR * min([extent for extent in ranges if extent > 0] or [1.0])
    power = 10.0 ** np.floor(np.log10(tenth))
    return float(f"{power * max(m for m in (1, 2, 5) if m * power <= tenth * (1 + 1e-9)):.0e}")


def _grid(nodes: np.ndarray, bandwidth: float, linear: float) -> np.ndarray:
    """Return points (ascending) for one run's curve, from end to end of what is seen of it."""
    reach = _MARGIN * bandwidth
    low, high = np.arcsinh(np.array([nodes.min() - reach, nodes.max() + reach]) / linear)
    wide = linear * np.sinh(np.linspace(low, high, _POINTS))
    step = bandwidth / _POINTS_PER_BANDWIDTH
    around = np.arange(-reach, reach + step, step)
    near = np.unique(np.round((nodes.reshape(-1, 1) + around) / step)) * step
    return np.unique(np.concatenate([wide, near]))


def _set_symlog(axes: Axes, curves: Sequence[DensityCurve], linear: float) -> None:
    """Set the eigenvalue axis: linear within a threshold, logarithmic beyond."""
    low = min(float(curve.grid[0]) for curve in curves)
    high = max(float(curve.grid[-1]) for curve in curves)
    axes.set_xscale("symlog", linthresh=linear, linscale=_LINEAR_WIDTH)
    axes.set_xlim(low - _ROOM * abs(low), high + _ROOM * abs(high))
    axes.set_xlabel(f"eigenvalue (linear within ±{number(linear)}, log beyond)")
    axes.xaxis.set_major_locator(FixedLocator(symlog_ticks(low, high, linear)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(value)))


def symlog_ticks(low: float, high: float, linear: float) -> list[float]:
    """Return 0 and powers of ten on either side, few enough for their labels."""
    first = int(np.ceil(np.log10(2 * linear)))
    powers = range(first, int(np.floor(np.log10(max(high, -low)))) + 1)
    decades = sum(np.log10(max(side / linear, 1.0)) for side in (high, -low))
    chosen = [10.0**power for power in powers[:: -(-int(decades) // 8) or 1]]
    return sorted([0.0, *(x for p in chosen for x in (-p, p) if low <= x <= high)])


def signed(value: float) -> str:
    """Return a tick of the eigenvalue axis."""
    return number(value) if value >= 0 else f"\N{MINUS SIGN}{number(-value)}"


def _negative_note(densities: Sequence[tuple[str, DensityData]]) -> str:
    """Return the share of negative eigenvalues of each run, below one threshold for all."""
    threshold = -max(resolution(density) for _, density in densities)
    shares = []
    for label, density in densities:
        mass = mass_below(density, threshold)
        share = with_error(mass.share, mass.standard_error)
        bounds = f" ({number(mass.lowest, 2)} to {number(mass.highest, 2)})"
        shares.append(f"{label} {share}{'' if density.exact else bounds}")
    below = number(threshold, 2)
    sampled = not all(density.exact for _, density in densities)
    by = " (bounds by quadrature)" if sampled else ""
    return f"share of eigenvalues below {below}{by}: {', '.join(shares)}"


def _power(value: float, _: int) -> str:
    """Return a tick of the density axis."""
    return power_of_ten(round(np.log10(value)))


def has_density(data: SpectrumData | None) -> bool:
    """Return whether a stored curvature holds a density."""
    return data is not None and data.density is not None


def leading(data: SpectrumData) -> list[float]:
    """Return the stored eigenvalues that are finite, those of the smallest end too."""
    pairs = data.eigenpairs
    ends = () if pairs is None else (pairs.eigenvalues, pairs.smallest_eigenvalues)
    values = np.concatenate([np.empty(0), *(end for end in ends if end is not None)])
    return [float(value) for value in values[np.isfinite(values)]]


def bandwidth_of(density: DensityData) -> float:
    """Return the standard deviation of the Gaussians of a stored curve."""
    return float(density.account["bandwidth"])


def has_finite_density(data: SpectrumData) -> bool:
    """Return whether there is a density and the products behind it were finite."""
    return data.density is not None and bool(np.isfinite(data.density.curve).all())


def smoothed(
    nodes: np.ndarray, weights: np.ndarray, grid: np.ndarray, bandwidth: float
) -> DensityCurve:
    """Smooth each probe's quadrature by Gaussians, (probes, steps) -> (points,)."""
    curves = np.zeros((len(nodes), len(grid)))
    for row, (theta, weight) in enumerate(zip(nodes, weights, strict=True)):
        for node, mass in zip(theta, weight, strict=True):
            curves[row] += mass * np.exp(-0.5 * ((grid - node) / bandwidth) ** 2)
    curves /= bandwidth * np.sqrt(2 * np.pi)
    return DensityCurve(grid, curves.mean(0), curves.min(0), curves.max(0), bandwidth)


def _limits(curves: Sequence[DensityCurve], stored: Sequence[DensityData]) -> tuple[float, float]:
    """Return the lower end of the density axis, and the highest peak."""
    peak = max(float(curve.high.max()) for curve in curves)
    bumps = [
        float(np.interp(item.nodes.max(), curve.grid, curve.curve))
        for curve, item in zip(curves, stored, strict=True)
    ]
    return float(np.clip(0.1 * min(bumps), _FLOOR[0] * peak, _FLOOR[1] * peak)), peak
