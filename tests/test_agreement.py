"""Surface and curvature are two views of one function: they must agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.hessian import HessianOperator
from isoloss.landscape import Axis, Grid, Problem, Surface, random_directions
from isoloss.landscape.vectors import flatten

F64 = torch.float64


def tanh_network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(27, 5), nn.Tanh(), nn.Linear(5, 4),
    ).double()  # fmt: skip


def data(n=23):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, 8, 8, generator=generator, dtype=F64)
    return x, torch.randint(4, (n,), generator=generator)


@pytest.mark.parametrize("policy", ["eval", "train"])
@pytest.mark.parametrize("normalisation", ["filter", "dlayer"])
def test_second_differences_of_the_surface_equal_products_with_the_hessian(policy, normalisation):
    model = tanh_network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    problem = Problem(model, nn.CrossEntropyLoss(), [data()], dtype=F64, bn=policy, bn_batch=10)
    directions = random_directions(
        problem.parameters, 2, normalisation=normalisation, ignore="none", seed=5
    )
    h = 1e-3
    grid = Grid(Axis(-h, h, 3), Axis(-h, h, 3))
    loss = Surface(problem, grid, directions).run().values["train_loss"]
    second_x = (loss[1, 2] - 2 * loss[1, 1] + loss[1, 0]) / h**2
    second_y = (loss[2, 1] - 2 * loss[1, 1] + loss[0, 1]) / h**2
    mixed = (loss[2, 2] - loss[2, 0] - loss[0, 2] + loss[0, 0]) / (4 * h**2)
    matrix = torch.stack([flatten(d.tensors) for d in directions], dim=1)
    with HessianOperator(problem) as hessian:
        expected = (matrix.T @ hessian.matmat(matrix)).numpy()
    measured = np.array([[second_x, mixed], [mixed, second_y]])
    # Truncation h^2/12 f'''' (directions of about the weights' size, or unit layers) and rounding
    # 4 eps/h^2 = 1e-9 are both below 1e-5 of the curvature.
    np.testing.assert_allclose(measured, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_first_differences_equal_the_gradient():
    problem = Problem(tanh_network(), nn.CrossEntropyLoss(), [data()], dtype=F64)
    direction = random_directions(problem.parameters, 1, seed=2)[0]
    h = 1e-5
    loss = Surface(problem, Grid(Axis(-h, h, 3)), [direction]).run().values["train_loss"]
    slope = float(flatten(problem.gradient()) @ flatten(direction.tensors))
    # Truncation h^2/6 f''' and rounding eps/h = 2e-11.
    assert (loss[2] - loss[0]) / (2 * h) == pytest.approx(slope, rel=1e-6, abs=1e-9)
