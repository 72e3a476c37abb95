"""Sums over all eigenvalues from stored quadratures, against matrices of known spectra."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from isoloss.hessian.density import spectral_density
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.stored import stored_density, stored_eigenpairs
from isoloss.records.bulk import bulk_of, negative_ratio
from isoloss.records.spectra import SpectrumData
from isoloss.records.spectral_sums import (
    effective_dimension,
    frobenius_norm,
    stable_rank,
)
from isoloss.records.summary import summary


def operator(eigenvalues):
    """Return a dense matrix with the given eigenvalues."""
    size = len(eigenvalues)
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    matrix = (basis * torch.as_tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    return MatrixOperator((matrix + matrix.T) / 2)


def stored(matrix, *, top=0, smallest=0, probes=6, steps=20, seed=0):
    density = spectral_density(matrix, probes=probes, steps=steps, seed=seed, points=10)
    pairs = top_eigenpairs(matrix, top, smallest=smallest, seed=seed) if top else None
    return SpectrumData(
        {"parameters": matrix.size},
        eigenpairs=None if pairs is None else stored_eigenpairs(pairs),
        density=stored_density(density),
    )


BULK = np.exp(-np.linspace(0, 6, 80))
SPECTRA = {
    "bulk": BULK,
    "outliers": np.concatenate([[50.0, 30.0, 20.0, 9.0], BULK]),
    "both signs": np.concatenate([[50.0, 30.0, -20.0], BULK, -BULK]),
}


@pytest.mark.parametrize("top", [pytest.param(0, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("name", SPECTRA)
def test_frobenius_norm_is_within_its_error_as_often_as_it_says(name, top):
    exact, matrix = math.sqrt((SPECTRA[name] ** 2).sum()), operator(SPECTRA[name])
    pairs = stored(matrix, top=top, smallest=min(top, 2)).eigenpairs
    found = []
    for seed in range(200):
        data = stored(matrix, probes=4, steps=12, seed=seed)
        found.append(frobenius_norm(dataclasses.replace(data, eigenpairs=pairs)))
    covered = np.mean([abs(e.value - exact) <= 2 * e.standard_error for e in found])
    # 0.95 is meant, 3 standard deviations of 200 repeats are 0.05. The few squares of Gaussians
    # that unknown outliers are of are skewed: their spread is missed more often.
    assert covered >= (0.8 if top == 0 and name != "bulk" else 0.9)


def test_known_eigenvalues_leave_the_error_of_the_rest():
    matrix = operator(SPECTRA["outliers"])
    plain, known = stored(matrix), stored(matrix, top=4)
    exact = math.sqrt((SPECTRA["outliers"] ** 2).sum())
    ours = frobenius_norm(known)
    assert ours.standard_error < 0.1 * frobenius_norm(plain).standard_error
    assert abs(ours.value - exact) <= 4 * ours.standard_error


def test_copies_that_were_not_listed_are_not_taken_for_known():
    # Of three copies two are listed; of a double one in their middle both are.
    matrix = operator([9.0, 7.0, 7.0, 5.0, 5.0, 5.0, *BULK])
    exact = (np.array([9.0, 7, 7, 5, 5, 5, *BULK]) ** 2).sum()
    pairs = stored(matrix, top=5).eigenpairs
    values = []
    for seed in range(100):
        data = stored(matrix, probes=2, steps=12, seed=seed)
        values.append(frobenius_norm(dataclasses.replace(data, eigenpairs=pairs)).value)
    squares = np.square(values)
    assert abs(squares.mean() - exact) <= 4 * squares.std() / 10


def test_a_single_step_has_no_second_moment():
    assert frobenius_norm(stored(operator(BULK), steps=1)) is None
    alone = frobenius_norm(stored(operator(BULK), probes=1))
    assert alone.standard_error is None


def test_stable_rank_is_of_the_largest_magnitude():
    spectrum = np.array([3.0, 1.0, -6.0])
    data = stored(operator(spectrum), top=1, smallest=1, steps=3, probes=3)
    rank = stable_rank(data)
    assert abs(rank.value - 46 / 36) <= 4 * rank.standard_error
    assert negative_ratio(data)[0] == pytest.approx(2.0)


@pytest.mark.parametrize("c", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize("steps", [4, 12, 60])
def test_effective_dimension_lies_between_its_bounds(c, steps):
    spectrum = np.concatenate([[50.0, 20.0], np.arange(1, 200) ** -1.5, np.zeros(50)])
    matrix, size = operator(spectrum), len(spectrum)
    exact = (spectrum / (spectrum + c)).sum()
    data = stored(matrix, steps=steps, probes=8)
    found = effective_dimension(data.density, size, c, tolerance=1e-9)
    assert found.lower.value <= found.upper.value * (1 + 1e-9)
    assert found.lower.value - 4 * found.lower.standard_error <= exact
    assert exact <= found.upper.value + 4 * found.upper.standard_error
    if steps == 60 and c >= 0.1:
        assert found.upper.value - found.lower.value <= 1e-2 * exact


@pytest.mark.parametrize("steps", [3, 8])
def test_bounds_hold_for_each_probe_exactly(steps):
    """Of one probe, v^T f(A) v itself lies between them: no randomness is left."""
    from isoloss.hessian.operators.vectors import probe_vector

    spectrum, c = np.arange(1, 60) ** -2.0, 0.01
    matrix = operator(spectrum)
    values, vectors = torch.linalg.eigh(matrix.matrix)
    for seed in range(20):
        v = probe_vector(matrix, seed, 0)
        exact = 59 * float((vectors.T @ v).square() @ (values / (values + c)))
        data = stored(matrix, steps=steps, probes=1, seed=seed)
        found = effective_dimension(data.density, 59, c, tolerance=1e-9)
        assert found.lower.value <= exact * (1 + 1e-10) <= found.upper.value * (1 + 2e-10)


def test_effective_dimension_is_of_matrices_without_negative_eigenvalues():
    data = stored(operator([-1.0, 2.0, 3.0]), steps=3)
    assert effective_dimension(data.density, 3, 1.0, tolerance=1e-9) is None


def test_outliers_are_those_that_every_probe_resolves():
    bulk = np.linspace(0, 1, 300)
    spectrum = np.concatenate([bulk, [5.0, 8.0, 20.0]])
    found = bulk_of(stored(operator(spectrum), steps=25).density, 0.95)
    assert found.outliers == 3
    assert abs(found.edge - np.quantile(spectrum, 0.95)) < 0.1
    assert bulk_of(stored(operator(bulk), steps=8).density, 0.95).outliers == 0


def test_what_is_not_finite_has_no_sums():
    data = stored(MatrixOperator(torch.full((3, 3), torch.nan)), steps=2)
    assert frobenius_norm(data) is None
    assert stable_rank(data) is None
    assert bulk_of(data.density) is None
    assert effective_dimension(data.density, 3, 1.0) is None


def test_the_summary_holds_what_follows_and_at_which_c():
    data = stored(operator(SPECTRA["outliers"]), top=2, smallest=1)
    data = dataclasses.replace(data, settings={**data.settings, "population": 100})
    derived = summary(data)["derived"]
    assert derived["effective_dimension"]["c"] == 0.01
    assert derived["effective_dimension"]["lower"]["standard_error"] > 0
    assert derived["bulk"]["level"] == 0.99
    assert derived["stable_rank"]["value"] == stable_rank(data).value
    assert derived["frobenius_norm"] == dataclasses.asdict(frobenius_norm(data))
    assert "derived" not in summary(SpectrumData())
