"""Directions that are drawn again whenever they are needed are those that are held."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from isoloss.landscape import Grid, Problem, Surface
from isoloss.landscape.directions import cosine, random_directions, regenerated
from isoloss.landscape.directions.regenerated import Drawn, Regenerated
from isoloss.landscape.vectors import inner

# The package exports a function of the module's name.
GAUSSIAN = sys.modules["isoloss.landscape.directions.gaussian"]


def weights():
    """Shapes of every kind: filters, wide rows, vectors, a number, one filter of zeros."""
    shapes = {"conv": (37, 5, 3), "bias": (7,), "tall": (200, 3), "small": (3, 2), "number": (),
              "square": (33, 33), "column": (33, 1), "zeros": (4, 9)}  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**drawn, "zeros": torch.zeros(4, 9)}


@pytest.fixture
def regenerating(monkeypatch):
    def begin():
        monkeypatch.setattr(GAUSSIAN, "LARGEST_HELD", 0)

    return begin


@pytest.mark.parametrize("block", [16, 64, 2**20])
@pytest.mark.parametrize("normalisation", ["filter", "dfilter", "weight", "none"])
@pytest.mark.parametrize("ignore", ["biasbn", "none"])
def test_the_bytes_are_those_of_held_directions(
    monkeypatch, regenerating, block, normalisation, ignore
):
    """Of y, too, whose share of x is found from inner products of rows: to rounding in float64."""
    point, rule = weights(), {"seed": 3, "normalisation": normalisation, "ignore": ignore}
    held = random_directions(point, 2, **rule)
    monkeypatch.setattr(regenerated, "BLOCK", block)
    regenerating()
    made = random_directions(point, 2, **rule)
    assert isinstance(made[1].tensors, Regenerated)
    for one, again in zip(held, made, strict=True):
        assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in one.tensors.items())
        assert one.recipe() == again.recipe()
    assert abs(cosine(*made)) < 1e-7  # float32


def test_rules_of_two_kinds(regenerating):
    rules = {"normalisation": ("filter", "weight"), "ignore": ("none", "biasbn")}
    held = random_directions(weights(), 2, seed=5, **rules)
    regenerating()
    made = random_directions(weights(), 2, seed=5, **rules)
    for one, again in zip(held, made, strict=True):
        assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in one.tensors.items())


@pytest.mark.parametrize("normalisation", ["layer", "dlayer", "model"])
def test_rules_of_whole_tensors_are_held(regenerating, normalisation):
    held = random_directions(weights(), 2, normalisation=normalisation)
    regenerating()
    made = random_directions(weights(), 2, normalisation=normalisation)
    assert isinstance(made[0].tensors, dict)
    assert [one.recipe() for one in held] == [one.recipe() for one in made]


def test_draws_are_those_of_the_generator():
    point = weights()
    generator = torch.Generator().manual_seed(8)
    whole = {name: torch.randn(t.shape, generator=generator) for name, t in point.items()}
    drawn = Drawn(point, 8)
    for name in reversed(list(point)):
        assert torch.equal(drawn[name], whole[name].double())


def test_a_surface_along_them_has_the_same_values(regenerating, tmp_path):
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 30), nn.Tanh(), nn.Linear(30, 3))
    data = (torch.randn(20, 5, generator=generator), torch.arange(20) % 3)
    problem = Problem(network, nn.CrossEntropyLoss(), [data])
    grid = Grid.parse("-1:1:3", "-0.5:0.5:2")
    held = Surface(problem, grid, seed=4)
    before = held.run()
    regenerating()
    surface = Surface(problem, grid, seed=4)
    after = surface.run(tmp_path / "surface.h5")
    assert (before.values["train_loss"] == after.values["train_loss"]).all()
    assert surface.settings["directions"] == held.settings["directions"]
    assert surface.stored_bytes == held.stored_bytes
    assert all(not one.stored().tensors for one in surface.directions)
    # What was begun along held directions goes on along these: they are the same.
    assert held.run(tmp_path / "surface.h5").done.all()


def test_inner_products_of_large_tensors_are_formed_in_pieces(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    a, b = ({"w": torch.randn(40, 11, generator=generator)} for _ in range(2))
    whole = float((a["w"].double() * b["w"].double()).sum())
    monkeypatch.setattr("isoloss.landscape.vectors.PIECE", 100)
    assert inner(a, b) == pytest.approx(whole, rel=1e-13)
