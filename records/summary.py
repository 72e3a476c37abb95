"""The figures of a stored spectrum, for people to read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.records.files import write_text
from isoloss.records.spectra import DensityData, SpectrumData

_RESOLUTION = 10 * float(np.finfo(np.float32).eps)
"""Of the largest eigenvalue: smaller ones have the sign of the rounding of float32 products."""


@dataclass(frozen=True)
class Mass:
    """The share of the eigenvalues below a threshold, by quadrature.

    Attributes:
        threshold: In units of the eigenvalues.
        share: Weight of the nodes below it, mean over probes.
        standard_error: Of that mean over probes; None for one probe.
        lowest: Least share that the quadratures admit, mean over probes.
        highest: Greatest such share. Of all eigenvalues, which are no quadrature, the share itself.
    """

    threshold: float
    share: float
    standard_error: float | None
    lowest: float
    highest: float


def resolution(density: DensityData) -> float:
    """Return 10 eps max|theta|, eps that of float32: eigenvalues within it are not told from 0.

    The same multiple of rounding is the smallest residual that is asked of an eigenpair.
    """
    return _RESOLUTION * float(np.abs(density.nodes).max())


def mass_below(density: DensityData, threshold: float) -> Mass:
    """Return the share of the eigenvalues below a threshold.

    A node stands for the mass around it, which may lie on both sides of the threshold x. With
    theta_k the last node below x, the measure mu of a probe obeys the inequalities of Chebyshev,
    Markov and Stieltjes (Szego 1939, Orthogonal Polynomials, section 3.41)

        w_1 + .. + w_(k-1) <= mu((-inf, x)) <= w_1 + .. + w_(k+1),

    whose means over probes are `lowest` and `highest`. They say nothing of the spread between
    probes, which is the standard error.

    Args:
        density: A stored density; NaN where its products were not finite.
        threshold: In units of the eigenvalues.
    """
    below = density.nodes < threshold
    count = below.sum(axis=1)
    shares = (density.weights * below).sum(axis=1)
    if density.exact:
        share = float(shares.mean())
        return Mass(threshold, share, None, share, share)
    # Nodes ascend: the sum of the first j weights, j from 0 to steps.
    sums = np.cumsum(np.pad(density.weights, ((0, 0), (1, 0))), axis=1)
    rows, steps = np.arange(len(sums)), density.nodes.shape[1]
    sampled = len(shares) > 1
    return Mass(
        threshold=threshold,
        share=float(shares.mean()),
        standard_error=(float(shares.std(ddof=1) / math.sqrt(len(shares))) if sampled else None),
        lowest=float(sums[rows, np.maximum(count - 1, 0)].mean()),
        highest=float(sums[rows, np.minimum(count + 1, steps)].mean()),
    )


def summary(data: SpectrumData) -> dict[str, Any]:
    """Return the figures of a spectrum with their uncertainties, for people to read.

    Eigenvalues and trace are in units of the loss per squared unit of a weight, those of `scaled`
    in units of the loss.
    """
    result: dict[str, Any] = {"stages": list(data.stages)}
    pairs, trace, scaled, density = data.eigenpairs, data.trace, data.scaled, data.density
    if data.exact is not None:
        result["exact"] = {"eigenvalues": len(data.exact.eigenvalues), **data.exact.account}
    if pairs is not None:
        result["eigenvalues"] = _with_residuals(pairs.eigenvalues, pairs.residuals)
        if pairs.sample_standard_error is not None:
            for entry, error in zip(
                result["eigenvalues"], pairs.sample_standard_error, strict=True
            ):
                entry["sample_standard_error"] = float(error)
        if pairs.smallest_eigenvalues is not None and pairs.smallest_residuals is not None:
            result["smallest_eigenvalues"] = _with_residuals(
                pairs.smallest_eigenvalues, pairs.smallest_residuals
            )
        result["eigenpairs"] = pairs.account
    if trace is not None:
        result["trace"] = {
            "estimate": trace.estimate,
            "standard_error": trace.standard_error,
            "samples": trace.samples,
            "sample_standard_error": trace.sample_standard_error,
            **trace.account,
        }
    if scaled is not None:
        numbers = {name: value for name, value in vars(scaled).items() if name != "account"}
        result["scaled"] = {**numbers, "account": scaled.account}
    if density is not None:
        probes, steps = density.nodes.shape
        negative = mass_below(density, -resolution(density))
        result["density"] = {
            "probes": probes,
            "steps": steps,
            "smallest_node": float(density.nodes.min()),
            "largest_node": float(density.nodes.max()),
            "negative_mass": {
                "threshold": negative.threshold,
                "share_below": negative.share,
                "standard_error": negative.standard_error,
                "bounds": [negative.lowest, negative.highest],
            },
            **density.account,
        }
    if data.others:
        result["operators"] = {
            name: {key: value for key, value in summary(other).items() if key != "settings"}
            for name, other in data.others.items()
        }
    # In the order of the stored settings, whoever passes them.
    settings = json.loads(json.dumps(data.settings, sort_keys=True))
    return _without_nan({**result, "settings": settings})


def write_summary(path: Path, data: SpectrumData) -> None:
    """Write the figures of a spectrum as JSON."""
    write_text(path, json.dumps(summary(data), indent=2, allow_nan=False) + "\n")


def _with_residuals(values: np.ndarray, residuals: np.ndarray) -> list[dict[str, float]]:
    return [
        {"value": float(value), "residual": float(residual)}
        for value, residual in zip(values, residuals, strict=True)
    ]


def _without_nan(value: Any) -> Any:
    """Replace what JSON cannot hold (NaN, inf) by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
