from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.vectors import probe_vector
from isoloss.hessian.trace import trace
from isoloss.hessian.trace_samplers import METHODS as SAMPLERS
from isoloss.hessian.trace_samplers import CountedOperator

DOUBLE = torch.float64
N, SMALL = 120, 60
NEVER = 1e-12  # a relative error that is not met, so that the whole budget is spent
SPECTRA = {
    "outliers": np.r_[50, 30, 20, 10, 8, np.random.default_rng(0).normal(0, 0.05, N - 5)],
    "flat": np.linspace(0.0, 1.0, N),
    "indefinite": np.linspace(-1.0, 1.3, N),
    "decaying": 1 / np.arange(1.0, N + 1),
    "clustered": np.r_[np.full(20, 5.0), np.full(N - 20, 0.1)],
}


def operator_with(spectrum, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(1)
    n = len(spectrum)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=DOUBLE))
    matrix = q @ torch.diag(torch.as_tensor(spectrum, dtype=DOUBLE)) @ q.T
    return MatrixOperator(((matrix + matrix.T) / 2).to(dtype))


# Coverage of 2 standard errors is to be 93 % or more: fewer than this far below it happens once in
# 100. Their size is to be at most 1.5 of the true error, which R repeats tell to 1 / sqrt(2 R).
CASES = [
    pytest.param(0.05, 300, id="stops"),
    pytest.param(0.05, 2000, id="stops-2000", marks=pytest.mark.slow),
    pytest.param(NEVER, 2000, id="spends-2000", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("relative_error", "repeats"), CASES)
@pytest.mark.parametrize("method", SAMPLERS)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in ("flat", "decaying") else n for n in SPECTRA],
)
def test_two_standard_errors_cover_the_trace(name, method, relative_error, repeats):
    spectrum = SPECTRA[name][:: N // SMALL]
    operator, exact = operator_with(spectrum), spectrum.sum()
    results = [
        trace(operator, method=method, relative_error=relative_error, budget=59, seed=seed)
        for seed in range(repeats)
    ]
    errors = np.array([result.value for result in results]) - exact
    claimed = np.array([result.standard_error for result in results])
    covered = (np.abs(errors) <= 2 * claimed).sum()
    assert covered >= stats.binom.ppf(0.01, repeats, 0.93)
    ratio = np.sqrt(np.mean(claimed**2)) / np.sqrt(np.mean(errors**2))
    assert ratio < 1.5
    # The mean over seeds is unbiased: within 4 of its own standard errors.
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(repeats)


def test_xtrace_equals_its_definition():
    """The leave-one-out values, each from a basis built anew without its vector."""
    operator, k = operator_with(SPECTRA["indefinite"]), 8
    A = operator.matrix
    tests = torch.stack([probe_vector(operator, 5, i) for i in range(k)], 1) * math.sqrt(N)
    values = []
    for i in range(k):
        others = [j for j in range(k) if j != i]
        Q, _ = torch.linalg.qr(A @ tests[:, others])
        rest = tests[:, i] - Q @ (Q.T @ tests[:, i])
        rest *= math.sqrt(N - k + 1) / rest.norm()
        values.append(torch.trace(Q.T @ A @ Q) + rest @ A @ rest)
    values = torch.stack(values)

    def left_out(i, *without):
        others = [j for j in range(k) if j not in without]
        Q, _ = torch.linalg.qr(A @ tests[:, others])
        rest = tests[:, i] - Q @ (Q.T @ tests[:, i])
        rest *= math.sqrt(N - len(others)) / rest.norm()
        return torch.trace(Q.T @ A @ Q) + rest @ A @ rest

    pairs = [
        (values[i] - left_out(i, i, j)) * (values[j] - left_out(j, i, j))
        for i in range(k)
        for j in range(i)
    ]
    squared = values.var() / k + max(0.0, float(torch.stack(pairs).mean()))
    # Student's t with 7 degrees of freedom: 2.43 as far out as 2 of a Gaussian.
    expected = stats.t.isf(stats.norm.sf(2), k - 1) / 2 * math.sqrt(squared)
    result = trace(operator, relative_error=NEVER, budget=2 * k, seed=5)
    # Rounding, amplified by the condition of the 8 products, below 1e3.
    assert result.value == pytest.approx(float(values.mean()), rel=1e-11)
    assert result.standard_error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", ["xtrace", "hutch++"])
def test_growing_in_steps_changes_nothing(method):
    operator = operator_with(SPECTRA["flat"])
    # A pilot of 8 samples, then the 17 that the budget leaves.
    cost = {"xtrace": 2, "hutch++": 3}[method]
    grown = trace(operator, method=method, relative_error=NEVER, budget=25 * cost)
    once = SAMPLERS[method](CountedOperator(operator, 25 * cost, None), 0)
    once.grow(25)
    # The order of the basis differs nowhere; sums of other shapes round differently.
    assert (grown.value, grown.standard_error) == pytest.approx(once.estimate(8), rel=1e-11)
    assert grown.samples == 17


@pytest.mark.parametrize("method", SAMPLERS)
def test_stops_at_the_requested_error_within_the_budget(method):
    operator = operator_with(np.linspace(0.5, 1.5, N))
    seen = []
    result = trace(
        operator,
        method=method,
        relative_error=0.05,
        budget=90,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert result.converged
    assert result.standard_error <= 0.05 * result.value
    assert len(seen) == result.products < 90
    assert seen[-1] == (result.products, 90)


@pytest.mark.parametrize("method", SAMPLERS)
def test_exact_when_the_budget_covers_the_diagonal(method):
    operator = operator_with(SPECTRA["indefinite"])
    result = trace(operator, method=method, budget=N, relative_error=NEVER)
    # A sum of 120 entries, each rounded to 1e-16 of its size.
    assert result.value == pytest.approx(float(torch.trace(operator.matrix)), rel=1e-14)
    assert (result.standard_error, result.products, result.converged) == (0.0, N, True)
    assert "exact" in result.reason


@pytest.mark.parametrize("method", ["xtrace", "hutch++"])
@pytest.mark.parametrize("rank", [0, 1, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-12), (torch.float32, 1e-5)])
def test_exact_when_the_rank_is_reached(method, rank, dtype, tolerance):
    spectrum = np.zeros(N)
    spectrum[:rank] = np.arange(1, rank + 1) * np.where(np.arange(rank) % 2, -1, 2)
    result = trace(operator_with(spectrum, dtype), method=method, budget=60)
    assert result.value == pytest.approx(spectrum.sum(), rel=tolerance)
    assert (result.standard_error, result.samples, result.converged) == (0.0, rank, True)
    assert f"basis of {rank} vectors" in result.reason


def test_signs_are_exact_on_a_diagonal_matrix():
    operator = MatrixOperator(torch.diag(torch.arange(1.0, N + 1, dtype=DOUBLE)))
    result = trace(operator, method="hutchinson", budget=10)
    assert result.value == pytest.approx(N * (N + 1) / 2, rel=1e-14)
    assert result.standard_error == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 5e20])
@pytest.mark.parametrize("method", SAMPLERS)
def test_single_precision_knows_no_scale(method, scale):
    operator = operator_with(SPECTRA["outliers"], torch.float32)
    scaled = MatrixOperator(operator.matrix * scale)
    one, other = (trace(a, method=method, budget=48, seed=3) for a in (operator, scaled))
    # Same samples, other roundings of the matrix: 6e-8 of outliers of 50 and 118 in all.
    assert other.value / scale == pytest.approx(one.value, rel=1e-5)
    assert other.standard_error / scale == pytest.approx(one.standard_error, rel=1e-2)
    assert one.standard_error > 0
    assert other.converged == one.converged


def test_products_that_are_not_finite_are_reported():
    operator = MatrixOperator(torch.eye(N, dtype=DOUBLE))
    operator.matrix = operator.matrix * math.nan
    result = trace(operator, budget=50)
    assert math.isnan(result.value)
    assert math.isnan(result.standard_error)
    assert not result.converged
    assert "not finite" in result.reason


def test_zero_trace_is_said_to_have_no_relative_error():
    result = trace(operator_with(np.linspace(-1, 1, N)), budget=20)
    assert not result.converged
    assert "trace near 0" in result.reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "hutch"}, r"xtrace, hutch\+\+, hutchinson, got 'hutch'"),
        ({"relative_error": 0}, "relative_error > 0"),
        ({"budget": 3}, "budget of 4 products or more"),
    ],
)
def test_misuse_is_refused(arguments, message):
    with pytest.raises(OperatorError, match=message):
        trace(MatrixOperator(torch.eye(N, dtype=DOUBLE)), **arguments)
