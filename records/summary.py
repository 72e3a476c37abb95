"""The figures of a stored spectrum, for people to read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.records.files import write_text
from isoloss.records.spectra import SpectrumData


def summary(data: SpectrumData) -> dict[str, Any]:
    """Return the figures of a spectrum with their uncertainties, for people to read.

    Eigenvalues and trace are in units of the loss per squared unit of a weight, those of `scaled`
    in units of the loss.
    """
    result: dict[str, Any] = {"stages": list(data.stages)}
    pairs, trace, scaled, density = data.eigenpairs, data.trace, data.scaled, data.density
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
        # Below zero by more than the resolution: the many eigenvalues at 0 have the sign of noise.
        below = density.nodes < -density.account["bandwidth"]
        negative = (density.weights * below).sum(axis=1)
        sampled = probes > 1
        result["density"] = {
            "probes": probes,
            "steps": steps,
            "smallest_node": float(density.nodes.min()),
            "largest_node": float(density.nodes.max()),
            "mass_below_minus_bandwidth": float(negative.mean()),
            "mass_below_minus_bandwidth_standard_error": (
                float(negative.std(ddof=1) / math.sqrt(probes)) if sampled else None
            ),
            **density.account,
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
