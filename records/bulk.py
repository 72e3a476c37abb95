"""The bulk of a stored spectrum and what stands out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isoloss.records.spectra import DensityData, SpectrumData

# Share of the eigenvalues below the edge.
LEVEL = 0.99
# Of an eigenvalue: nodes of all probes that agree to it stand for one eigenvalue.
AGREEMENT = 1e-3


@dataclass(frozen=True)
class Bulk:
    """Where the bulk of a spectrum ends.

    Attributes:
        level: Share of the eigenvalues below the edge.
        edge: That quantile of the quadratures of all probes together.
        standard_error: Of each probe's own quantile, over probes; None for one probe.
        outliers: Eigenvalues beyond the edge that every probe resolves, no more than there are;
            None for one probe.
    """

    level: float
    edge: float
    standard_error: float | None
    outliers: int | None


def bulk_of(density: DensityData, level: float = LEVEL) -> Bulk | None:
    """Return the upper edge of the bulk and the number of outliers.

    A node of Lanczos's quadrature beyond x has an eigenvalue beyond x (Cauchy's interlacing). In
    the bulk nodes differ from probe to probe; at an eigenvalue that stands apart they agree. From
    the largest node downwards those that agree to `AGREEMENT` are counted, as far as the edge:
    eigenvalues that stand apart so far that this number of steps resolves them from every start.

    Args:
        density: A stored density.
        level: Share of the eigenvalues below the edge.

    Returns:
        None where a node is not finite.
    """
    nodes, weights = density.nodes, density.weights
    if not np.isfinite(nodes).all():
        return None
    edge = _quantile(nodes.ravel(), weights.ravel() / len(nodes), level)
    if len(nodes) < 2:
        return Bulk(level, edge, None, None)
    own = [_quantile(*row, level) for row in zip(nodes, weights, strict=True)]
    # A probe that broke down repeats its last node with weight 0.
    ranked = [theta[w > 0][::-1] for theta, w in zip(nodes, weights, strict=True)]
    shortest = min(map(len, ranked))
    leading = np.array([row[:shortest] for row in ranked])
    spread = leading.max(axis=0) - leading.min(axis=0)
    resolved = (spread <= AGREEMENT * np.abs(leading).max(axis=0)) & (leading.min(axis=0) > edge)
    outliers = shortest if resolved.all() else int(np.argmin(resolved))
    return Bulk(level, edge, float(np.std(own, ddof=1) / math.sqrt(len(own))), outliers)


def negative_ratio(data: SpectrumData) -> tuple[float, float] | None:
    """Return |lambda_min| / lambda_max and its error by the residuals of both.

    Returns:
        None where an end is not stored or finite, lambda_max is not above 0, or lambda_min is.
    """
    pairs = data.eigenpairs
    if pairs is None or pairs.smallest_eigenvalues is None or pairs.smallest_residuals is None:
        return None
    low, high = float(pairs.smallest_eigenvalues[0]), float(pairs.eigenvalues[0])
    if not (math.isfinite(low) and math.isfinite(high) and high > 0 >= low):
        return None
    ratio = -low / high
    error = (float(pairs.smallest_residuals[0]) + ratio * float(pairs.residuals[0])) / high
    return ratio, error


def _quantile(nodes: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Return the least node with a share of `level` at or below it."""
    order = np.argsort(nodes, kind="stable")
    below = np.cumsum(weights[order])
    index = int(np.searchsorted(below, level * below[-1] * (1 - 1e-12)))
    return float(nodes[order][min(index, len(nodes) - 1)])
