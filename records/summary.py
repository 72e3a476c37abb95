"""The figures of a stored spectrum, for people to read."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.records.bulk import bulk_of, negative_ratio
from isoloss.records.classes import class_summary
from isoloss.records.files import write_text
from isoloss.records.json_text import to_json
from isoloss.records.layers import layer_rows
from isoloss.records.spectra import DensityData, SpectrumData
from isoloss.records.spectral_sums import (
    EffectiveDimension,
    effective_dimension,
    frobenius_norm,
    stable_rank,
)

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
    if data.layers:
        result["layers"] = layer_rows(data.layers)
    if data.classes is not None:
        eigenvalues = None if pairs is None else pairs.eigenvalues
        whole = None if trace is None else (trace.estimate, trace.standard_error)
        result["classes"] = class_summary(data.classes, eigenvalues, whole)
    if derived := derived_figures(data):
        result["derived"] = derived
    if data.others:
        result["operators"] = {
            name: {key: value for key, value in summary(other).items() if key != "settings"}
            for name, other in data.others.items()
        }
    # In the order of the stored settings, whoever passes them.
    settings = json.loads(json.dumps(data.settings, sort_keys=True))
    return to_json({**result, "settings": settings})


def derived_figures(data: SpectrumData) -> dict[str, dict[str, Any]]:
    """Return what follows from the stored numbers, each with its error, those there are.

    `frobenius_norm`, `stable_rank`, `effective_dimension` (bounds, at `c`) and `bulk` with errors
    over probes; `negative_ratio` with that by the residuals.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, estimate in (
        ("frobenius_norm", frobenius_norm(data)),
        ("stable_rank", stable_rank(data)),
    ):
        if estimate is not None:
            found[name] = dataclasses.asdict(estimate)
    if (dimension := dimension_of(data)) is not None:
        found["effective_dimension"] = dataclasses.asdict(dimension)
    if (ratio := negative_ratio(data)) is not None:
        found["negative_ratio"] = {"value": ratio[0], "residual": ratio[1]}
    if data.density is not None and (bulk := bulk_of(data.density)) is not None:
        found["bulk"] = dataclasses.asdict(bulk)
    return found


def dimension_of(data: SpectrumData) -> EffectiveDimension | None:
    """Return the effective dimension at c = 1/N, N the samples of the split.

    None without a density, for a matrix with negative eigenvalues, or where c is not told from 0.
    """
    density, size = data.density, data.settings.get("parameters")
    samples = data.settings.get("population") or data.settings.get("samples")
    if density is None or not size or not isinstance(samples, int) or samples < 1:
        return None
    if not 1 / samples > resolution(density):
        return None
    return effective_dimension(density, size, 1 / samples, tolerance=resolution(density))


def write_summary(path: Path, data: SpectrumData) -> None:
    """Write the figures of a spectrum as JSON."""
    write_text(path, json.dumps(summary(data), indent=2, allow_nan=False) + "\n")


def _with_residuals(values: np.ndarray, residuals: np.ndarray) -> list[dict[str, float]]:
    return [
        {"value": float(value), "residual": float(residual)}
        for value, residual in zip(values, residuals, strict=True)
    ]
