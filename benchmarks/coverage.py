"""Whether standard errors of traces are the errors that are made, on four kinds of spectra.

A symmetric matrix of known spectrum in a random basis stands for a Hessian. Over seeds, the column
`2 s.e.` says how often the trace lies within two standard errors of the estimate, and `nominal`
how often it would if the values averaged were independent and normal: P(|t| < 2) of Student's t
with (samples - 1) degrees of freedom. `s.e./rms` is the mean standard error over the root mean
square of the errors; 1 is right, below 1 the standard error is too small.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import t as student

from isoloss.hessian.operators import MatrixOperator
from isoloss.hessian.trace import Trace, trace

METHODS = ("xtrace", "hutch++", "hutchinson")
# Relative error and budget: never met, so that all products are spent; and as `hessian` asks.
STOPS = {"48 products": (1e-12, 48), "within 5 %": (0.05, 200)}
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
    }


def operator_with(spectrum: np.ndarray) -> MatrixOperator:
    """Return Q diag(spectrum) Q^T in float64, Q orthogonal from the QR of a Gaussian matrix."""
    generator = torch.Generator().manual_seed(BASIS_SEED)
    n = len(spectrum)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    A = Q @ torch.diag(torch.as_tensor(spectrum)) @ Q.T
    return MatrixOperator((A + A.T) / 2)


def row(results: Sequence[Trace], exact: float) -> str:
    """Return what the estimates of one trace say of their standard errors, as table cells."""
    errors = np.array([result.value for result in results]) - exact
    claimed = np.array([result.standard_error for result in results])
    covered = float(np.mean(np.abs(errors) <= 2 * claimed))
    doubt = math.sqrt(covered * (1 - covered) / len(results))
    nominal = np.mean([1 - 2 * student.sf(2, result.samples - 1) for result in results])
    products = np.mean([result.products for result in results])
    ratio = claimed.mean() / math.sqrt(np.mean(errors**2))
    return (
        f"{len(results):7} {products:8.1f} {100 * covered:6.1f} ± {100 * doubt:3.1f} % "
        f"{100 * nominal:6.1f} % {ratio:8.2f}"
    )


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks coverage")
    parser.add_argument("--repeats", type=int, default=400, help="seeds of the test vectors, 0 ..")
    parser.add_argument("--size", type=int, default=300, help="rows of the matrices, above 200")
    asked = parser.parse_args(arguments)
    if asked.size <= max(budget for _, budget in STOPS.values()) or asked.repeats < 2:
        parser.error("expected a size above 200 (below, traces are exact) and 2 repeats or more")
    torch.set_num_threads(1)
    print(
        f"n = {asked.size}, float64; seeds: spectra {SPECTRUM_SEED}, basis {BASIS_SEED}, test "
        f"vectors 0 to {asked.repeats - 1}; s.e./rms is known to about "
        f"{100 / math.sqrt(2 * asked.repeats):.0f} %"
    )
    heads = f"{'repeats':>7} {'products':>8} {'2 s.e.':>14} {'nominal':>8} {'s.e./rms':>8}"
    print(f"{'spectrum':22} {'method':10} {'stop':11} {heads}")
    for kind, spectrum in spectra(asked.size).items():
        operator, exact = operator_with(spectrum), math.fsum(spectrum)
        for method in METHODS:
            for stop, (relative_error, budget) in STOPS.items():
                results = [
                    trace(
                        operator,
                        method=method,
                        relative_error=relative_error,
                        budget=budget,
                        seed=seed,
                    )
                    for seed in range(asked.repeats)
                ]
                print(f"{kind:22} {method:10} {stop:11} {row(results, exact)}", flush=True)
