"""Surfaces: every value in its place, the origin, resumption to the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.landscape.directions import Direction, random_directions
from isoloss.landscape.grid import Grid
from isoloss.landscape.problem import Problem
from isoloss.landscape.sampling import Sample
from isoloss.landscape.surface import Surface, SurfaceError
from isoloss.records.identity import SettingsDifferError
from isoloss.records.surfaces import journal_path, read_surface

F64 = torch.float64


class Quadratic(nn.Module):
    """L(w) = |X w - y|^2 / n with a w of two entries: every surface is known."""

    def __init__(self, w=(0.5, -0.25)):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=F64))

    def forward(self, x):
        return x @ self.w.T


X = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], dtype=F64)
Y = torch.tensor([[1.0], [0.0], [-2.0]], dtype=F64)


def unit(index):
    tensor = torch.zeros(1, 2, dtype=F64)
    tensor[0, index] = 1
    return Direction({"w": tensor}, "loaded")


def quadratic_surface(x="-1:1:5", y="0:2:3", w=(0.5, -0.25), scale=1.0, **options):
    def loss(outputs, targets):
        return scale * (outputs - targets).square()

    problem = Problem(Quadratic(w), loss, [(X, Y)], dtype=F64)
    return Surface(
        problem, Grid.parse(x, y), [unit(0), unit(1)][: 1 if y is None else 2], **options
    )


def test_a_quadratic_on_a_3x5_grid_has_every_value_in_its_place(tmp_path):
    data = quadratic_surface().run(tmp_path / "surface.h5")
    stored = read_surface(tmp_path / "surface.h5")
    assert data.values["train_loss"].shape == (3, 5)
    for iy, y in enumerate((0.0, 1.0, 2.0)):
        for ix, x in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0)):
            w = np.array([0.5 + x, -0.25 + y])
            expected = np.mean((X.numpy() @ w - Y.numpy()[:, 0]) ** 2)
            assert data.values["train_loss"][iy, ix] == pytest.approx(expected, rel=1e-14)
            assert stored.values["train_loss"][iy, ix] == data.values["train_loss"][iy, ix]
    assert stored.done.all()
    assert stored.cosine == 0.0
    assert stored.origin["train_loss"] == data.values["train_loss"][0, 2]


def test_the_origin_is_kept_where_the_grid_misses_it():
    surface = quadratic_surface(x="-1:1:4", y=None)
    data = surface.run()
    assert 0.0 not in data.x
    assert data.origin["train_loss"] == surface.problems["train"].evaluate().loss
    assert np.isnan(data.origin["train_acc"])


class InterruptedRunError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 2, 7, 15])
def test_an_interrupted_surface_resumes_to_the_same_bytes(tmp_path, stop):
    whole = tmp_path / "whole" / "s.h5"
    parts = tmp_path / "parts" / "s.h5"
    quadratic_surface().run(whole)

    def interrupt(done, total):
        if done == stop:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        quadratic_surface().run(parts, progress=interrupt)
    assert read_surface(parts).done.sum() == stop - 1  # theta0 comes first
    assert np.isnan(read_surface(parts).values["train_loss"][~read_surface(parts).done]).all()
    counted = []
    quadratic_surface().run(parts, progress=lambda done, total: counted.append(done))
    assert len(counted) == 16 - stop
    assert parts.read_bytes() == whole.read_bytes()
    assert not journal_path(parts).exists()
    assert [p.name for p in parts.parent.iterdir()] == ["s.h5"]


def test_a_finished_surface_is_not_computed_again(tmp_path):
    path = tmp_path / "s.h5"
    quadratic_surface().run(path)
    before = path.stat().st_mtime_ns
    quadratic_surface().run(path, progress=lambda done, total: pytest.fail("computed again"))
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": "-1:1:7"}, "grid.x"),
        ({"x": "-1:1.0000001:5"}, "grid.x"),
        ({"scale": 2.0}, "the code of network, loss or data has changed"),
        ({"w": (0.5, 0.5)}, "weights_sha256"),
        ({"about": {"dataset": "mnist"}}, "dataset"),
    ],
)
def test_another_computation_is_refused_and_nothing_lost(tmp_path, change, named):
    path = tmp_path / "s.h5"
    quadratic_surface().run(path)
    before = path.read_bytes()
    with pytest.raises(SettingsDifferError, match=named):
        quadratic_surface(**change).run(path)
    assert path.read_bytes() == before
    # What only says who asked may differ.
    quadratic_surface(about={"command": "another"}).run(path)


def test_points_do_not_drift_and_nothing_is_mutated():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    problem = Problem(model, nn.CrossEntropyLoss(), [(x, y)])
    surface = Surface(
        problem, Grid.parse("-1:1:3", "-1:1:3"), random_directions(problem.parameters)
    )
    data = surface.run()
    assert data.values["train_loss"][1, 1] == data.origin["train_loss"] == problem.evaluate().loss
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    one = surface.evaluate_at(1.0, -1.0)
    assert one == surface.evaluate_at(1.0, -1.0)
    assert one[0] == data.values["train_loss"][0, 2]


def test_two_splits_and_the_error_of_a_sample():
    torch.manual_seed(0)
    model = nn.Linear(4, 3, dtype=F64)
    x, y = torch.randn(50, 4, dtype=F64), torch.randint(3, (50,))
    loss, sample = nn.CrossEntropyLoss(), Sample.random(30, 120)
    problems = {
        "train": Problem(model, loss, [(x[:30], y[:30])], dtype=F64, sample=sample),
        "test": Problem(model, nn.CrossEntropyLoss(), [(x[30:], y[30:])], dtype=F64),
    }
    directions = random_directions(problems["train"].parameters, 1)
    surface = Surface(problems, Grid.parse("-1:1:3"), directions)
    assert surface.columns == ["train_loss", "train_acc", "train_loss_se", "test_loss", "test_acc"]
    each = nn.functional.cross_entropy(model(x[:30]), y[:30], reduction="none")
    expected = each.std().item() / 30**0.5 * (1 - 30 / 120) ** 0.5
    assert surface.run().origin["train_loss_se"] == pytest.approx(expected, rel=1e-12)


def test_axes_and_directions_must_fit():
    problem = Problem(Quadratic(), nn.MSELoss(), [(X, Y)], dtype=F64)
    with pytest.raises(SurfaceError, match="each of the 2 axes, got 1"):
        Surface(problem, Grid.parse("-1:1:3", "-1:1:3"), [unit(0)])
    other = Direction({"v": torch.zeros(3)}, "loaded")
    with pytest.raises(SurfaceError, match="names and shapes"):
        Surface(problem, Grid.parse("-1:1:3"), [other])


def test_other_running_statistics_are_another_computation(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    x, y = torch.randn(20, 4), torch.randint(3, (20,))

    def run():
        problem = Problem(model, nn.CrossEntropyLoss(), [(x, y)])
        directions = random_directions(problem.parameters, 1)
        return Surface(problem, Grid.parse("-1:1:3"), directions).run(tmp_path / "s.h5")

    run()
    model.train()(x)  # moves the running statistics alone
    with pytest.raises(SettingsDifferError, match="buffers_sha256"):
        run()


def test_how_a_pair_was_made_is_stored():
    torch.manual_seed(0)
    problem = Problem(nn.Linear(4, 3), nn.MSELoss(), [(torch.randn(5, 4), torch.randn(5, 3))])
    plain, made = (
        [d.recipe() for d in random_directions(problem.parameters, orthogonal=orthogonal)]
        for orthogonal in (False, True)
    )
    assert plain[0] == made[0]
    assert (plain[1]["orthogonal"], made[1]["orthogonal"]) == (False, True)


@pytest.mark.parametrize("axes", [("-1:1:3",), ("-1:1:3", "0:1:2")])
def test_default_directions_follow_the_grid(axes):
    torch.manual_seed(0)
    data = [(torch.randn(9, 4), torch.arange(9) % 3)]
    problem, grid = Problem(nn.Linear(4, 3), nn.CrossEntropyLoss(), data), Grid.parse(*axes)
    drawn = random_directions(problem.parameters, len(axes), seed=3)
    expected = Surface(problem, grid, drawn).run()
    found = Surface(problem, grid, seed=3).run()
    np.testing.assert_array_equal(found.values["train_loss"], expected.values["train_loss"])
    assert found.settings == expected.settings
    assert len(Surface(problem, grid).directions) == len(axes)
    with pytest.raises(SurfaceError, match="got both"):
        Surface(problem, grid, drawn, seed=3)


def test_progress_shows_a_bar(capsys):
    quadratic_surface(y=None).run(progress=True)
    assert "surface: 6/6" in capsys.readouterr().err
    quadratic_surface(y=None).run()
    assert capsys.readouterr().err == ""
