from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isoloss.hessian.density import spectral_density
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.lanczos import LanczosBasis
from isoloss.hessian.operators import MatrixOperator, OperatorError

DOUBLE = torch.float64


def matrix_with(spectrum, seed=0, dtype=DOUBLE):
    """A symmetric matrix with the given eigenvalues in a random basis."""
    values = torch.as_tensor(spectrum, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=DOUBLE))
    matrix = q @ torch.diag(values) @ q.T
    return ((matrix + matrix.T) / 2).to(dtype)


BULK = torch.linspace(-1, 1, 95, dtype=DOUBLE).tolist()
SPECTRA = {
    "zero": [0.0] * 6,
    "one-by-one": [4.0],
    "identity": [1.0] * 7,
    "two-by-two": [1.0, -2.0],
    "repeated-top": [5.0, 5.0, 5.0, 1.0, 1.0] + [0.0] * 95,
    "indefinite": torch.linspace(-3, 5, 40).tolist(),
    "negative-definite": (-torch.arange(1.0, 31.0)).tolist(),
    "clustered": [10, 10 - 1e-6, 10 - 2e-6, 5, 4, *BULK],
    "low-rank": [8.0, 3.0, 1.0] + [0.0] * 57,
    "decaying": (1 / torch.arange(1.0, 201.0) ** 1.5).tolist(),
    "tiny-scale": [1e-30 * value for value in [10, 7, 5, 3, 2, *BULK]],
    "huge-scale": [1e30 * value for value in [10, 7, 5, 3, 2, *BULK]],
}


@pytest.mark.parametrize("smallest", [0, 2])
@pytest.mark.parametrize("name", SPECTRA)
def test_known_spectra(name, smallest):
    expected = torch.tensor(SPECTRA[name], dtype=DOUBLE).sort(descending=True).values
    n, scale = len(expected), float(expected.abs().max())
    k, smallest = min(5, n), min(smallest, n)
    matrix = matrix_with(SPECTRA[name])
    pairs = top_eigenpairs(
        MatrixOperator(matrix), k, smallest=smallest, tol=1e-9, max_products=3000
    )
    assert pairs.converged, pairs.reason
    # An eigenvalue's error is at most its residual, 1e-9 relative here; 1e-8 leaves room for the
    # rounding of the matrix itself.
    assert torch.allclose(pairs.eigenvalues, expected[:k], rtol=1e-8, atol=1e-12 * scale)
    check_pairs(matrix, pairs.eigenvalues, pairs.residuals, pairs.eigenvectors)
    if smallest:
        assert torch.allclose(
            pairs.smallest_eigenvalues, expected.flip(0)[:smallest], rtol=1e-8, atol=1e-12 * scale
        )
        check_pairs(
            matrix,
            pairs.smallest_eigenvalues,
            pairs.smallest_residuals,
            pairs.smallest_eigenvectors,
        )
    else:
        assert pairs.smallest_eigenvalues is None


def check_pairs(matrix, values, residuals, vectors):
    """Unit, orthogonal, sign-fixed vectors whose true residuals the reported ones bound."""
    scale = float(torch.linalg.matrix_norm(matrix, 2))
    true = torch.linalg.vector_norm(matrix @ vectors - vectors * values, dim=0)
    # 20 roundings: those of forming the true residual here.
    assert (true <= 1.001 * residuals + 20 * 2.3e-16 * scale).all()
    # Two-pass Gram-Schmidt keeps the basis orthogonal to rounding, whatever the scale.
    identity = torch.eye(vectors.shape[1], dtype=DOUBLE)
    assert torch.allclose(vectors.T @ vectors, identity, rtol=0, atol=1e-13)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


def test_restarts_find_what_the_unrestarted_basis_finds():
    matrix = matrix_with([10, 7, 5, 3, 2, *BULK])
    free, tight = (
        top_eigenpairs(MatrixOperator(matrix), 5, tol=1e-9, max_basis=basis) for basis in (None, 9)
    )
    assert tight.converged
    assert tight.products > free.products
    # Two results that are each within 1e-9.
    assert torch.allclose(free.eigenvalues, tight.eigenvalues, rtol=2e-9)
    check_pairs(matrix, tight.eigenvalues, tight.residuals, tight.eigenvectors)


def test_reported_residuals_are_close_to_the_true_ones_far_from_convergence():
    matrix = matrix_with([10, 7, 5, 3, 2, *BULK])
    for basis in (None, 9):
        pairs = top_eigenpairs(
            MatrixOperator(matrix), 3, tol=1e-12, max_products=12, max_basis=basis
        )
        assert not pairs.converged
        true = torch.linalg.vector_norm(
            matrix @ pairs.eigenvectors - pairs.eigenvectors * pairs.eigenvalues, dim=0
        )
        # The Lanczos relation gives them exactly, but for rounding.
        assert torch.allclose(pairs.residuals, true, rtol=1e-6, atol=1e-12)


def test_confirm_finds_the_copies_that_one_start_cannot_see():
    # On a diagonal matrix rounding does not mix the two eigenvectors for 10: the Krylov space of
    # one start holds a single combination of them.
    spectrum = torch.tensor([10.0, 10.0, 3.0, 2.0, *BULK], dtype=DOUBLE)
    plain = top_eigenpairs(MatrixOperator(torch.diag(spectrum)), 3, tol=1e-3)
    confirmed = top_eigenpairs(MatrixOperator(torch.diag(spectrum)), 3, tol=1e-3, confirm=15)
    assert plain.converged
    assert plain.eigenvalues.tolist() == pytest.approx([10, 3, 2], rel=1e-3)
    assert confirmed.converged
    assert confirmed.eigenvalues.tolist() == pytest.approx([10, 10, 3], rel=1e-3)


def test_residuals_stay_bounds_when_a_new_start_drops_the_old_residual():
    matrix = matrix_with([10, 7, 5, 3, 2, *BULK])
    # A loose tolerance, so that what is dropped matters, and restarts that must carry it along.
    pairs = top_eigenpairs(MatrixOperator(matrix), 3, tol=3e-2, confirm=40, max_basis=8)
    assert pairs.converged
    assert float(pairs.residuals.max()) > 1e-3
    check_pairs(matrix, pairs.eigenvalues, pairs.residuals, pairs.eigenvectors)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_breakdown_is_judged_relative_to_the_norm(scale):
    operator = MatrixOperator(scale * matrix_with([3.0, 1.0] + [0.0] * 20))
    basis = LanczosBasis(operator, 10, seed=0)
    steps = 0
    while not basis.broken:
        basis.step()
        steps += 1
    # Three distinct eigenvalues: the Krylov space of any start has three dimensions.
    assert steps == 3


def test_single_precision_reaches_its_tolerance():
    spectrum = [10, 7, 5, 3, 2, *BULK]
    pairs = top_eigenpairs(MatrixOperator(matrix_with(spectrum, dtype=torch.float32)), 5)
    assert pairs.converged
    assert pairs.eigenvectors.dtype == torch.float32
    # Residuals of 1e-4 relative; eigenvalues that stand apart are in error by its square.
    assert pairs.eigenvalues.tolist() == pytest.approx([10, 7, 5, 3, 2], rel=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1.0, 1e12, 5e20])
def test_single_precision_knows_no_scale(scale):
    matrix = matrix_with([scale * value for value in [10, 7, 5, 3, 2, *BULK]], dtype=torch.float32)
    exact = np.linalg.eigvalsh(matrix.numpy().astype(np.float64))
    pairs = top_eigenpairs(MatrixOperator(matrix), 5, smallest=1)
    assert pairs.converged
    # As without a scale: residuals of 1e-4 relative, their squares over the gaps, and roundings.
    assert pairs.eigenvalues.tolist() == pytest.approx(exact[::-1][:5].tolist(), rel=1e-5)
    assert float(pairs.smallest_eigenvalues) == pytest.approx(exact[0], rel=1e-4)
    density = spectral_density(MatrixOperator(matrix), probes=2, steps=20)
    assert float(density.nodes.max()) == pytest.approx(exact[-1], rel=1e-5)


def test_products_that_are_not_symmetric_enough_stop_the_search():
    operator = MatrixOperator(matrix_with([10, 7, 5, 3, 2, *BULK]))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(100, 100, generator=generator, dtype=DOUBLE)
    operator.matrix = operator.matrix + 1e-6 * noise
    pairs = top_eigenpairs(operator, 3, tol=1e-9)
    assert not pairs.converged
    assert "symmetric only to" in pairs.reason
    assert pairs.products < 60
    check_pairs(operator.matrix, pairs.eigenvalues, pairs.residuals, pairs.eigenvectors)
    assert top_eigenpairs(operator, 3, tol=1e-4).converged


def test_a_tolerance_below_rounding_is_met_up_to_rounding_and_said_so():
    operator = MatrixOperator(matrix_with([10, 7, 5, 3, 2, *BULK]))
    pairs = top_eigenpairs(operator, 3, tol=1e-30)
    assert pairs.converged
    assert "or 10 roundings of the norm" in pairs.reason


def test_same_seed_same_bytes_and_other_seed_same_values():
    operator = MatrixOperator(matrix_with([10, 7, 5, 3, 2, *BULK]))
    first, again = (top_eigenpairs(operator, 3, seed=4) for _ in range(2))
    other = top_eigenpairs(operator, 3, seed=5)
    assert torch.equal(first.eigenvectors, again.eigenvectors)
    # Eigenvectors to tol / relative gap: 1e-4 * 10 / 2.
    assert torch.allclose(first.eigenvectors, other.eigenvectors, atol=5e-4)


def test_spent_budget_is_reported():
    seen = []
    pairs = top_eigenpairs(
        MatrixOperator(matrix_with(BULK)),
        4,
        max_products=10,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert not pairs.converged
    assert "of 4 pairs converged within 10 products\nraise max_products" in pairs.reason
    assert pairs.products == 10
    assert seen == [(i, 10) for i in range(1, 11)]


def test_products_that_are_not_finite_are_reported():
    matrix = torch.eye(20, dtype=DOUBLE)
    matrix[3, 3] = math.inf
    operator = MatrixOperator(torch.eye(20, dtype=DOUBLE))
    operator.matrix = matrix
    pairs = top_eigenpairs(operator, 2, smallest=1)
    assert not pairs.converged
    assert "not finite" in pairs.reason
    assert pairs.eigenvalues.isnan().all()
    assert pairs.smallest_eigenvectors.isnan().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 11}, "k from 1 to 10"),
        ({"k": 0}, "got k = 0"),
        ({"smallest": 11}, "smallest = 11"),
        ({"tol": 0}, "tol > 0"),
        ({"k": 5, "max_products": 4}, "max_products of 5 or more for 5 pairs, got 4"),
        ({"k": 5, "max_basis": 7}, "max_basis of 8 or more for 5 pairs, got 7"),
    ],
)
def test_misuse_is_refused(arguments, message):
    with pytest.raises(OperatorError, match=message):
        top_eigenpairs(MatrixOperator(torch.eye(10, dtype=DOUBLE)), **arguments)
