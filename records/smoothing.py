"""The curve of a spectral density: its quadratures, smoothed by Gaussians."""

from __future__ import annotations

import math

import numpy as np

# Default bandwidth as a fraction of the range of the nodes: half a percent of a figure's width.
BANDWIDTH_FRACTION = 0.005
# A Gaussian beyond this many bandwidths holds 6e-7 of its mass: the margin of the grid.
MARGIN = 5.0


def smooth(
    nodes: np.ndarray, weights: np.ndarray, bandwidth: float | None = None, points: int = 1001
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the measure of each probe, convolved with a Gaussian and averaged over cells.

    So a curve integrates to 1 for every bandwidth.

    Args:
        nodes: (probes, steps).
        weights: (probes, steps), each row sums to 1.
        bandwidth: Standard deviation of the Gaussians. None: 0.005 of the range of the nodes, or,
            where they coincide, 0.005 of their magnitude (1 at zero).
        points: Of the grid, which reaches 5 bandwidths beyond the nodes.

    Returns:
        The grid (points,), curves (probes, points), and the bandwidth; NaN where a node is not
        finite.
    """
    from scipy.special import ndtr  # which other results are read without

    low, high = float(nodes.min()), float(nodes.max())
    if not math.isfinite(low + high):
        nothing = np.full((len(nodes), points), np.nan)
        return nothing[0], nothing, math.nan if bandwidth is None else bandwidth
    width = bandwidth or BANDWIDTH_FRACTION * ((high - low) or abs(high) or 1.0)
    grid = np.linspace(low - MARGIN * width, high + MARGIN * width, points)
    step = float(grid[1] - grid[0])
    edges = np.append(grid - step / 2, grid[-1] + step / 2)
    curves = np.empty((len(nodes), points))
    for row, (theta, weight) in enumerate(zip(nodes, weights, strict=True)):
        curves[row] = np.diff(ndtr((edges[:, None] - theta) / width) @ weight) / step
    return grid, curves, width
