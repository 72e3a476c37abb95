"""Parameters that do not move are constants: of the loss, its derivatives and its surfaces."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.landscape.directions import random_directions
from isoloss.landscape.grid import Grid
from isoloss.landscape.problem import Problem
from isoloss.landscape.selection import SelectionError
from isoloss.landscape.surface import Surface, SurfaceError
from isoloss.landscape.vectors import flatten
from isoloss.records.identity import SettingsDifferError

F64 = torch.float64
NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]


def data(count=19):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=generator, dtype=F64)
    return x, torch.randint(4, (count,), generator=generator)


def network(frozen=()):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model


def problem(frozen=(), parameters=None, model=None):
    model = network(frozen) if model is None else model
    return Problem(model, nn.CrossEntropyLoss(), [data()], dtype=F64, parameters=parameters)


CHOICES = {
    "default": ((), None, NAMES, "trainable"),
    "frozen stay": (NAMES[:2], None, NAMES[2:], "trainable"),
    "all": (NAMES[:2], "all", NAMES, "all"),
    "one pattern, frozen or not": (NAMES[:2], "*.weight", ["0.weight", "2.weight"], ["*.weight"]),
    "several": ((), ["2.*", "0.bias"], NAMES[1:], ["0.bias", "2.*"]),
    "without": ((), ["!*.bias", "*"], ["0.weight", "2.weight"], ["!*.bias", "*"]),
    "trainable without": (["0.weight"], ["!*.bias"], ["2.weight"], ["!*.bias"]),
    "nothing stated": ((), [], NAMES, "trainable"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_names_are_chosen_in_the_networks_order(case):
    frozen, parameters, expected, stored = CHOICES[case]
    found = problem(frozen, parameters)
    assert list(found.parameters) == expected
    assert json.loads(json.dumps(found.selection)) == stored


def dense(problem):
    operator = HessianOperator(problem)
    return operator.matmat(torch.eye(operator.size, dtype=F64))


@pytest.mark.parametrize("case", ["frozen stay", "several", "without"])
def test_derivatives_are_blocks_of_the_full_ones(case):
    frozen, parameters, expected, _ = CHOICES[case]
    part, full = problem(frozen, parameters), problem(parameters="all")
    sizes = {name: tensor.numel() for name, tensor in full.parameters.items()}
    chosen = torch.cat([torch.full((sizes[name],), name in expected) for name in NAMES])
    # The same sums of the same float64 terms.
    exact = {"rtol": 0, "atol": 1e-15}
    torch.testing.assert_close(dense(part), dense(full)[chosen][:, chosen], **exact)
    torch.testing.assert_close(flatten(part.gradient()), flatten(full.gradient())[chosen], **exact)
    assert part.evaluate() == full.evaluate()


class Watched(nn.Module):
    """Fails where its frozen layer is not bit by bit what it was."""

    def __init__(self):
        super().__init__()
        self.frozen, self.free = nn.Linear(3, 5, dtype=F64), nn.Linear(5, 4, dtype=F64)
        self.frozen.requires_grad_(False)
        self.kept = [tensor.clone() for tensor in self.frozen.parameters()]
        self.calls = 0

    def forward(self, x):
        pairs = zip(self.frozen.parameters(), self.kept, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        return self.free(torch.tanh(self.frozen(x)))


def test_frozen_tensors_stay_bit_by_bit_along_a_surface():
    model = Watched()
    found = Problem(model, nn.CrossEntropyLoss(), [data()], dtype=F64)
    directions = random_directions(found.parameters, 2, ignore="none")
    assert set(directions[0].tensors) == {"free.weight", "free.bias"}
    surface = Surface(found, Grid.parse("-1:1:3", "-1:1:3"), directions)
    values = surface.run().values["train_loss"]
    assert values.std() > 0
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in moved.free.named_parameters():
            tensor += directions[0].tensors[f"free.{name}"] - directions[1].tensors[f"free.{name}"]
    x, y = data()
    expected = nn.functional.cross_entropy(moved(x), y).item()
    assert values[0, 2] == pytest.approx(expected, rel=1e-13)
    assert surface.settings["selection"] == "trainable"


def test_other_frozen_weights_are_another_computation(tmp_path):
    def run(model):
        found = problem(model=model)
        directions = random_directions(found.parameters, 1)
        return Surface(found, Grid.parse("-1:1:3"), directions).run(tmp_path / "s.h5")

    model = network(NAMES[:2])
    run(model)
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-9
    with pytest.raises(SettingsDifferError, match="buffers_sha256"):
        run(model)


def test_problems_of_a_surface_move_the_same_parameters():
    pair = {"train": problem(), "test": problem(parameters="2.*")}
    with pytest.raises(SurfaceError, match="'test'"):
        Surface(pair, Grid.parse("-1:1:3"), random_directions(pair["train"].parameters, 1))


@pytest.mark.parametrize(
    ("frozen", "parameters", "message"),
    [
        (NAMES, None, "trainable leaves none of 4: 0.weight.*\n.*requires_grad=False.*'all'"),
        ((), "layer*", "'layer\\*' matches none of 4: 0.weight, 0.bias"),
        ((), ["*", "!3.*"], "'3.\\*' matches none"),
        ((), ["2.*", "!*"], "leaves none"),
    ],
)
def test_an_empty_choice_is_refused(frozen, parameters, message):
    with pytest.raises(SelectionError, match=message) as caught:
        problem(frozen, parameters)
    assert len(str(caught.value).splitlines()) <= 3


def test_the_lent_model_keeps_what_it_had_frozen():
    model = network(NAMES[:2])
    problem(parameters="all", model=model).gradient()
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
