"""The whole spectrum of small networks, against dense autodiff; estimates against the exact."""

from __future__ import annotations

import json
import math

import h5py
import numpy as np
import pytest
import torch

from isoloss import cli
from isoloss.experiments import SpectrumSettings
from isoloss.figures.density import density_figure
from isoloss.hessian import (
    HessianOperator,
    MatrixOperator,
    Spectrum,
    filter_scale,
    spectral_density,
    stages,
    top_eigenpairs,
)
from isoloss.hessian.exact import exact_bytes, exact_spectrum
from isoloss.hessian.operators import views
from isoloss.hessian.operators.named import OPERATORS, named_operator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.landscape import memory
from isoloss.landscape.vectors import flatten, unflatten
from isoloss.records.spectra import read_spectrum
from isoloss.records.summary import mass_below, summary
from tests.hessian.test_hessian_operator import build, dense

ALL = ("exact", "eigenpairs", "trace", "scaled", "density")


def spectrum(name="tanh-mlp", operator="hessian", seed=0, **options):
    settings = SpectrumSettings(operator=operator, exact=True, top=3, **options)
    return Spectrum(build(name, seed=seed), settings)


def functional_hessian(problem):
    """The Hessian of the mean loss by torch.func, as an independent derivation."""

    def loss(vector):
        point = unflatten(vector, problem.parameters)
        parts = [problem.loss_sum(point, batch) for batch in problem.micro_batches(problem.count)]
        return sum(parts) / problem.count

    return torch.func.hessian(loss)(flatten(problem.parameters))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_numbers_are_those_of_the_dense_hessian(tmp_path, seed):
    task = spectrum(seed=seed)
    problem = task.problem
    task.run(tmp_path / "h.h5")
    data = read_spectrum(tmp_path / "h.h5")
    matrix = functional_hessian(problem)
    values = torch.linalg.eigvalsh(matrix)
    atol = 1e-8 * values.abs().max().item()
    close = {"rtol": 0, "atol": atol}
    assert data.stages == ALL
    np.testing.assert_allclose(data.exact.eigenvalues, values.flip(0), **close)
    np.testing.assert_allclose(data.eigenpairs.eigenvalues, values.flip(0)[:3], **close)
    np.testing.assert_allclose(data.eigenpairs.smallest_eigenvalues, values[:1], **close)
    assert data.eigenpairs.residuals.max() < 1e-12
    assert data.trace.estimate == pytest.approx(matrix.trace().item(), abs=atol)
    assert data.trace.standard_error == 0
    scale = filter_scale(problem.parameters)
    scaled = scale[:, None] * matrix * scale
    top = torch.linalg.eigvalsh(scaled)[-1].item()
    assert data.scaled.eigenvalue == pytest.approx(top, abs=atol)
    assert data.scaled.trace == pytest.approx(scaled.trace().item(), abs=atol)
    assert task.products == len(values)  # the matrix is made once


def test_residuals_are_those_of_the_stored_vectors(tmp_path):
    task = spectrum()
    pairs = task.run().eigenpairs
    matrix = functional_hessian(task.problem).numpy()
    vectors = np.concatenate([a.reshape(3, -1) for a in pairs.eigenvectors.values()], axis=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-12)
    rest = vectors @ matrix - pairs.eigenvalues[:, None] * vectors
    assert np.linalg.norm(rest, axis=1).max() < 1e-12


@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_has_its_own(name):
    found = spectrum(operator=name, probes=0).run()
    matrix = dense(named_operator(build("tanh-mlp"), name))
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    np.testing.assert_allclose(found.exact.eigenvalues, expected, rtol=0, atol=1e-12)
    assert found.stages == ("exact", "eigenpairs", "trace", "scaled")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_estimates_lie_within_their_errors(seed):
    with HessianOperator(build("tanh-mlp", seed=seed)) as operator:
        exact = exact_spectrum(operator)
        pairs = top_eigenpairs(operator, 3, smallest=2, seed=seed)
        density = spectral_density(operator, probes=40, steps=8, seed=seed)
    values = exact.eigenvalues
    ends = (values.flip(0)[:3], pairs.eigenvalues, pairs.residuals)
    smallest = (values[:2], pairs.smallest_eigenvalues, pairs.smallest_residuals)
    for expected, found, residuals in (ends, smallest):
        # The dense ones are known to a few roundings of the norm, 0.7 or so.
        assert bool(((found - expected).abs() <= residuals + 1e-14).all())
    # Gauss quadrature of 8 nodes has the moments of each probe's measure up to degree 15; their
    # mean over probes is that of the spectrum, within 4 standard errors.
    for degree in (1, 2, 3):
        moments = (density.weights * density.nodes**degree).sum(1)
        error = moments.std().item() / math.sqrt(len(moments))
        assert abs(moments.mean() - (values**degree).mean()).item() < 4 * error


def test_the_density_is_that_of_all_eigenvalues():
    data = spectrum().run()
    density, values = data.density, np.sort(data.exact.eigenvalues)
    np.testing.assert_array_equal(density.nodes, values[None])
    width, step = density.account["bandwidth"], density.grid[1] - density.grid[0]
    assert width == pytest.approx(0.005 * np.ptp(values))
    assert density.curve.sum() * step == pytest.approx(1)
    # The mean over a cell is the value at its centre but for step^2 / 24 of the second derivative.
    bumps = np.exp(-0.5 * ((density.grid[:, None] - values) / width) ** 2).mean(1)
    expected = bumps / (width * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(density.curve, expected, atol=2e-2 * expected.max())
    mass = mass_below(density, -0.01)
    assert mass.share == mass.lowest == mass.highest == pytest.approx((values < -0.01).mean())


def test_the_figure_has_all_eigenvalues_and_says_so():
    data = spectrum().run()
    figure = density_figure([("SGD", "sgd", data)])
    note = figure.get_supxlabel().replace("\n", " ")
    assert f"all {len(data.exact.eigenvalues)} eigenvalues" in note
    assert "probe" not in note
    assert "quadrature" not in note
    drawn = [line.get_xdata() for line in figure.axes[0].lines]
    assert any(np.array_equal(x, np.sort(data.exact.eigenvalues)) for x in drawn)


def test_an_interrupted_spectrum_goes_on(tmp_path):
    class Killed(BaseException):
        pass

    def stop(name, done, total):
        raise Killed

    path = tmp_path / "h.h5"
    with pytest.raises(Killed):
        spectrum().run(path, stop)
    assert not path.exists()
    spectrum().run(path)
    again = spectrum()
    again.run(path)
    assert not again.products
    assert h5py.File(path)["exact/eigenvalues"].shape == (again.operator.size,)
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["exact"]["eigenvalues"] == again.operator.size
    assert told["exact"] == summary(read_spectrum(path))["exact"]


def test_products_that_are_not_finite_make_it_nan():
    matrix = torch.eye(3)
    matrix[2, 2] = math.nan
    found = exact_spectrum(MatrixOperator(torch.eye(3)))
    assert found.finite
    operator = MatrixOperator(torch.eye(3))
    operator.matvec = lambda v: matrix @ v
    broken = exact_spectrum(operator)
    assert not broken.finite
    assert "NaN or infinite" in broken.reason
    assert not broken.pairs(1).converged
    assert math.isnan(broken.trace().value)
    assert np.isnan(broken.density().curve).all()


def test_asymmetric_products_show_in_residuals_and_account():
    matrix = torch.tensor([[2.0, 1e-3], [0.0, 1.0]], dtype=torch.float64)
    operator = MatrixOperator(torch.eye(2, dtype=torch.float64))
    operator.matvec = lambda v: matrix @ v
    found = exact_spectrum(operator)
    # The skew part (M - M^T) / 2 takes every unit vector to one of length 5e-4.
    assert found.asymmetry == pytest.approx(5e-4)
    torch.testing.assert_close(found.pairs(2).residuals, torch.full((2,), 5e-4).double())


def test_too_large_a_network_is_refused_beforehand(monkeypatch):
    monkeypatch.setattr(views, "LARGEST_DENSE", 10)
    with pytest.raises(OperatorError, match="at most 10 rows for a dense matrix, got 43"):
        spectrum()
    monkeypatch.setattr(views, "LARGEST_DENSE", 100)
    task = spectrum()
    monkeypatch.setattr(memory, "available", lambda: exact_bytes(43) - 1)
    with pytest.raises(memory.MemoryShortError):
        task.run()
    assert not task.products


def test_from_the_command_line(tmp_path, capsys):
    where = ["--results", str(tmp_path)]
    train = ["train", "--run", "t", "--epochs", "1", "--fraction", "0.1", "--no-figures"]
    assert cli.main([*train, *where]) == 0
    few = ["--samples", "20", "--top", "1", "--parameters", "*.bias", "--no-eigenvectors"]
    assert cli.main(["hessian", "t", "--exact", *few, *where]) == 0
    said = capsys.readouterr().out
    path = tmp_path / "runs" / "t" / "hessian.h5"
    data = read_spectrum(path)
    size = len(data.exact.eigenvalues)
    assert f"all {size} eigenvalues of the dense matrix" in said
    assert "(exact" in said
    assert not data.eigenpairs.eigenvectors
    assert path.with_suffix(".png").is_file()
    assert cli.main(["hessian", "t", "--exact", "--estimate", *few, *where]) == 0
    assert f"{size} products" in capsys.readouterr().out
    # The estimates are another computation: a file of the exact spectrum is not taken for them.
    assert cli.main(["hessian", "t", *few, *where]) == 1
    assert "exact (stored true, now null)" in capsys.readouterr().err


def test_ctrl_c_says_that_the_matrix_is_begun_again(tmp_path, capsys, monkeypatch):
    def interrupted(operator, progress):
        raise KeyboardInterrupt

    where = ["--results", str(tmp_path)]
    train = ["train", "--run", "t", "--epochs", "1", "--fraction", "0.1", "--no-figures"]
    assert cli.main([*train, *where]) == 0
    monkeypatch.setattr(stages, "exact_spectrum", interrupted)
    few = ["--samples", "20", "--parameters", "*.bias"]
    assert cli.main(["hessian", "t", "--exact", *few, *where]) == 1
    said = capsys.readouterr().err
    assert "nothing finished" in said
    assert "goes on with the rest, the dense matrix from its beginning" in said
