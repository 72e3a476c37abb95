from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isoloss.hessian.density import spectral_density
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.lanczos import LanczosBasis
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.landscape.problem import Problem

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
        top_eigenpairs(MatrixOperator(matrix), 5, tol=1e-9, max_basis=basis, confirm=0)
        for basis in (None, 9)
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
    plain = top_eigenpairs(MatrixOperator(torch.diag(spectrum)), 3, tol=1e-3, confirm=0)
    confirmed = top_eigenpairs(MatrixOperator(torch.diag(spectrum)), 3, tol=1e-3, confirm=15)
    assert plain.converged
    assert plain.copies == "not searched"
    assert "distinct eigenvalues" in plain.reason
    assert plain.eigenvalues.tolist() == pytest.approx([10, 3, 2], rel=1e-3)
    assert confirmed.converged
    assert confirmed.eigenvalues.tolist() == pytest.approx([10, 10, 3], rel=1e-3)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", range(9))
def test_copies_are_found_by_default(case, dtype):
    """Six outliers one to five times each above a random, a repeated or an even bulk."""
    draw = np.random.default_rng(case)
    outliers = np.repeat(draw.uniform(2, 10, 6), draw.integers(1, 6, 6))
    bulk = [draw.normal(0, 0.2, 100), np.repeat(draw.uniform(-1, 1, 20), 5), np.linspace(-1, 1)]
    spectrum = np.concatenate([outliers, bulk[case % 3]])
    matrix = matrix_with(spectrum, seed=case)
    if case % 4 == 3:  # blocks: exact copies, which rounding does not tell apart
        matrix = torch.diag(torch.as_tensor(draw.permutation(spectrum)))
    expected = np.sort(spectrum)[::-1]
    for k in (1, 3, 8):
        pairs = top_eigenpairs(MatrixOperator(matrix.to(dtype)), k, seed=case)
        assert pairs.converged, pairs.reason
        assert pairs.copies == "searched"
        # Residuals of 1e-4; where eigenvalues are closer than that, no better.
        assert pairs.eigenvalues.numpy() == pytest.approx(expected[:k], rel=1e-4)
        if dtype == DOUBLE:
            check_pairs(matrix, pairs.eigenvalues, pairs.residuals, pairs.eigenvectors)


def test_each_output_of_a_linear_layer_repeats_the_spectrum():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 20, generator=generator), torch.randn(500, 5, generator=generator)
    problem = Problem(torch.nn.Linear(20, 5), torch.nn.MSELoss(), [(x, y)])
    # The mean over 500 x 5 squares: 2 / 5 of the inputs' second moments, once for each output.
    inputs = np.c_[x.numpy(), np.ones(500)].astype(np.float64)
    exact = np.linalg.eigvalsh(inputs.T @ inputs / 500 * 2 / 5)[::-1].repeat(5)
    with HessianOperator(problem) as hessian:
        for k in (1, 5, 7):
            pairs = top_eigenpairs(hessian, k)
            assert pairs.converged
            assert pairs.copies == "searched"
            assert pairs.eigenvalues.tolist() == pytest.approx(exact[:k].tolist(), rel=1e-5)


def test_the_search_for_copies_costs_little_on_an_ordinary_spectrum():
    operator = MatrixOperator(matrix_with([10, 7, 5, 3, 2, *BULK]))
    plain, searched = (top_eigenpairs(operator, 5, confirm=confirm) for confirm in (0, 30))
    assert searched.copies == "searched"
    assert searched.products <= 1.5 * plain.products


def test_a_search_for_copies_inside_a_dense_bulk_is_given_up():
    operator = MatrixOperator(matrix_with(np.linspace(-1, 1, 1000)))
    plain, searched = (top_eigenpairs(operator, 2, confirm=confirm) for confirm in (0, 5))
    assert searched.converged
    assert searched.copies == "not searched"
    assert "distinct eigenvalues" in searched.reason
    assert searched.products <= plain.products + 15


@pytest.mark.parametrize("tol", [None, 1e-4])
def test_without_a_tolerance_what_the_products_allow_is_enough(tol):
    operator = MatrixOperator(matrix_with([10, 7, 5, 3, 2, *BULK], dtype=torch.float32))
    generator = torch.Generator().manual_seed(3)
    # Asymmetry along 30 vectors of about 1e-4 sqrt(30) = 5e-4: 500 roundings of the norm of 10.
    operator.matrix = operator.matrix + 1e-4 * torch.randn(100, 100, generator=generator)
    pairs = top_eigenpairs(operator, 5, tol=tol)
    assert pairs.eigenvalues.tolist() == pytest.approx([10, 7, 5, 3, 2], rel=1e-3)
    assert pairs.converged is (tol is None)
    words = "converged to what float32 products allow: " if tol is None else "symmetric only to"
    assert words in pairs.reason


def test_an_operator_that_is_not_symmetric_is_not_taken_for_rounding():
    operator = MatrixOperator(matrix_with([10, 7, 5, 3, 2, *BULK]))
    generator = torch.Generator().manual_seed(3)
    operator.matrix = operator.matrix + 1e-4 * torch.randn(100, 100, generator=generator).double()
    pairs = top_eigenpairs(operator, 5)
    assert not pairs.converged
    assert "symmetric only to" in pairs.reason


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


def test_the_smallest_is_known_to_a_part_of_the_norm_and_does_not_keep_the_largest_waiting():
    """As of a trained network: outliers above, and a bulk whose lower edge is dense and near 0."""
    n = 400
    bulk = -3e-4 * np.linspace(1, 0, n - 6) ** 0.25
    spectrum = np.r_[5.0, 5.0, 3.0, 2.0, 1.5, 1.0, bulk]
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))
    operator = MatrixOperator(torch.as_tensor(Q @ np.diag(spectrum) @ Q.T))
    pairs = top_eigenpairs(operator, 5, smallest=1)
    alone = top_eigenpairs(operator, 5)
    strict = top_eigenpairs(operator, 5, smallest=1, tol=1e-4)
    assert pairs.converged
    assert pairs.copies == "searched"
    assert "of the smallest within 1e-05 of the norm" in pairs.reason
    assert pairs.reason.endswith("found no further ones of the largest")
    np.testing.assert_allclose(pairs.eigenvalues, spectrum[:5], rtol=1e-7)  # the copy, too
    assert pairs.smallest_residuals is not None
    assert float(pairs.smallest_residuals[0]) <= 1e-5 * 5
    error = abs(float(pairs.smallest_eigenvalues[0]) - bulk.min())
    assert error <= float(pairs.smallest_residuals[0])
    assert pairs.products <= alone.products + 30
    assert strict.products > pairs.products
    assert "of the norm" not in strict.reason
