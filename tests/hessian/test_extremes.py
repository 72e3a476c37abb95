"""Extreme eigenvalues and gradient norms over a plane are those of dense automatic derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isoloss.hessian.extremes import ExtremeEigenvalues
from isoloss.landscape.columns import GradientNorm, LossAndAccuracy
from isoloss.landscape.directions import random_directions
from isoloss.landscape.grid import Grid
from isoloss.landscape.problem import Problem
from isoloss.landscape.surface import Surface
from isoloss.landscape.vectors import flatten, unflatten
from isoloss.records.surfaces import journal_path, read_surface

F64 = torch.float64
MEASURES = [LossAndAccuracy(), GradientNorm(), ExtremeEigenvalues()]
GENERATOR = torch.Generator().manual_seed(1)
X = torch.randn(40, 4, generator=GENERATOR, dtype=F64)
Y = torch.randint(3, (40,), generator=GENERATOR)


def network(*, bn: bool) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(6)] if bn else []
    model = nn.Sequential(nn.Linear(4, 6), *middle, nn.Tanh(), nn.Linear(6, 3)).double()
    if bn:
        model(3 * X + 1)  # running statistics of another sample than the data
    return model.eval()


def dense_loss(model: nn.Sequential, policy: str | None):
    """L as a function of one flat vector, written out: no code of ours takes part in it."""
    names = {name: tensor.detach() for name, tensor in model.named_parameters()}

    def loss(vector: torch.Tensor) -> torch.Tensor:
        first, shift, *scales, last, offset = unflatten(vector, names).values()
        hidden = X @ first.T + shift
        if policy is not None:
            mean, variance = hidden.mean(0), hidden.var(0, correction=int(policy != "train"))
            if policy == "eval":
                mean, variance = model[1].running_mean, model[1].running_var
            hidden = scales[0] * (hidden - mean) / (variance + model[1].eps).sqrt() + scales[1]
        return F.cross_entropy(hidden.tanh() @ last.T + offset, Y)

    return loss


@pytest.mark.parametrize(
    ("policy", "count"), [(None, 7), ("eval", 2), ("train", 2), ("recalibrate", 2)]
)
def test_a_map_is_that_of_dense_derivatives(policy, count):
    model = network(bn=policy is not None)
    problem = Problem(
        model, nn.CrossEntropyLoss(), [(X, Y)], dtype=F64, bn=policy or "eval", bn_batch=40
    )
    directions = random_directions(problem.parameters, ignore="none")
    axis = f"-1:1:{count}"
    surface = Surface(problem, Grid.parse(axis, axis), directions, measures=MEASURES)
    data, loss = surface.run(), dense_loss(model, policy)
    for iy, y in enumerate(data.y):
        for ix, x in enumerate(data.x):
            at = flatten(surface.point_at(x, y))
            found = {name: values[iy, ix] for name, values in data.values.items()}
            assert found["train_loss"] == pytest.approx(loss(at).item(), rel=1e-12)
            slope = torch.func.grad(loss)(at).norm().item()
            assert found["grad_norm"] == pytest.approx(slope, rel=1e-12)
            eigenvalues = torch.linalg.eigvalsh(torch.func.hessian(loss)(at))
            for name, exact in (("min_eig", eigenvalues[0]), ("max_eig", eigenvalues[-1])):
                assert found[name] == pytest.approx(exact.item(), rel=1e-8)
                assert found[f"{name}_residual"] <= 1e-6 * abs(exact)
    assert surface.columns[2:] == [
        "grad_norm", "max_eig", "min_eig", "max_eig_residual", "min_eig_residual",
    ]  # fmt: skip


class InterruptedRunError(Exception):
    pass


def test_a_surface_with_eigenvalues_resumes_to_the_same_bytes(tmp_path):
    def run(path, progress=None):
        problem = Problem(network(bn=False), nn.CrossEntropyLoss(), [(X, Y)])
        directions = random_directions(problem.parameters, 1)
        return Surface(problem, Grid.parse("-1:1:4"), directions, measures=MEASURES).run(
            path, progress
        )

    def interrupt(done, total):
        if done == 3:
            raise InterruptedRunError

    whole, parts = tmp_path / "whole" / "s.h5", tmp_path / "parts" / "s.h5"
    run(whole)
    with pytest.raises(InterruptedRunError):
        run(parts, interrupt)
    assert np.isfinite(read_surface(parts).values["max_eig"]).sum() == 2  # and theta0
    run(parts)
    assert parts.read_bytes() == whole.read_bytes()
    assert not journal_path(parts).exists()


def test_points_that_are_not_finite_are_nan_and_flat_ones_zero():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    problem = Problem(model, nn.CrossEntropyLoss(), [(X, Y)], dtype=F64)
    measure = ExtremeEigenvalues()
    infinite = {name: torch.full_like(t, 1e308) for name, t in problem.parameters.items()}
    assert np.isnan(measure.values({"train": problem}, infinite)).all()
    assert np.isnan(GradientNorm().values({"train": problem}, infinite)).all()

    flat = Problem(model, lambda outputs, targets: 0 * outputs.sum(1), [(X, Y)], dtype=F64)
    assert measure.values({"train": flat}, flat.parameters) == (0.0, 0.0, 0.0, 0.0)
