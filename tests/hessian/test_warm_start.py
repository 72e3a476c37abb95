"""Warm starts: fewer products between near weights, nothing overlooked, the same residuals."""

from __future__ import annotations

import pytest
import torch

from isoloss.hessian.eigenpairs import top_eigenpairs, warm_start
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import OperatorError

N = 400


def symmetric(values, seed):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator)).Q
    return q @ torch.diag(values) @ q.T, q


def bulk():
    return torch.linspace(-0.5, 0.5, N, dtype=torch.float64)


def test_near_weights_take_fewer_products_to_the_same_accuracy():
    values = bulk()
    values[-3:] = torch.tensor([3.0, 2.0, 1.5])
    matrix, _ = symmetric(values, 0)
    noise = torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    near = matrix + 1e-4 * (noise + noise.T)
    expected = torch.linalg.eigvalsh(near).flip(0)[:3]
    before = top_eigenpairs(MatrixOperator(matrix), 3)
    cold = top_eigenpairs(MatrixOperator(near), 3)
    warm = top_eigenpairs(MatrixOperator(near), 3, start=warm_start(before))
    assert warm.converged
    assert warm.products < cold.products
    assert (warm.residuals <= 1e-4 * warm.eigenvalues.abs()).all()
    torch.testing.assert_close(warm.eigenvalues, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_a_direction_that_is_new_among_the_extreme_ones_is_found(seed):
    values = bulk()
    values[-1] = 2.0
    matrix, q = symmetric(values, seed)
    before = top_eigenpairs(MatrixOperator(matrix), 1)
    # An eigenvector of the bulk becomes the largest; the old one stays an eigenvector exactly, so
    # that it alone would be invariant.
    after = matrix + 3.0 * torch.outer(q[:, 7], q[:, 7])
    found = top_eigenpairs(MatrixOperator(after), 1, start=warm_start(before, seed))
    assert found.eigenvalues[0].item() == pytest.approx(3.0 + values[7].item(), rel=1e-6)


def test_a_start_is_checked():
    operator = MatrixOperator(torch.eye(4))
    for start in (torch.zeros(4), torch.tensor([1.0, torch.nan, 0, 0]), torch.ones(3)):
        with pytest.raises(OperatorError, match="expected a"):
            top_eigenpairs(operator, 1, start=start)
