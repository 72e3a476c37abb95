"""Sharpness against closed forms of quadratics, and under rescaling of ReLU layers."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from isoloss.hessian import HessianOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.views import dense
from isoloss.hessian.relative_flatness import relative_flatness
from isoloss.landscape.problem import Problem
from isoloss.landscape.sharpness import (
    Ball,
    SharpnessError,
    adaptive_ball,
    average_rise,
    euclidean_ball,
    find_relu_pair,
    m_sharpness,
    one_step_rise,
    rescaled,
    worst_rise,
)

F64 = torch.float64
# Of both signs, one 0, and two weights that are 0.
DIAGONAL = torch.tensor([5.0, 3.0, 1.0, 0.2, 0.0, -0.5, -2.0, 0.7, 4.0], dtype=F64)
THETA = torch.tensor([0.3, -0.2, 0.5, 1.0, -2.0, 0.4, 0.0, 0.1, 0.0], dtype=F64)


class Weights(nn.Module):
    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())


def quadratic(diagonal: Tensor = DIAGONAL, slope: float = 0.3) -> Problem:
    """1/2 theta^T D theta + slope sum(theta), alike for each of three samples."""

    def closure(model: nn.Module, batch: Tensor) -> Tensor:
        value = (diagonal * model.theta.square()).sum() / 2 + slope * model.theta.sum()
        return value + 0 * batch

    return Problem(Weights(THETA), closure=closure, batches=[torch.zeros(3, dtype=F64)], dtype=F64)


def largest_on_ball(gradient: Tensor, diagonal: Tensor, radius: float) -> float:
    """max g u + u D u / 2 over ||u|| <= radius, by the secular equation of its multiplier."""

    def length(multiplier: float) -> float:
        return float((gradient / (multiplier - diagonal)).norm()) - radius

    top = float(diagonal.max())
    multiplier = brentq(length, top + 1e-12, top + 1e6, xtol=1e-14)
    u = gradient / (multiplier - diagonal)
    return float(gradient @ u + (diagonal * u.square()).sum() / 2)


BALLS = {
    "l2": lambda radius: euclidean_ball(radius),
    "adaptive": lambda radius: adaptive_ball({"theta": THETA}, radius, eta=0.1),
}


def scale_of(kind: str) -> Tensor:
    return torch.ones_like(THETA) if kind == "l2" else THETA.abs() + 0.1


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("radius", [0.01, 0.3, 2.0])
def test_closed_forms_of_a_quadratic(kind, radius):
    problem, ball, t = quadratic(), BALLS[kind](radius), scale_of(kind)
    g, d = t * (DIAGONAL * THETA + 0.3), t.square() * DIAGONAL
    unit = g / g.norm()
    one_step = radius * g.norm() + radius**2 / 2 * (d * unit.square()).sum()
    assert one_step_rise(problem, ball) == pytest.approx(float(one_step), rel=1e-10)
    exact = largest_on_ball(g, d, radius)
    found = worst_rise(problem, ball, starts=3, steps=40)
    # A lower bound, but for rounding, within 1 % of the largest.
    assert 0.99 * exact < found.value <= exact * (1 + 1e-9)
    assert found.value == max(found.of_starts)
    assert found.value >= float(one_step)
    mean = radius**2 * float(d.sum()) / (2 * len(d))
    estimate = average_rise(problem, ball, draws=400, seed=1)
    assert abs(estimate.value - mean) < 4 * estimate.standard_error
    assert estimate.standard_error < radius**2 * float(d.norm())


def test_the_mean_over_a_sphere_is_exact_where_all_directions_are_alike():
    """T H T = 2, so that each pair rises by rho^2, whatever the gradient."""
    ball = Ball("adaptive", 0.5, 0.0, {"theta": torch.full_like(THETA, 0.5)})
    estimate = average_rise(quadratic(torch.full_like(DIAGONAL, 8.0)), ball, draws=3)
    assert estimate.value == pytest.approx(0.25, rel=1e-12)
    assert estimate.standard_error < 1e-12


def test_weights_of_0_stay_in_an_adaptive_ball():
    ball = adaptive_ball({"theta": THETA}, 1.0)
    moved = ball.displaced({"theta": THETA}, {"theta": torch.ones_like(THETA)})["theta"]
    assert torch.equal(moved == THETA, THETA == 0)


def test_a_search_passes_over_points_without_a_loss():
    def closure(model: nn.Module, batch: Tensor) -> Tensor:
        return torch.sqrt(1 - model.theta.square().sum()) + 0 * batch  # NaN beyond 1

    start = torch.tensor([0.1, 0.2], dtype=F64)
    data = [torch.zeros(2, dtype=F64)]
    problem = Problem(Weights(start), closure=closure, batches=data, dtype=F64)
    found = worst_rise(problem, euclidean_ball(2.0), starts=3, steps=12)
    # The largest value, 1, is at 0.
    assert found.value <= 1 - float(torch.sqrt(1 - start.square().sum())) + 1e-12
    assert found.diverged > 0


def test_m_sharpness_is_the_mean_over_subsets():
    """Losses a_i^T theta: on a subset the rise is rho ||mean a||."""
    a = torch.randn(11, 9, generator=torch.Generator().manual_seed(2), dtype=F64)

    def closure(model: nn.Module, batch: Tensor) -> Tensor:
        return batch @ model.theta

    problem = Problem(Weights(THETA), closure=closure, batches=[a], dtype=F64)
    found = m_sharpness(problem, euclidean_ball(0.3), 3, subsets=100, seed=5)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(5))
    rises = torch.stack([0.3 * a[order[i : i + 3]].mean(0).norm() for i in (0, 3, 6)])
    assert found.count == 3
    assert found.value == pytest.approx(float(rises.mean()), rel=1e-10)
    assert found.standard_error == pytest.approx(float(rises.std()) / 3**0.5, rel=1e-10)
    whole = m_sharpness(problem, euclidean_ball(0.3), 11)
    assert whole.value == pytest.approx(one_step_rise(problem, euclidean_ball(0.3)), rel=1e-12)


def relu_network(norm: bool = False, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(4)
    layers = [nn.Linear(3, 4), *([nn.BatchNorm1d(4)] if norm else []), act(), nn.Linear(4, 4)]
    return nn.Sequential(*layers, act(), nn.Linear(4, 3)).double()


def problem_of(model: nn.Module) -> Problem:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(30, 3, generator=generator, dtype=F64)
    y = torch.randint(0, 3, (30,), generator=generator)
    return Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64)


def test_rescaled_layers_change_what_is_of_the_weights_alone():
    model = relu_network()
    problem = problem_of(model)
    pair = find_relu_pair(model, problem)
    assert (pair.first, pair.second) == ("0", "2")
    a = 5.0
    other = problem.at(rescaled(model, pair, a))
    assert other.evaluate().loss == pytest.approx(problem.evaluate().loss, rel=1e-12)
    both = (problem, other)
    for measure in (one_step_rise, average_rise, worst_rise):
        ours, theirs = (measure(p, adaptive_ball(p.parameters, 0.3)) for p in both)
        ours, theirs = (getattr(value, "value", value) for value in (ours, theirs))
        assert theirs == pytest.approx(ours, rel=1e-8)
    steps = [one_step_rise(p, euclidean_ball(0.05)) for p in both]
    assert abs(steps[1] / steps[0] - 1) > 0.1
    # H' = S H S with S = 1/a on the first layer and a on the second one's weight.
    matrices = [dense(HessianOperator(p)) for p in both]
    factors = {"0.weight": 1 / a, "0.bias": 1 / a, "2.weight": a}
    shape = problem.parameters.items()
    s = torch.cat([torch.full((t.numel(),), factors.get(n, 1.0), dtype=F64) for n, t in shape])
    torch.testing.assert_close(matrices[1], s[:, None] * matrices[0] * s, rtol=1e-8, atol=1e-10)


def test_pairs_with_batch_norm_or_another_activation_are_passed_over():
    model = relu_network(norm=True).eval()
    model[1].running_mean += 0.5
    pair = find_relu_pair(model, problem_of(model))
    assert (pair.first, pair.second) == ("3", "5")
    smooth = relu_network(act=nn.Tanh)
    with pytest.raises(SharpnessError, match="tried 0 and 2, 2 and 4"):
        find_relu_pair(smooth, problem_of(smooth))


@pytest.mark.parametrize("layer", ["0.weight", "2.weight", "4.weight", None])
def test_relative_flatness_is_the_sum_over_pairs_of_rows(layer):
    problem = problem_of(relu_network())
    name = layer or "4.weight"
    weight = problem.parameters[name]
    h = dense(HessianOperator(problem, [name])).reshape(*weight.shape, *weight.shape)
    expected = torch.einsum("sk,tk,sjtj->", weight, weight, h)
    exact = relative_flatness(problem, layer, probes=16)
    assert exact.value == pytest.approx(float(expected), rel=1e-10)
    assert (exact.standard_error, exact.layer) == (0.0, name)
    several = [relative_flatness(problem, layer, probes=8, seed=seed) for seed in range(100)]
    values = torch.tensor([one.value for one in several], dtype=F64)
    assert abs(float(values.mean()) - float(expected)) < 4 * float(values.std()) / 10
    inside = [abs(o.value - float(expected)) < 2 * o.standard_error for o in several]
    assert sum(inside) > 80


def test_relative_flatness_does_not_see_rescaling():
    model = relu_network()
    problem = problem_of(model)
    other = problem.at(rescaled(model, find_relu_pair(model, problem), 7.0))
    for layer in ("0.weight", "2.weight"):
        ours, theirs = (relative_flatness(p, layer, probes=16).value for p in (problem, other))
        assert theirs == pytest.approx(ours, rel=1e-8)


def test_refusals():
    problem = quadratic()
    for call in (
        lambda: euclidean_ball(0.0),
        lambda: adaptive_ball(problem.parameters, 1.0, eta=-1.0),
        lambda: worst_rise(problem, euclidean_ball(1.0), starts=0),
        lambda: average_rise(problem, euclidean_ball(1.0), draws=0),
        lambda: m_sharpness(problem, euclidean_ball(1.0), 4),
    ):
        with pytest.raises(SharpnessError, match="expected"):
            call()
    with pytest.raises(OperatorError, match="expected a weight of two dimensions"):
        relative_flatness(problem)
