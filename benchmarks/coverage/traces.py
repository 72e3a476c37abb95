"""Standard errors of traces, on matrices of known spectrum.

A symmetric matrix of known eigenvalues in a random basis stands for a Hessian.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.coverage.judgement import Row, of_errors
from isoloss.experiments.settings import SpectrumSettings
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import LinearOperator
from isoloss.hessian.trace import trace

METHODS = ("xtrace", "hutch++", "hutchinson")
REPEATS = 2000
SIZE = 300
DEFAULT = SpectrumSettings()
# Relative error and budget: never met, so that all products are spent; and as `hessian` asks.
STOPS = {
    "48 products": (1e-12, 48),
    f"{100 * DEFAULT.trace_error:.0f} %": (DEFAULT.trace_error, DEFAULT.trace_budget),
}
SPECTRUM_SEED, BASIS_SEED = 0, 1


def spectra(n: int) -> dict[str, np.ndarray]:
    """Return the eigenvalues, (n,) each, by the kind of the spectrum."""
    noise = np.random.default_rng(SPECTRUM_SEED).normal(size=n)
    centres = np.array([10.0, 3.0, 1.0])[np.arange(n) % 3]
    return {
        "slowly decaying (1/i)": 1 / np.arange(1.0, n + 1),
        "clustered (1, 3, 10)": centres * (1 + 0.01 * noise),
        "outliers and bulk": np.r_[50, 30, 20, 10, 8, 0.05 * noise[5:]],
        "indefinite (-1 to 1.3)": np.linspace(-1.0, 1.3, n),
        "one of 1000 beside ones": np.r_[1000.0, np.ones(n - 1)],
    }


def operator_with(spectrum: np.ndarray) -> MatrixOperator:
    """Return Q diag(spectrum) Q^T in float64, Q orthogonal from the QR of a Gaussian matrix."""
    generator = torch.Generator().manual_seed(BASIS_SEED)
    n = len(spectrum)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    A = Q @ torch.diag(torch.as_tensor(spectrum)) @ Q.T
    return MatrixOperator((A + A.T) / 2)


def trace_row(
    case: str, operator: LinearOperator, exact: float, method: str, stop: str, repeats: int
) -> Row:
    """Return what estimates of one trace, of seeds 0 to `repeats` - 1, say of their errors."""
    relative_error, budget = STOPS[stop]
    results = [
        trace(operator, method=method, relative_error=relative_error, budget=budget, seed=seed)
        for seed in range(repeats)
    ]
    products = np.mean([result.products for result in results])
    claimed = [result.standard_error for result in results]
    return of_errors(
        case,
        f"{method}, {stop}",
        [result.value - exact for result in results],
        claimed,
        note=f"{products:.0f} products, s.e. {np.mean(claimed) / abs(exact):.2g} of the trace",
    )


def rows(repeats: int | None = None) -> Iterator[Row]:
    """Yield a row a spectrum, method and stop."""
    for kind, spectrum in spectra(SIZE).items():
        operator, exact = operator_with(spectrum), math.fsum(spectrum)
        for method in METHODS:
            for stop in STOPS:
                yield trace_row(kind, operator, exact, method, stop, repeats or REPEATS)
