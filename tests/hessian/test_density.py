from __future__ import annotations

import math

import pytest
import torch

from isoloss.hessian.density import probe_vector, spectral_density
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import OperatorError

DOUBLE = torch.float64


def operator_with(spectrum, seed=0):
    values = torch.as_tensor(spectrum, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=DOUBLE))
    matrix = q @ torch.diag(values) @ q.T
    return MatrixOperator((matrix + matrix.T) / 2)


def exact_measure(operator, seed, probe):
    """Eigenvalues and the squared components of the probe along them."""
    values, vectors = torch.linalg.eigh(operator.matrix)
    return values, (vectors.T @ probe_vector(operator, seed, probe)).square()


BULK = (torch.randn(95, generator=torch.Generator().manual_seed(2), dtype=DOUBLE) * 0.3).tolist()
SPECTRA = {
    "outliers": [50, 30, 20, 10, 8, *BULK],
    "indefinite": torch.linspace(-3, 5, 60, dtype=DOUBLE).tolist(),
    "low-rank": [8.0, 3.0, 1.0] + [0.0] * 57,
    "repeated": [2.0] * 30 + [-1.0] * 30,
    "small": [3.0, 2.0, -1.0],
}


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("name", SPECTRA)
def test_quadrature_has_the_moments_of_the_probes_measure(name, steps):
    operator = operator_with(SPECTRA[name])
    density = spectral_density(operator, probes=3, steps=steps, seed=9)
    scale = float(torch.linalg.matrix_norm(operator.matrix, 2))
    for probe in range(3):
        values, weights = exact_measure(operator, 9, probe)
        # Gauss quadrature of m nodes is exact to degree 2 m - 1; relative to norm^degree rounding
        # grows at most linearly with the degree: 40 * 1e-16 and room.
        for degree in range(2 * density.nodes.shape[1]):
            expected = (weights * (values / scale) ** degree).sum()
            found = (density.weights[probe] * (density.nodes[probe] / scale) ** degree).sum()
            assert abs(float(expected - found)) < 1e-10


@pytest.mark.parametrize("name", SPECTRA)
def test_weights_of_every_probe_sum_to_one(name):
    density = spectral_density(operator_with(SPECTRA[name]), probes=4, steps=25)
    assert (density.weights >= 0).all()
    # Squares of one row of an orthogonal matrix of order 25.
    assert torch.allclose(density.weights.sum(1), torch.ones(4, dtype=DOUBLE), rtol=0, atol=1e-13)
    assert (density.nodes.diff(dim=1) >= 0).all()


def test_weights_at_isolated_eigenvalues_are_the_probes_components():
    operator = operator_with(SPECTRA["outliers"])
    density = spectral_density(operator, probes=3, steps=45, seed=1)
    for probe in range(3):
        values, weights = exact_measure(operator, 1, probe)
        # The five outliers have converged: their Ritz vectors are eigenvectors to rounding.
        assert torch.allclose(density.nodes[probe, -5:], values[-5:], rtol=1e-10)
        assert torch.allclose(density.weights[probe, -5:], weights[-5:], rtol=0, atol=1e-8)


def test_early_breakdown_is_exact_and_padded_with_weight_zero():
    operator = operator_with(SPECTRA["low-rank"])
    density = spectral_density(operator, probes=2, steps=10)
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        assert nodes[:4].tolist() == pytest.approx([0, 1, 3, 8], abs=1e-12)
        assert (nodes[4:] == nodes[3]).all()
        assert (weights[4:] == 0).all()
    assert density.products == 8


def test_steps_are_cut_to_the_size_and_the_spectrum_is_then_complete():
    density = spectral_density(operator_with(SPECTRA["small"]), probes=2, steps=60)
    assert density.steps == 3
    assert density.nodes[0].tolist() == pytest.approx([-1, 2, 3], rel=1e-13)


@pytest.mark.parametrize("bandwidth", [None, 1e-4, 0.3])
@pytest.mark.parametrize("spectrum", [*SPECTRA.values(), [0.0] * 5, [-7.0]], ids=str)
def test_curve_integrates_to_one(spectrum, bandwidth):
    density = spectral_density(operator_with(spectrum), probes=3, steps=15, bandwidth=bandwidth)
    step = density.grid[1] - density.grid[0]
    # What the grid cuts off lies beyond 5 bandwidths: 6e-7 at most.
    assert float(density.curve.sum() * step) == pytest.approx(1, abs=1e-6)
    assert (density.low <= density.curve + 1e-12).all()
    assert (density.curve <= density.high + 1e-12).all()


def test_curve_is_the_gaussian_mixture():
    density = spectral_density(operator_with(SPECTRA["indefinite"]), probes=3, steps=8)
    # Stated default: 0.005 of the range.
    span = float(density.nodes.max() - density.nodes.min())
    assert density.bandwidth == pytest.approx(0.005 * span)
    density = spectral_density(
        operator_with(SPECTRA["indefinite"]), probes=3, steps=8, bandwidth=0.5
    )
    offsets = (density.grid[:, None, None] - density.nodes) / 0.5
    kernels = torch.exp(-offsets.square() / 2) / (0.5 * math.sqrt(2 * math.pi))
    curves = (kernels * density.weights).sum(-1)
    # A cell average differs from the midpoint by h^2 / 24 |f''|, h = 0.013, |f''| < 0.8 / 0.5^3.
    for found, expected in (
        (density.curve, curves.mean(1)),
        (density.low, curves.amin(1)),
        (density.high, curves.amax(1)),
    ):
        assert torch.allclose(found, expected, rtol=0, atol=5e-5)


def test_mean_over_probes_approaches_the_spectrum():
    operator = operator_with(SPECTRA["indefinite"])
    density = spectral_density(operator, probes=200, steps=20)
    means = (density.weights * density.nodes).sum(1)
    # Each probe's first moment has the mean tr A / n; 200 of them within 4 standard errors.
    error = float(means.mean()) - float(torch.trace(operator.matrix)) / operator.size
    assert abs(error) < 4 * float(means.std()) / math.sqrt(200)


def test_a_probe_does_not_depend_on_how_many_there_are():
    operator = operator_with(SPECTRA["outliers"])
    few, many = (spectral_density(operator, probes=count, steps=12) for count in (2, 4))
    assert torch.equal(few.nodes, many.nodes[:2])
    assert torch.equal(few.weights, many.weights[:2])


def test_products_that_are_not_finite_are_reported():
    operator = operator_with(SPECTRA["indefinite"])
    operator.matrix = operator.matrix * math.inf
    density = spectral_density(operator, probes=2, steps=5)
    assert density.curve.isnan().all()
    assert "not finite" in density.reason


def test_progress_counts_products():
    seen = []
    spectral_density(
        operator_with(SPECTRA["indefinite"]),
        probes=2,
        steps=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probes": 0}, "probes = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"points": 1}, "points = 1"),
        ({"bandwidth": 0.0}, "bandwidth above 0, got 0.0"),
    ],
)
def test_misuse_is_refused(arguments, message):
    with pytest.raises(OperatorError, match=message):
        spectral_density(operator_with(SPECTRA["small"]), **arguments)
