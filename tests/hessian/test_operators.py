from __future__ import annotations

import numpy as np
import pytest
import torch

from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.vectors import inner, norm, probe_vector, projections, sign_vector

DOUBLE = torch.float64


def test_matrix_products():
    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=DOUBLE)
    operator = MatrixOperator(matrix)
    assert torch.equal(
        operator.matvec(torch.tensor([1.0, 2.0], dtype=DOUBLE)), matrix @ matrix.new_tensor([1, 2])
    )
    assert torch.equal(operator.matmat(torch.eye(2, dtype=DOUBLE)), matrix)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.zeros(2, 3), r"square matrix, got shape \(2, 3\)"),
        (torch.zeros(0, 0), "square matrix"),
        (torch.zeros(2, 2, dtype=torch.int64), "float32 or float64 matrix, got torch.int64"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), r"symmetric.*\n.*\(A \+ A.T\) / 2"),
    ],
)
def test_unfit_matrices_are_refused(matrix, message):
    with pytest.raises(OperatorError, match=message):
        MatrixOperator(matrix)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (torch.zeros(3, dtype=DOUBLE), r"shape \(2,\), got shape \(3,\)"),
        (torch.zeros(2, 1, dtype=DOUBLE), r"got shape \(2, 1\)"),
        (torch.zeros(2), r"float64.*got torch.float32\nconvert"),
    ],
)
def test_unfit_vectors_are_refused(vector, message):
    operator = MatrixOperator(torch.eye(2, dtype=DOUBLE))
    with pytest.raises(OperatorError, match=message):
        operator.matvec(vector)


def test_unfit_columns_are_refused():
    operator = MatrixOperator(torch.eye(2, dtype=DOUBLE))
    with pytest.raises(OperatorError, match=r"columns of shape \(2, k\), got shape \(3, 1\)"):
        operator.matmat(torch.zeros(3, 1, dtype=DOUBLE))


@pytest.mark.parametrize("draw", [probe_vector, sign_vector])
def test_random_vectors_depend_on_seed_and_index_alone(draw):
    operator = MatrixOperator(torch.eye(50, dtype=DOUBLE))
    before = torch.random.get_rng_state()
    first = draw(operator, 3, 7)
    draw(operator, 3, 8)
    torch.randn(5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draw(operator, 3, 7), first)
    assert not torch.equal(draw(operator, 7, 3), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_probe_vectors_are_unit_vectors_of_the_dtype_asked_for():
    double, single = probe_vector(1000, 0, 0), probe_vector(1000, 0, 0, dtype=torch.float32)
    assert single.dtype == torch.float32
    # Equal but for the rounding of each entry, 6e-8 relative.
    assert torch.allclose(double.float(), single, rtol=1e-6, atol=0)
    assert float(double.norm()) == pytest.approx(1, rel=1e-14)


def test_negative_seed_is_refused():
    with pytest.raises(OperatorError, match="got -1 and 0"):
        probe_vector(3, -1, 0)


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1.0, 5e20, 1e37])
def test_norms_and_inner_products_neither_overflow_nor_vanish_in_single_precision(scale):
    generator = torch.Generator().manual_seed(0)
    a, b = scale * torch.randn(2, 1000, generator=generator)
    exact = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    assert norm(a) == pytest.approx(np.linalg.norm(exact[0]), rel=1e-14)
    # The sum cancels to about 1 / sqrt(1000) of its terms.
    assert inner(a, b) == pytest.approx(exact[0] @ exact[1], rel=1e-12)
    rows = torch.linalg.qr(torch.randn(1000, 3, generator=generator)).Q.T
    expected = rows.numpy().astype(np.float64) @ exact[0]
    # Sums of 1000 terms in float32: some roundings of 1.2e-7 of the vector's length.
    assert projections(rows, a).numpy() == pytest.approx(expected, rel=0, abs=1e-5 * norm(a))
    assert norm(torch.zeros(3)) == 0.0
    assert torch.equal(projections(rows, torch.zeros(1000)), torch.zeros(3, dtype=DOUBLE))
