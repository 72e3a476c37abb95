from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from isoloss.experiments import SpectrumSettings
from isoloss.hessian import HessianOperator, MatrixOperator, ScaledOperator, Spectrum, filter_scale
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.trace import trace
from isoloss.landscape.normalisation import normalise
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import flatten
from isoloss.records.spectra import read_spectrum

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    torch.manual_seed(1)
    layers = (nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Conv1d(3, 2, 2), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(6, 3)).double()


def problem_of(model):
    x = torch.randn(20, 1, 5, generator=generator(), dtype=DOUBLE)
    y = torch.randint(0, 3, (20,), generator=generator(1))
    return Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=DOUBLE)


def dense(problem):
    with HessianOperator(problem) as operator:
        return operator.matmat(torch.eye(operator.size, dtype=DOUBLE))


def rms_of_filters(problem):
    """T entry by entry, written out anew."""
    entries = []
    for name, weight in problem.parameters.items():
        for filter_ in weight:
            size = filter_.numel()
            value = math.sqrt(sum(w * w for w in filter_.flatten().tolist()) / size)
            entries += [0.0 if name.endswith("bias") else value] * size
    return torch.tensor(entries, dtype=DOUBLE)


def rescaled(model, factor):
    """The first layer's filters times `factor` (a number, or one a filter), undone behind it."""
    with torch.no_grad():
        model[0].weight.mul_(factor.view(-1, 1, 1))
        model[0].bias.mul_(factor.flatten())
        model[2].weight.div_(factor.view(1, -1, 1))
    return model


def test_products_are_those_of_the_scaled_matrix():
    matrix = torch.randn(6, 6, generator=generator(), dtype=DOUBLE)
    matrix, scale = matrix + matrix.T, torch.tensor([1.0, 2, 0, 3, 0.5, 1], dtype=DOUBLE)
    expected = torch.diag(scale) @ matrix @ torch.diag(scale)
    operator = ScaledOperator(MatrixOperator(matrix), scale)
    identity = torch.eye(6, dtype=DOUBLE)
    torch.testing.assert_close(operator.matmat(identity), expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(operator.matvec(identity[3]), expected[3], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("scale", [torch.ones(2), torch.tensor([1.0, math.nan, 1.0])])
def test_scales_that_do_not_fit_are_refused(scale):
    with pytest.raises(OperatorError, match=r"expected a scale of shape \(3,\)"):
        ScaledOperator(MatrixOperator(torch.eye(3)), scale)


def test_eigenvalue_and_trace_of_a_network_equal_the_dense_ones():
    problem = problem_of(network())
    scale = rms_of_filters(problem)
    torch.testing.assert_close(filter_scale(problem.parameters), scale, rtol=1e-14, atol=0)
    expected = torch.diag(scale) @ dense(problem) @ torch.diag(scale)
    with HessianOperator(problem) as hessian:
        operator = ScaledOperator(hessian, filter_scale(problem.parameters))
        pairs = top_eigenpairs(operator, 1, tol=1e-10)
        assert float(pairs.eigenvalues[0]) == pytest.approx(
            float(torch.linalg.eigvalsh(expected)[-1]), rel=1e-10
        )
        assert trace(operator).value == pytest.approx(float(expected.trace()), rel=1e-12)


def numbers(problem):
    scale = filter_scale(problem.parameters)
    hessian = dense(problem)
    scaled = torch.diag(scale) @ hessian @ torch.diag(scale)
    return torch.tensor(
        [
            [torch.linalg.eigvalsh(scaled)[-1], scaled.trace()],
            [torch.linalg.eigvalsh(hessian)[-1], hessian.trace()],
        ]
    )


def test_rescaling_a_layer_pair_leaves_the_scaled_numbers_alone():
    before, moved = problem_of(network()), problem_of(rescaled(network(), torch.full((3,), 3.0)))
    assert moved.evaluate().loss == pytest.approx(before.evaluate().loss, rel=1e-13)
    scaled, plain = numbers(moved) / numbers(before)
    torch.testing.assert_close(scaled, torch.ones(2, dtype=DOUBLE).to(scaled), rtol=1e-8, atol=0)
    assert (plain - 1).abs().min() > 0.1


def test_rescaling_single_units_does_not():
    factor = torch.tensor([3.0, 1.0, 0.5])
    before, moved = problem_of(network()), problem_of(rescaled(network(), factor))
    assert moved.evaluate().loss == pytest.approx(before.evaluate().loss, rel=1e-13)
    scaled, _ = numbers(moved) / numbers(before)
    assert (scaled - 1).abs().min() > 1e-3


@pytest.mark.parametrize("drawn", ["gaussian", "filter"])
def test_the_scaled_trace_is_the_mean_curvature_over_filter_normalised_directions(drawn):
    """Filters of 2 to 6 entries: exact normalisation and T g have the same second moments."""
    model = network()
    x = torch.randn(20, 1, 5, generator=generator(), dtype=DOUBLE)
    problem = Problem(model, nn.MSELoss(), [(x, model(x).detach())], dtype=DOUBLE)
    hessian, scale = dense(problem), filter_scale(problem.parameters)
    source, curvatures = generator(5), []
    for _ in range(4000):
        noise = {
            name: torch.randn(w.shape, generator=source, dtype=DOUBLE)
            for name, w in problem.parameters.items()
        }
        if drawn == "gaussian":
            direction = scale * flatten(noise)
        else:
            direction = flatten(normalise(noise, problem.parameters, "filter", "biasbn"))
        curvatures.append(direction @ hessian @ direction)
    found = torch.stack(curvatures)
    error = float(found.std()) / math.sqrt(len(found))
    expected = float((scale.square() * hessian.diagonal()).sum())
    assert error < 0.03 * expected
    assert abs(float(found.mean()) - expected) < 4 * error


def test_covariance_of_a_normalised_filter_is_exact():
    """E d d^T = ||w||^2 / n I on the sphere, by quadrature over the angle for n = 2."""
    weights = torch.tensor([[3.0, 4.0]], dtype=DOUBLE)
    angles = torch.arange(16, dtype=DOUBLE) * 2 * math.pi / 16
    draws = torch.stack([angles.cos(), angles.sin()], dim=1)
    moments = torch.zeros(2, 2, dtype=DOUBLE)
    for draw in draws:
        d = normalise({"w": draw[None]}, {"w": weights})["w"].flatten()
        moments += torch.outer(d, d) / 16
    scale = filter_scale({"w": weights})
    torch.testing.assert_close(moments, torch.diag(scale.square()), rtol=1e-14, atol=1e-14)


SETTINGS = {"top": 1, "trace_budget": 60, "probes": 0, "tol": 1e-9}


def spectrum_of(model, path=None, **settings):
    settings = SpectrumSettings(**{**SETTINGS, **settings})
    return Spectrum(problem_of(model), settings).run(path)


def test_numbers_with_their_errors_in_file_and_summary(tmp_path):
    model = network()
    data = spectrum_of(model, tmp_path / "h.h5")
    scaled = read_spectrum(tmp_path / "h.h5").scaled
    assert scaled == data.scaled
    (eigenvalue, total), _ = numbers(problem_of(model)).tolist()
    assert scaled.eigenvalue == pytest.approx(eigenvalue, rel=1e-6)
    assert scaled.residual <= 1e-9 * eigenvalue
    assert scaled.trace == pytest.approx(total, rel=1e-6)
    assert scaled.trace_standard_error == 0
    assert '"scaled"' in (tmp_path / "h.json").read_text()
    assert read_spectrum(tmp_path / "h.h5").stages == ("eigenpairs", "trace", "scaled")


def test_only_what_is_asked_for():
    assert spectrum_of(network(), trace_budget=0).scaled.trace is None
    assert spectrum_of(network(), top=0).scaled.eigenvalue is None
    assert spectrum_of(network(), top=0, trace_budget=0, probes=1).scaled is None


def test_without_filters_it_says_so(tmp_path):
    model = network()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    spectrum_of(model, tmp_path / "h.h5")
    scaled = read_spectrum(tmp_path / "h.h5").scaled
    assert scaled.eigenvalue is None
    assert scaled.trace is None
    assert "no filter" in scaled.account["reason"]
