"""Paths on planes: known coordinates, gradient descent in closed form, losses and distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.landscape.directions import Direction
from isoloss.landscape.directions.pca import (
    component_tensors,
    gram_matrix,
    principal_components,
)
from isoloss.landscape.grid import Grid
from isoloss.landscape.problem import Problem
from isoloss.landscape.surface import Surface
from isoloss.landscape.trajectory import Plane, TrajectoryError, enclosing_axes, path_point

F64 = torch.float64
SHAPES = {"conv": (4, 2, 3, 3), "linear": (5, 7), "bias": (5,), "scale": ()}


def tensors(seed, dtype=F64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        n: (scale * torch.randn(s, generator=generator, dtype=F64)).to(dtype)
        for n, s in SHAPES.items()
    }


def combined(*terms):
    return {name: sum(c * t[name] for c, t in terms) for name in SHAPES}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
@pytest.mark.parametrize("mix", [0.0, 0.9, -0.999])
def test_coordinates_on_oblique_axes_of_any_length_are_known(scale, mix):
    origin, x, other = tensors(0), tensors(1, scale=scale), tensors(2)
    y = combined((mix / scale, x), (1.0, other))  # not orthogonal to x, nor of its length
    plane = Plane(origin, [Direction(x, "loaded"), Direction(y, "loaded")])
    away = tensors(3)
    basis = Plane(combined((0.0, origin)), [Direction(x, "a"), Direction(other, "b")])
    for _ in range(2):  # what is left of it is orthogonal to the plane, twice to rounding
        a, b = basis.project(away).coordinates
        away = combined((1.0, away), (-a, x), (-b, other))
    size = sum(float(t.square().sum()) for t in away.values()) ** 0.5
    for a, b, off in ((0.0, 0.0, 0.0), (-2.5, 0.75, 0.0), (0.3, -4.0, 2.0)):
        found = plane.project(combined((1.0, origin), (a, x), (b, y), (off, away)))
        # Condition of the Gram matrix: 1 / (1 - cos^2), 500 at most here.
        assert found.coordinates == pytest.approx((a, b), rel=1e-10, abs=1e-10)
        assert found.distance == pytest.approx(off * size, rel=1e-10, abs=1e-10)
        inside = combined((a, x), (b, y), (off, away))
        length = sum(float(t.square().sum()) for t in inside.values()) ** 0.5
        assert found.from_origin == pytest.approx(length, rel=1e-12)


def test_two_dot_products_would_give_other_coordinates():
    origin, x = tensors(0), tensors(1)
    y = combined((0.5, x), (1.0, tensors(2)))
    found = Plane(origin, [Direction(x, "a"), Direction(y, "b")]).project(
        combined((1.0, origin), (1.0, y))
    )
    assert found.coordinates == pytest.approx((0.0, 1.0), abs=1e-12)


def test_float32_points_are_projected_in_float64():
    origin, x, y = (tensors(i, torch.float32) for i in range(3))
    point = {n: (origin[n] + 0.25 * x[n] - 2.0 * y[n]) for n in SHAPES}
    found = Plane(origin, [Direction(x, "a"), Direction(y, "b")]).project(point)
    # The point itself is rounded to float32.
    assert found.coordinates == pytest.approx((0.25, -2.0), abs=3e-7)
    assert found.distance < 1e-6


def test_one_direction_makes_a_line():
    origin, x = tensors(0), tensors(1)
    found = Plane(origin, [Direction(x, "a")]).project(combined((1.0, origin), (3.0, x)))
    assert found.coordinates == pytest.approx((3.0,), rel=1e-14)


@pytest.mark.parametrize("case", ["parallel", "zero"])
def test_directions_without_a_plane_are_refused(case):
    x = tensors(1)
    y = combined((-2.0 if case == "parallel" else 0.0, x))
    with pytest.raises(TrajectoryError, match="that span a plane"):
        Plane(tensors(0), [Direction(x, "a"), Direction(y, "b")])


class Bowl(nn.Module):
    """L(w) = mean_i (x_i . w - y_i)^2 with w of six entries."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([list(w)], dtype=F64))

    def forward(self, x):
        return x @ self.w.T


def bowl(w):
    """A problem with Hessian 2 diag(curvatures) and its minimum at 1."""
    curvatures = torch.tensor([8.0, 3.0, 1.0, 0.5, 0.25, 0.1], dtype=F64)
    x = torch.diag((6 * curvatures).sqrt())
    return Problem(Bowl(w), nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))], dtype=F64), curvatures


def descent(start, curvatures, rate, steps):
    """w_t = 1 + (1 - 2 rate c)^t (w_0 - 1), entry by entry."""
    factor = 1 - 2 * rate * curvatures.numpy()
    return [1 + factor**t * (np.array(start) - 1) for t in range(steps)]


def test_gradient_descent_on_a_quadratic_lies_on_its_analytic_path():
    # Displaced along two axes, the path stays in their plane; its principal components span it.
    start = [1.8, 1.0, 3.0, 1.0, 1.0, 1.0]
    _, curvatures = bowl(start)
    path = descent(start, curvatures, 0.05, 12)
    weights = [{"w": torch.tensor(w[None], dtype=F64)} for w in path]
    problem, _ = bowl(path[-1])
    points = [lambda one=one: one for one in weights]
    components = principal_components(gram_matrix(points, problem.parameters))
    assert len(components.weights) == 2
    assert components.ratios[:2].sum() == pytest.approx(1.0, abs=1e-14)
    made = [component_tensors(points, problem.parameters, components, k) for k in (0, 1)]
    # Any axes of the plane do: these are neither orthogonal nor of norm 1.
    x = Direction({"w": 0.5 * made[0]["w"]}, "pca")
    y = Direction({"w": 2.0 * made[1]["w"] + 0.3 * made[0]["w"]}, "pca")
    surface = Surface(problem, Grid.parse("-1:1:3", "-1:1:3"), [x, y])
    plane = Plane(problem.parameters, [x, y])
    axes = np.array([x.tensors["w"][0].numpy(), y.tensors["w"][0].numpy()]).T
    for w, point in zip(path, weights, strict=True):
        found = path_point(surface, plane, point, "train")
        expected, *_ = np.linalg.lstsq(axes, w - path[-1], rcond=None)
        assert found.projection.coordinates == pytest.approx(expected, abs=1e-12)
        assert found.projection.distance < 1e-14
        loss = float(np.sum(curvatures.numpy() * (w - 1) ** 2))
        assert found.loss == pytest.approx(loss, rel=1e-12, abs=1e-15)
        assert found.plane_loss == pytest.approx(loss, rel=1e-10, abs=1e-14)


def test_a_path_that_leaves_the_plane_has_another_loss_there():
    problem, curvatures = bowl([1.0] * 6)
    axes = [torch.zeros(1, 6, dtype=F64) for _ in range(2)]
    axes[0][0, 0] = axes[1][0, 1] = 1.0
    directions = [Direction({"w": axis}, "loaded") for axis in axes]
    surface = Surface(problem, Grid.parse("-1:1:3", "-1:1:3"), directions)
    point = {"w": torch.tensor([[1.5, 0.0, 3.0, 1.0, 1.0, 1.0]], dtype=F64)}
    found = path_point(surface, Plane(problem.parameters, directions), point, "train")
    assert found.projection.coordinates == pytest.approx((0.5, -1.0))
    assert found.projection.distance == pytest.approx(2.0)
    assert found.projection.from_origin == pytest.approx((0.25 + 1 + 4) ** 0.5)
    on_plane = float(curvatures[0] * 0.25 + curvatures[1])
    assert found.plane_loss == pytest.approx(on_plane, rel=1e-12)
    assert found.loss == pytest.approx(on_plane + 4 * float(curvatures[2]), rel=1e-12)


def test_each_point_has_its_own_running_statistics_and_the_plane_those_of_theta0():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    x, y = torch.randn(20, 4, dtype=F64), torch.randint(3, (20,))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = nn.functional.cross_entropy(model.eval()(x), y).item()
    model.train()(3 * x + 1)  # moves the statistics alone
    problem = Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64)
    generator = torch.Generator().manual_seed(1)
    directions = [
        Direction(
            {n: torch.randn(p.shape, generator=generator, dtype=F64)
             for n, p in problem.parameters.items()}, "random")
        for _ in range(2)
    ]  # fmt: skip
    surface = Surface(problem, Grid.parse("-1:1:3", "-1:1:3"), directions)
    found = path_point(surface, Plane(problem.parameters, directions), before, "train")
    assert found.projection.coordinates == (0.0, 0.0)
    assert found.loss == pytest.approx(own, rel=1e-12)
    assert found.plane_loss == problem.evaluate().loss
    assert abs(found.loss - found.plane_loss) > 0.005


@pytest.mark.parametrize("scale", [1e-5, 0.037, 1.0, 812.0])
@pytest.mark.parametrize("shape", ["wide", "straight", "tall", "one point", "theta0 alone"])
def test_axes_hold_the_paths_and_theta0_with_round_ends(scale, shape):
    points = {
        "wide": [(3.0, 1.0), (-1.5, 2.0), (9.0, -0.5)],
        "straight": [(1.0, 0.0), (7.0, 0.0)],
        "tall": [(0.5, -8.0)],
        "one point": [(2.0, 2.0)],
        "theta0 alone": [(0.0, 0.0)],
    }[shape]
    points = scale * np.array(points)
    ends = enclosing_axes(points)
    lengths = [high - low for low, high in ends]
    # The shorter is half of the longer, margins and rounding apart.
    assert max(lengths) < 2 * min(lengths)
    longest = np.ptp(np.vstack([points, np.zeros(2)]), axis=0).max() or 2.0
    for (low, high), column in zip(ends, points.T, strict=True):
        assert low + 0.099 * longest <= min(0.0, column.min())
        assert max(0.0, column.max()) <= high - 0.099 * longest
        assert high - low <= 1.35 * longest
        assert low == float(f"{low:.4g}")  # few digits
