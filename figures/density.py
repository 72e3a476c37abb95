"""The spectral density of the Hessian, on a logarithmic axis, with the leading eigenvalues.

Densities are compared at one bandwidth. A stored curve was smoothed with its own, and the height of
a peak narrower than that is inversely proportional to it; overlaid runs are therefore smoothed
again, from the quadrature's nodes and weights, with the largest of their bandwidths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from isoloss.figures.formatting import number, power_of_ten
from isoloss.figures.style import (
    COLUMN,
    FigureError,
    SeriesStyle,
    add_note,
    new_figure,
    series_styles,
    styled,
)

if TYPE_CHECKING:
    from isoloss.records.spectra import DensityData, SpectrumData

_MARGIN = 5.0  # bandwidths drawn beyond the outermost node, as the stored curves have it
_POINTS = (1001, 20001)  # fewest and most points of a common grid
_POINTS_PER_BANDWIDTH = 4
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
def density_figure(runs: Sequence[tuple[str, str, SpectrumData]], *, title: str = "") -> Figure:
    """Draw the spectral densities of one or several runs.

    Args:
        runs: Label, optimizer and stored curvature of each run.
        title: Title at the upper left.

    Raises:
        FigureError: If no run has a density.
    """
    held = [(label, optimizer, data) for label, optimizer, data in runs if has_density(data)]
    if not held:
        raise FigureError("expected a stored spectral density, got none: compute it with `hessian`")
    figure = new_figure(COLUMN, 2.4)
    axes = figure.add_subplot()
    styles = series_styles([optimizer for _, optimizer, _ in held])
    drawn = [(label, style, data) for (label, _, data), style in zip(held, styles, strict=True)]
    draw_densities(axes, drawn)
    axes.set_title(title, loc="left", pad=title_pad(len(drawn)))
    if len(held) > 1:
        figure.legend(loc="outside upper center", ncols=min(4, len(held)))
    add_note(figure, density_notes(drawn))
    return figure


def draw_densities(axes: Axes, runs: Sequence[tuple[str, SeriesStyle, SpectrumData]]) -> None:
    """Overlay spectral densities at one bandwidth, with bands over probes and leading eigenvalues.

    Args:
        axes: Where to draw.
        runs: Label, style and stored curvature of each run, each with a density.
    """
    sound = [run for run in runs if _finite(run[2])]
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("spectral density (log scale)")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_power))
    if not sound:
        axes.text(0.5, 0.5, "not finite", transform=axes.transAxes, ha="center", color="0.4")
        return
    curves = common_densities([data for _, _, data in sound])
    floor, peak = _limits(curves, [data.density for _, _, data in sound if data.density])
    for row, ((label, style, data), curve) in enumerate(zip(sound, curves, strict=True)):
        line: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle, "label": label}
        axes.plot(curve.grid, curve.curve, **line)
        low, high = (np.maximum(side, 0.1 * floor) for side in (curve.low, curve.high))
        axes.fill_between(curve.grid, low, high, color=style.color, alpha=0.18, linewidth=0)
        if eigenvalues := leading(data):
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
    axes.set_ylim(floor, peak * 2.5)
    axes.axvline(0.0, color="0.6", linewidth=0.5, zorder=0.5)


def density_notes(runs: Sequence[tuple[str, SeriesStyle, SpectrumData]]) -> list[str]:
    """What a reader of overlaid densities must know: smoothing, probes, band, ticks, failures."""
    notes = [f"{label}: density is not finite" for label, _, data in runs if not _finite(data)]
    sound = [data for _, _, data in runs if _finite(data)]
    if not sound:
        return notes
    counts = sorted({data.density.nodes.shape for data in sound if data.density is not None})
    probes = " / ".join(f"{p} probe{'s' * (p > 1)} of {s} steps" for p, s in counts)
    bandwidth = common_densities(sound)[0].bandwidth
    notes.append(f"density: Gaussian of bandwidth {number(bandwidth)}, {probes}")
    if any(p > 1 for p, _ in counts):
        notes.append("band: range over probes")
    if any(leading(data) for data in sound):
        notes.append("ticks above: extreme eigenvalues")
    return notes


def title_pad(runs: int) -> float:
    """Distance in points of a title from a panel that has eigenvalues of some runs above it."""
    return 4.0 + _TICK * runs


def common_densities(data: Sequence[SpectrumData]) -> list[DensityCurve]:
    """Densities that can be set against each other: one bandwidth and one grid.

    A single density is returned as it is stored. Otherwise each probe's quadrature is smoothed
    again, sum_j w_j N(x; theta_j, s^2), with the largest stored bandwidth s.
    """
    stored = [item.density for item in data if item.density is not None]
    if len(stored) == 1:
        one = stored[0]
        return [DensityCurve(one.grid, one.curve, one.low, one.high, _bandwidth(one))]
    bandwidth = max(map(_bandwidth, stored))
    low = min(float(item.nodes.min()) for item in stored) - _MARGIN * bandwidth
    high = max(float(item.nodes.max()) for item in stored) + _MARGIN * bandwidth
    points = int(np.clip(_POINTS_PER_BANDWIDTH * (high - low) / bandwidth, *_POINTS))
    grid = np.linspace(low, high, points)
    return [_smooth(item.nodes, item.weights, grid, bandwidth) for item in stored]


def _power(value: float, _: int) -> str:
    """A tick of the density axis."""
    return power_of_ten(round(np.log10(value)))


def has_density(data: SpectrumData | None) -> bool:
    """Whether a stored curvature holds a density."""
    return data is not None and data.density is not None


def leading(data: SpectrumData) -> list[float]:
    """The stored eigenvalues that are finite, those of the smallest end too."""
    pairs = data.eigenpairs
    ends = () if pairs is None else (pairs.eigenvalues, pairs.smallest_eigenvalues)
    values = np.concatenate([np.empty(0), *(end for end in ends if end is not None)])
    return [float(value) for value in values[np.isfinite(values)]]


def _bandwidth(density: DensityData) -> float:
    """Standard deviation of the Gaussians of a stored curve."""
    return float(density.account["bandwidth"])


def _finite(data: SpectrumData) -> bool:
    """Whether there is a density and the products behind it were finite."""
    return data.density is not None and bool(np.isfinite(data.density.curve).all())


def _smooth(
    nodes: np.ndarray, weights: np.ndarray, grid: np.ndarray, bandwidth: float
) -> DensityCurve:
    """Gaussian smoothing of each probe's quadrature, (probes, steps) -> (points,)."""
    curves = np.zeros((len(nodes), len(grid)))
    for row, (theta, weight) in enumerate(zip(nodes, weights, strict=True)):
        for node, mass in zip(theta, weight, strict=True):
            curves[row] += mass * np.exp(-0.5 * ((grid - node) / bandwidth) ** 2)
    curves /= bandwidth * np.sqrt(2 * np.pi)
    return DensityCurve(grid, curves.mean(0), curves.min(0), curves.max(0), bandwidth)


def _limits(curves: Sequence[DensityCurve], stored: Sequence[DensityData]) -> tuple[float, float]:
    """Lower end of the density axis, and the highest peak."""
    peak = max(float(curve.high.max()) for curve in curves)
    bumps = [
        float(np.interp(item.nodes.max(), curve.grid, curve.curve))
        for curve, item in zip(curves, stored, strict=True)
    ]
    return float(np.clip(0.1 * min(bumps), _FLOOR[0] * peak, _FLOOR[1] * peak)), peak
