"""XDiag: diagonals of known matrices, within the errors it states."""

import numpy as np
import pytest
import torch

from isoloss.hessian import MatrixOperator, diagonal
from isoloss.hessian.operators.protocol import OperatorError


def matrix(eigenvalues, seed=1):
    size = len(eigenvalues)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    found = (basis * torch.as_tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    return (found + found.T) / 2


SPECTRA = {
    "decaying": np.exp(-np.arange(60) / 4),
    "flat": np.linspace(1, 2, 60),
    "both signs": np.concatenate([[9.0, -5.0], np.linspace(-1, 1, 58)]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_entries_are_within_their_errors_as_often_as_they_say(name):
    whole = matrix(SPECTRA[name])
    operator, exact = MatrixOperator(whole), whole.diagonal()
    covered, values = [], []
    for seed in range(200):
        found = diagonal(operator, budget=20, seed=seed)
        covered.append(((found.values - exact).abs() <= 2 * found.standard_errors).double().mean())
        values.append(found.values)
    values = torch.stack(values)
    # 0.95 is meant.
    assert 0.92 <= np.mean(covered) <= 0.99
    # Without bias: 4 standard errors for each of 60 entries.
    assert ((values.mean(0) - exact).abs() <= 4 * values.std(0) / 200**0.5).all()


def test_values_are_those_of_the_definition():
    """Each projection formed anew, from the products without one test vector."""
    from isoloss.hessian.operators.vectors import sign_vector

    whole = matrix(SPECTRA["both signs"])
    operator, expected = MatrixOperator(whole), []
    tests = torch.stack([sign_vector(operator, 3, i) for i in range(6)], dim=1)
    for i in range(6):
        Q = torch.linalg.qr(whole @ tests[:, [j for j in range(6) if j != i]]).Q
        rest = whole @ tests[:, i] - Q @ (Q.T @ (whole @ tests[:, i]))
        expected.append((Q @ Q.T @ whole).diagonal() + tests[:, i] * rest)
    found = diagonal(operator, budget=12, seed=3)
    torch.testing.assert_close(found.values, torch.stack(expected).mean(0))


def test_errors_are_those_of_the_definition():
    from isoloss.hessian.operators.vectors import sign_vector

    whole, m = matrix(SPECTRA["decaying"]), 5
    operator = MatrixOperator(whole)
    tests = torch.stack([sign_vector(operator, 0, i) for i in range(m)], dim=1)

    def value(i, without):
        Q = torch.linalg.qr(whole @ tests[:, [j for j in range(m) if j not in without]]).Q
        rest = whole @ tests[:, i] - Q @ (Q.T @ (whole @ tests[:, i]))
        return (Q @ Q.T @ whole).diagonal() + tests[:, i] * rest

    single = torch.stack([value(i, {i}) for i in range(m)])
    pairs = [
        (single[i] - value(i, {i, j})) * (single[j] - value(j, {i, j}))
        for i in range(m)
        for j in range(m)
        if i != j
    ]
    variance = single.var(0) / m + torch.stack(pairs).mean(0).clamp(min=0)
    found = diagonal(operator, budget=2 * m)
    student = 2.869  # the quantile of 4 degrees of freedom that the normal one of 2 is
    torch.testing.assert_close(
        found.standard_errors, variance.sqrt() * student / 2, rtol=1e-3, atol=1e-12
    )


def test_low_ranks_and_small_matrices_are_exact():
    low = matrix(np.concatenate([[3.0, -2.0, 1.0], np.zeros(40)]))
    found = diagonal(MatrixOperator(low), budget=20)
    torch.testing.assert_close(found.values, low.diagonal(), rtol=0, atol=1e-12)
    assert found.reason.startswith("exact")
    assert not found.standard_errors.any()
    small = matrix([1.0, 2.0, 4.0])
    found = diagonal(MatrixOperator(small), budget=6)
    assert torch.equal(found.values, small.diagonal())
    zero = diagonal(MatrixOperator(torch.zeros(30, 30)), budget=6)
    assert not zero.values.any()


def test_what_is_not_finite_or_asked_for_too_little_says_so():
    broken = diagonal(MatrixOperator(torch.full((30, 30), torch.inf)), budget=6)
    assert broken.values.isnan().all()
    assert "NaN or infinite" in broken.reason
    with pytest.raises(OperatorError, match="6 products or more"):
        diagonal(MatrixOperator(torch.eye(30)), budget=5)
