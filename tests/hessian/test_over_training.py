"""Curvature at moments of a training: a linear network, whose Hessian is the same everywhere."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.views import dense
from isoloss.hessian.over_training import cold_pairs, curvature_at
from isoloss.landscape import Problem

N, FEATURES, OUTPUTS = 40, 6, 3


def asked(**changes):
    settings = {"operator": "hessian", "top": 2, "tol": None, "max_products": 300}
    settings |= {"trace_error": 0.05, "trace_budget": 0, "seed": 0}
    return SimpleNamespace(**settings | changes)


def linear():
    torch.manual_seed(0)
    x, y = torch.randn(N, FEATURES).double(), torch.randn(N, OUTPUTS).double()
    model = nn.Linear(FEATURES, OUTPUTS, bias=False).double()
    return model, x, y, Problem(model, nn.MSELoss(), [(x, y)], dtype=torch.float64)


def test_a_linear_network_keeps_its_known_curvature():
    model, x, y, problem = linear()
    # L = ||X W^T - Y||^2 / (n m): H = 2 X^T X / (n m) for each of the m outputs.
    expected = torch.linalg.eigvalsh(2 * x.T @ x / (N * OUTPUTS))[-1].item()
    before = None
    for index in range(4):
        with torch.no_grad():
            model.weight += torch.randn_like(model.weight)
            residual = x @ model.weight.T - y
        gradient = 2 * residual.T @ x / (N * OUTPUTS)
        found = curvature_at(problem.at(model), asked(), index=index, before=before)
        assert found.loss == pytest.approx(residual.square().mean().item(), rel=1e-12)
        assert found.gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-10)
        # Each eigenvalue occurs once for each output: the second is a copy of the first.
        assert found.pairs.eigenvalues.tolist() == pytest.approx([expected] * 2, rel=1e-7)
        before = found.pairs


def test_a_shift_adds_to_eigenvalues_and_trace():
    _, x, _, problem = linear()
    trace = 2 * x.square().sum().item() / N
    found = curvature_at(problem, asked(trace_budget=60), shift=0.7)
    plain = curvature_at(problem, asked())
    assert found.pairs.eigenvalues.tolist() == pytest.approx(
        (plain.pairs.eigenvalues + 0.7).tolist(), rel=1e-7
    )
    # 18 parameters: the budget allows the exact diagonal.
    assert found.trace.value == pytest.approx(trace + 0.7 * FEATURES * OUTPUTS, rel=1e-12)
    assert found.trace.standard_error == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_warm_start_finds_the_eigenvalues_of_a_cold_one_and_of_the_dense_matrix(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    x, y = torch.randn(60, 5).double(), torch.randint(3, (60,))
    problem = Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=torch.float64)
    settings = asked(top=3, tol=1e-5, seed=seed)
    before = curvature_at(problem, settings).pairs
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    near = problem.at(model)
    warm = curvature_at(near, settings, index=1, before=before).pairs
    cold = cold_pairs(near, settings)
    expected = torch.linalg.eigvalsh(dense(HessianOperator(near))).flip(0)[:3]
    for pairs in (warm, cold):
        assert pairs.converged
        assert ((pairs.eigenvalues - expected).abs() <= pairs.residuals + 1e-12).all()


def test_a_loss_that_is_not_finite_has_no_curvature():
    model, _, _, problem = linear()
    with torch.no_grad():
        model.weight[0, 0] = math.inf
    found = curvature_at(problem.at(model), asked())
    assert not math.isfinite(found.loss)
    assert found.pairs is None
    assert found.trace is None
    assert math.isnan(found.gradient_norm)
