"""Every kind of direction against closed forms: a quadratic, batch norm, and optimizers' steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.hessian import HessianOperator
from isoloss.landscape.directions import DirectionError, RawDirection, cosine, finish, gaussian
from isoloss.landscape.directions.between import towards
from isoloss.landscape.directions.eigenvector import eigenvector_direction
from isoloss.landscape.directions.gradient import gradient_direction
from isoloss.landscape.directions.pca import (
    component_tensors,
    gram_matrix,
    principal_components,
)
from isoloss.landscape.directions.stored import stored_direction
from isoloss.landscape.directions.update import update_direction
from isoloss.landscape.grid import Grid
from isoloss.landscape.normalisation import NORMALISATIONS, NormalisationError
from isoloss.landscape.problem import Problem
from isoloss.landscape.surface import Surface, SurfaceError
from isoloss.landscape.vectors import flatten, unflatten
from isoloss.records.spectra import EigenpairsData

F64 = torch.float64
N = 10
SHAPES = {"w": (3, 2), "b": (4,)}
RANDOM = np.random.default_rng(5)
FACTOR = RANDOM.normal(size=(N, N))
A = FACTOR @ FACTOR.T - 2 * np.eye(N)  # with eigenvalues of both signs
MINIMUM, THETA, OTHER = RANDOM.normal(size=(3, N))


def as_tensors(vector):
    like = {name: torch.zeros(shape, dtype=F64) for name, shape in SHAPES.items()}
    return unflatten(torch.tensor(vector), like)


class Weights(nn.Module):
    def __init__(self, vector):
        super().__init__()
        for name, tensor in as_tensors(vector).items():
            self.register_parameter(name, nn.Parameter(tensor.clone()))


def quadratic_loss(model, batch):
    away = torch.cat([p.flatten() for p in model.parameters()]) - torch.tensor(MINIMUM)
    return (0.5 * away @ torch.tensor(A) @ away).expand(len(batch["x"]))


def quadratic():
    batch = {"x": torch.zeros(3, 1, dtype=F64)}
    return Problem(Weights(THETA), closure=quadratic_loss, batches=[batch], dtype=F64)


def value(theta):
    return 0.5 * (theta - MINIMUM) @ A @ (theta - MINIMUM)


def eigenpairs():
    values, vectors = np.linalg.eigh(A)
    largest, smallest = vectors.T[::-1][:2], vectors.T[:1]
    stored = [
        {name: np.stack([as_tensors(v.copy())[name].numpy() for v in rows]) for name in SHAPES}
        for rows in (largest, smallest)
    ]
    account = {"converged": True, "reason": ""}
    return EigenpairsData(
        values[::-1][:2].copy(), np.zeros(2), stored[0], values[:1], np.zeros(1), stored[1], account
    )


def drawn(axis):
    """The documented draw: a float32 Gaussian of the generator 2 seed + axis, tensor by tensor."""
    generator = torch.Generator().manual_seed(2 * 3 + axis)
    parts = [
        torch.randn(shape, generator=generator).double().flatten() for shape in SHAPES.values()
    ]
    return torch.cat(parts).numpy()


GRADIENT = A @ (OTHER - MINIMUM)  # of the step that an optimizer took


def updated(problem):
    """The direction of Adam's first step, along any gradient."""
    model = Weights(THETA)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for name, parameter in model.named_parameters():
        parameter.grad = as_tensors(GRADIENT)[name].clone()
    optimizer.step()
    return update_direction(optimizer, dict(model.named_parameters()))


POINTS = [OTHER, MINIMUM, THETA]


def component(problem):
    loads = [lambda one=one: as_tensors(one) for one in POINTS]
    components = principal_components(gram_matrix(loads, problem.parameters))
    return RawDirection(component_tensors(loads, problem.parameters, components, 0), "pca")


def first_axis():
    """The axis of most variance, the point that lies furthest out on it at positive scores."""
    centred = np.array(POINTS) - np.mean(POINTS, axis=0)
    axis = np.linalg.svd(centred)[2][0]
    scores = centred @ axis
    return axis * np.sign(scores[np.abs(scores).argmax()])


# Made by the package, and the same vector from what the kind is, before normalisation.
KINDS = {
    "random": (lambda p: gaussian(p.parameters, 3), lambda: drawn(0)),
    "to": (lambda p: towards(p.parameters, as_tensors(OTHER)), lambda: OTHER - THETA),
    "gradient": (gradient_direction, lambda: A @ (THETA - MINIMUM)),
    "eigen": (
        lambda p: eigenvector_direction(eigenpairs(), 1, p.parameters),
        lambda: np.linalg.eigh(A)[1][:, -2],
    ),
    "smallest": (
        lambda p: eigenvector_direction(eigenpairs(), -1, p.parameters),
        lambda: np.linalg.eigh(A)[1][:, 0],
    ),
    "file": (
        lambda p: stored_direction(
            [t.numpy() for t in as_tensors(OTHER).values()], [p.parameters], p.parameters
        ),
        lambda: OTHER,
    ),
    # Adam's first step: m / (1 - b1) = g and v / (1 - b2) = g^2.
    "update": (updated, lambda: -0.05 * GRADIENT / (np.abs(GRADIENT) + 1e-8)),
    "pca": (component, first_axis),
}


def filters(vector):
    """The filters of a vector: rows of w, then b as one."""
    return [vector[0:2], vector[2:4], vector[4:6], vector[6:]]


def layers(vector):
    return [vector[:6], vector[6:]]


def scaled(direction, rule):
    """Normalise by the rules' definitions, independent of the package."""
    norm = np.linalg.norm
    if rule == "none":
        return direction
    if rule == "weight":
        return direction * np.abs(THETA)
    if rule == "model":
        return direction * norm(THETA) / norm(direction)
    cut = filters if "filter" in rule else layers
    unit = rule.startswith("d")
    pairs = zip(cut(direction), cut(THETA), strict=True)
    return np.concatenate([d / norm(d) * (1 if unit else norm(w)) for d, w in pairs])


@pytest.mark.parametrize("rule", NORMALISATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_rule_has_its_closed_form_at_every_point(kind, rule):
    problem = quadratic()
    make, vector = KINDS[kind]
    made = finish([make(problem)], problem.parameters, normalisation=rule, ignore="none")
    data = Surface(problem, Grid.parse("-1:1.5:6"), made).run()
    expected = [value(THETA + x * scaled(vector(), rule)) for x in data.x]
    np.testing.assert_allclose(data.values["train_loss"], expected, rtol=1e-10, atol=1e-10)


def test_defaults_are_those_of_the_kind():
    problem = quadratic()
    random, to = finish(
        [gaussian(problem.parameters), towards(problem.parameters, as_tensors(OTHER))],
        problem.parameters,
    )
    assert (random.normalisation, random.ignore) == ("filter", "biasbn")
    assert not random.tensors["b"].any()
    assert (to.normalisation, to.ignore, to.orthogonal) == ("none", "none", False)
    np.testing.assert_allclose(flatten(to.tensors).numpy(), OTHER - THETA, rtol=1e-15)
    # The random one gives way, on whichever axis it is.
    assert random.orthogonal
    assert abs(cosine(random, to)) < 1e-12


@pytest.mark.parametrize("length", [1e-9, 1.0, 1e9])
def test_a_random_direction_is_made_orthogonal_to_a_fixed_one_of_any_length(length):
    problem = quadratic()
    fixed = RawDirection(as_tensors(length * OTHER), "file")
    x, y = finish([fixed, gaussian(problem.parameters, 0, 1)], problem.parameters)
    np.testing.assert_array_equal(flatten(x.tensors).numpy(), length * OTHER)
    assert abs(cosine(x, y)) < 1e-12
    for mine, weights in zip(filters(flatten(y.tensors)), filters(THETA), strict=True):
        assert float(mine.norm()) == pytest.approx(np.linalg.norm(weights) * (len(mine) == 2))
    x, y = finish([fixed, gaussian(problem.parameters, 0, 1)], problem.parameters, orthogonal=False)
    assert abs(cosine(x, y)) > 1e-3


def test_a_plane_of_eigenvectors_curves_by_their_eigenvalues():
    problem = quadratic()
    raw = [eigenvector_direction(eigenpairs(), k, problem.parameters) for k in (0, 1)]
    data = Surface(problem, Grid.parse("-1:1:3", "-1:1:3"), finish(raw, problem.parameters)).run()
    loss, values = data.values["train_loss"], np.linalg.eigvalsh(A)
    assert loss[1, 2] - 2 * loss[1, 1] + loss[1, 0] == pytest.approx(values[-1], rel=1e-9)
    assert loss[2, 1] - 2 * loss[1, 1] + loss[0, 1] == pytest.approx(values[-2], rel=1e-9)
    mixed = (loss[2, 2] - loss[2, 0] - loss[0, 2] + loss[0, 0]) / 4
    assert mixed == pytest.approx(0, abs=1e-9)
    assert data.cosine == pytest.approx(0, abs=1e-12)


def test_a_plane_through_three_checkpoints_has_their_losses():
    problem, third = quadratic(), RANDOM.normal(size=N)
    raw = [towards(problem.parameters, as_tensors(v), str(i)) for i, v in enumerate((OTHER, third))]
    data = Surface(problem, Grid.parse("0:1:2", "0:1:2"), finish(raw, problem.parameters)).run()
    found = data.values["train_loss"][[0, 0, 1], [0, 1, 0]]
    np.testing.assert_allclose(found, [value(v) for v in (THETA, OTHER, third)], rtol=1e-12)
    a, b = OTHER - THETA, third - THETA
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert data.cosine == pytest.approx(expected, rel=1e-12)
    assert not any(recipe["orthogonal"] for recipe in data.settings["directions"].values())


def test_what_is_no_direction_is_refused():
    problem = quadratic()
    theta = problem.parameters
    to = towards(theta, as_tensors(OTHER))
    with pytest.raises(DirectionError, match="the other weights are the same"):
        finish([towards(theta, theta)], theta)
    twice = RawDirection(as_tensors(2 * (THETA - OTHER) + 1e-3 * OTHER), "file")
    with pytest.raises(DirectionError, match=r"cosine of -1\.000000, which are parallel"):
        finish([to, twice], theta)
    with pytest.raises(DirectionError, match="NaN or infinity in b"):
        finish([towards(theta, {**theta, "b": torch.full((4,), torch.nan)})], theta)
    broken = {**theta, "w": torch.full((3, 2), torch.inf, dtype=F64)}
    with pytest.raises(DirectionError, match="finite weights"):
        finish([gaussian(theta)], broken)
    with pytest.raises(NormalisationError, match="'biasbn' leaves none"):
        finish([RawDirection(as_tensors(np.r_[np.zeros(6), np.ones(4)]), "file")], theta,
               ignore="biasbn")  # fmt: skip
    with pytest.raises(
        DirectionError, match=r"b missing, w \(1, 2\) in place of \(3, 2\)"
    ) as error:
        towards({"b": theta["b"], "w": theta["w"]}, {"w": torch.ones(1, 2)})
    assert len(str(error.value).splitlines()) <= 3
    with pytest.raises(DirectionError, match="0 to 1 and -1 to -1, got 2"):
        eigenvector_direction(eigenpairs(), 2, theta)
    with pytest.raises(DirectionError, match="2 tensors that the surface moves, got one by 2"):
        eigenvector_direction(eigenpairs(), 0, {"w": theta["w"], "c": theta["b"]})
    with pytest.raises(DirectionError, match=r"2 of them, \(3, 2\) the first, got 1, \(3,\)"):
        stored_direction([np.ones(3)], [theta], theta)
    part = finish([RawDirection({"w": theta["w"]}, "file")], theta)
    with pytest.raises(SurfaceError, match="names and shapes"):
        Surface(problem, Grid.parse("0:1:2"), part)


# Batch norm: what x = 1 is, with buffers and without.


def batch_norm_net(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(seed)) * (1 + seed)
    for _ in range(20):
        model(x + seed)
    return model.eval()


X = torch.randn(30, 3, generator=torch.Generator().manual_seed(9))
Y = (X.sum(1) > 0).long()


def problem_of(model, bn="eval", dtype=torch.float32):
    return Problem(model, nn.CrossEntropyLoss(), [(X, Y)], bn=bn, bn_batch=10, dtype=dtype)


def plane_to(problem, *others, buffers=True):
    start = {**problem.parameters, **(problem.buffers if buffers else {})}
    raw = [towards(start, other.state_dict()) for other in others]
    grid = Grid.parse("0:1:2", "0:1:2" if len(others) == 2 else None)
    return Surface(problem, grid, finish(raw, start))


@pytest.mark.parametrize("bn", ["eval", "train", "recalibrate"])
def test_another_checkpoint_lies_at_one_with_its_buffers(bn):
    start, *others = (batch_norm_net(seed) for seed in (0, 1, 2))
    problem = problem_of(start, bn)
    expected = [problem_of(model, bn).evaluate().loss for model in (start, *others)]
    loss = plane_to(problem, *others).run().values["train_loss"]
    np.testing.assert_allclose([loss[0, 0], loss[0, 1], loss[1, 0]], expected, rtol=1e-6)
    assert bool(problem.buffers) is (bn == "eval")
    if bn == "eval":
        assert set(problem.buffers) == {"1.running_mean", "1.running_var"}
        still = plane_to(problem, *others, buffers=False).run().values["train_loss"]
        assert abs(still[0, 1] - expected[1]) > 1e-3


def test_buffers_move_linearly_and_counts_stay():
    start, other = batch_norm_net(0), batch_norm_net(1)
    surface = plane_to(problem_of(start), other)
    point = surface.point_at(0.25)
    for name in ("1.running_var", "0.weight"):
        a, b = start.state_dict()[name], other.state_dict()[name]
        torch.testing.assert_close(point[name], 0.75 * a + 0.25 * b)
    assert "1.num_batches_tracked" not in point
    assert list(point)[-2:] == ["1.running_mean", "1.running_var"]


def test_gradient_and_products_at_a_point_with_buffers_are_by_parameters_alone():
    start, other = batch_norm_net(0), batch_norm_net(1)
    problem = problem_of(start, dtype=F64)
    there = problem.at(other)
    point = {**there.parameters, **there.buffers}
    assert problem.evaluate(point) == there.evaluate()
    found, expected = problem.gradient(point), there.gradient()
    assert found.keys() == problem.parameters.keys()
    torch.testing.assert_close(flatten(found), flatten(expected), rtol=0, atol=0)
    v = torch.ones(sum(t.numel() for t in problem.parameters.values()), dtype=F64)
    product = HessianOperator(problem, at=point).matvec(v)
    torch.testing.assert_close(product, HessianOperator(there).matvec(v), rtol=1e-13, atol=0)


def test_random_directions_of_states_move_buffers_unless_ignored():
    problem = problem_of(batch_norm_net(0))
    start = {**problem.parameters, **problem.buffers}
    plain, states = gaussian(problem.parameters, 4), gaussian(start, 4)
    # The parameters' draws are the same.
    assert all(torch.equal(plain.tensors[n], states.tensors[n]) for n in plain.tensors)
    (kept,) = finish([states], start)
    assert not kept.tensors["1.running_mean"].any()
    (moved,) = finish([states], start, ignore="none")
    norms = [moved.tensors["1.running_mean"].norm(), problem.buffers["1.running_mean"].norm()]
    torch.testing.assert_close(*norms)


def test_arrays_in_the_order_of_parameters_or_of_the_state_dictionary():
    model, other = batch_norm_net(0), batch_norm_net(1)
    problem = problem_of(model)
    moved = {**problem.parameters, **problem.buffers}
    layouts = [problem.parameters, model.state_dict()]
    state = {name: tensor.numpy() for name, tensor in other.state_dict().items()}
    assert state["1.num_batches_tracked"].shape == ()
    whole = stored_direction(list(state.values()), layouts, moved).tensors
    assert list(whole) == list(moved)
    assert all(np.array_equal(tensor.numpy(), state[name]) for name, tensor in whole.items())
    weights = [state[name] for name in problem.parameters]
    assert list(stored_direction(weights, layouts, moved).tensors) == list(problem.parameters)


def test_a_grid_with_negative_variances_is_refused_and_the_sound_part_named():
    start, other = batch_norm_net(0), batch_norm_net(1)
    problem = problem_of(start)
    point = {**problem.parameters, **problem.buffers}
    made = finish([towards(point, other.state_dict())], point)
    with pytest.raises(
        DirectionError, match=r"running variances of 0 or more.*1\.running_var"
    ) as e:
        Surface(problem, Grid.parse("-20:20:3"), made)
    text = str(e.value).split("take x within ")[1].split(",")[0]
    low, high = map(float, text.split(":"))
    Surface(problem, Grid.parse(f"{low}:{high}:3"), made)
    v, d = (t["1.running_var"].double() for t in (point, made[0].tensors))
    bound = float((v / d.abs())[d > 0].min()) if (d > 0).any() else 20
    assert low == pytest.approx(-min(bound, 20), rel=2e-3)
    with pytest.raises(DirectionError, match="running variances"):
        Surface(problem, Grid.parse(f"{low - 0.01 * abs(low)}:0:3"), made)
    both = finish([towards(point, batch_norm_net(s).state_dict()) for s in (1, 2)], point)
    with pytest.raises(DirectionError, match=r"take x within .* and y within") as e:
        Surface(problem, Grid.parse("-20:20:3", "-20:20:3"), both)
    words = str(e.value).split("take x within ")[1].split(",")[0].split(" and y within ")
    Surface(problem, Grid.parse(*(f"{word}:3" for word in words)), both)


# The last step of optimizers, against the difference that real steps make.

STEPS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-3),
    "adam with decay": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.3),
    "adam, largest": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True, betas=(0.9, 0.5)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.4),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.02, momentum=0.7),
}


def steps(optimizer, model, count=5):
    x = X.double()
    for step in range(count):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.param_groups[0]["lr"] *= 0.9  # as a schedule does, before each step
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x * (1 + step)), Y).backward()
        optimizer.step()
    return before


@pytest.mark.parametrize("name", STEPS)
def test_the_update_is_what_the_last_step_did(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    optimizer = STEPS[name](model.parameters())
    before = steps(optimizer, model)
    made = update_direction(optimizer, dict(model.named_parameters()))
    for key, parameter in model.named_parameters():
        expected = parameter.detach() - before[key]
        assert expected.abs().min() > 1e-8
        torch.testing.assert_close(made.tensors[key], expected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), "keeps nothing"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "Nesterov"),
        (lambda p: torch.optim.RMSprop(p, lr=0.1), "without momentum"),
    ],
)
def test_steps_that_no_state_tells_are_refused(make, why):
    model = nn.Linear(3, 2).double()
    optimizer = make(model.parameters())
    steps(optimizer, model, 1)
    with pytest.raises(DirectionError, match=why):
        update_direction(optimizer, dict(model.named_parameters()))
    with pytest.raises(DirectionError, match="keeps nothing"):
        update_direction(make(model.parameters()), dict(model.named_parameters()))
