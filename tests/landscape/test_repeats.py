"""Repeats: each is the surface of its own seed, all of them one file that survives a kill."""

from __future__ import annotations

import gc
import json

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from isoloss.experiments import Subject
from isoloss.landscape.directions import random_directions
from isoloss.landscape.grid import Grid
from isoloss.landscape.problem import Problem
from isoloss.landscape.repeats import Draws, repeat_seeds
from isoloss.landscape.surface import Surface, SurfaceError
from isoloss.records.identity import SettingsDifferError
from isoloss.records.surfaces import SurfaceStore, read_surface

F64 = torch.float64


def subject():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    return Subject(model, nn.CrossEntropyLoss(), train=(x, y), test=(x[:9], y[:9]))


def test_seeds_do_not_depend_on_how_many_there_are_and_are_not_shared():
    assert repeat_seeds(7, 1) == [7]
    assert repeat_seeds(7, 12)[:5] == repeat_seeds(7, 5)
    seeds = [s for seed in range(50) for s in repeat_seeds(seed, 12)]
    assert len(set(seeds)) == len(seeds)
    # torch's generator takes 32 bits of 2 seed + axis: seeds of 32 bits could be alike.
    assert max(seeds) < 2**31
    # Files are made again from these: another NumPy must give the same.
    assert repeat_seeds(0, 4) == [0, 1982462498, 1570558271, 1306511473]


@pytest.mark.parametrize("grid", [{"x": "-1:1:5"}, {"x": "-1:1:4", "y": "0:1:3"}])
def test_each_repeat_is_the_surface_of_its_stored_seed(tmp_path, grid):
    several = subject().surface(tmp_path / "s.h5", seed=3, repeat=3, split="both", **grid)
    stored = read_surface(tmp_path / "s.h5")
    seeds = several.settings["repeats"]["seeds"]
    assert several.repeat == stored.repeat == several.settings["repeat"] == len(seeds) == 3
    assert seeds[0] == 3
    for k, seed in enumerate(seeds):
        plain = subject().surface(tmp_path / f"{k}.h5", seed=seed, split="both", **grid)
        assert plain.repeats is None
        assert plain.origin == several.origin
        for name, values in plain.values.items():
            for data in (several, stored):
                np.testing.assert_array_equal(data.repeats.values[name][k], values)
                if k == 0:
                    np.testing.assert_array_equal(data.values[name], values)
        with h5py.File(tmp_path / "s.h5") as file, h5py.File(tmp_path / f"{k}.h5") as one:
            for axis in ("xdirection", "ydirection")[: len(grid)]:
                mine = file[axis] if k == 0 else file[f"repeats/{axis}/{k}"]
                assert mine.attrs["recipe"] == one[axis].attrs["recipe"]
                assert list(mine) == list(one[axis])
                for name in mine:
                    np.testing.assert_array_equal(mine[name][:], one[axis][name][:])
        if plain.cosine is not None:
            assert several.repeats.cosines[k] == plain.cosine
    assert len({values.tobytes() for values in several.repeats.values["train_loss"]}) == 3


def test_one_repeat_is_a_plain_surface_to_the_byte(tmp_path):
    for name, options in (("a", {}), ("b", {"repeat": 1})):
        subject().surface(tmp_path / name / "s.h5", x="-1:1:3", **options)
    plain, one = ((tmp_path / name / "s.h5").read_bytes() for name in "ab")
    assert plain == one
    with h5py.File(tmp_path / "b" / "s.h5") as file:
        assert "repeats" not in file
        settings = json.loads(file.attrs["settings"])
        assert "repeat" not in settings
        assert settings["asked"]["repeat"] == 1


class Bowl(nn.Module):
    """L(w) = w^T A w / 2 with a known A: (B w)^T (B w) / 2 over rows B."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.5, -0.25, 1.0], [2.0, 0.0, -1.0]], dtype=F64))

    def forward(self, rows):
        return rows @ self.w.flatten()


ROWS = torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(0))


def bowl(path, repeat=4, x="-1:1:5", y=None, progress=None, seed=1, **options):
    problem = Problem(Bowl(), lambda out, _: 3.0 * out.square(), [(ROWS, ROWS[:, 0])], dtype=F64)
    grid = Grid.parse(x, y)

    def draw(seed):
        return random_directions(problem.parameters, len(grid.shape), seed=seed)

    first, *others = repeat_seeds(seed, repeat)
    surface = Surface(problem, grid, draw(first), repeats=Draws(draw, others), **options)
    return surface.run(path, progress)


def test_along_each_direction_a_quadratic_is_exact(tmp_path):
    data = bowl(tmp_path / "s.h5", y="-0.5:1:3")
    # 3 times the mean of 6 squares is half their sum: A = B^T B.
    A, w = (ROWS.T @ ROWS).numpy(), Bowl().w.detach().numpy().ravel()
    with h5py.File(tmp_path / "s.h5") as file:
        pairs = [[file[f"{axis}direction/0"][:].ravel() for axis in "xy"]]
        for k in range(1, 4):
            pairs.append([file[f"repeats/{axis}direction/{k}/0"][:].ravel() for axis in "xy"])
    expected = np.empty((4, 3, 5))
    for k, (dx, dy) in enumerate(pairs):
        for iy, y in enumerate(data.y):
            for ix, x in enumerate(data.x):
                v = w + x * dx + y * dy
                expected[k, iy, ix] = v @ A @ v / 2
    # Sums of 36 products in float64: some 1e-15 relative.
    np.testing.assert_allclose(data.repeats.values["train_loss"], expected, rtol=1e-13)
    np.testing.assert_allclose(data.median_loss, np.median(expected, axis=0), rtol=1e-13)
    np.testing.assert_allclose(data.loss_range, [expected.min(0), expected.max(0)], rtol=1e-13)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("end", ["interrupted", "killed"])
@pytest.mark.parametrize("stop", [1, 5, 12, 13, 20, 60])  # 61 points: theta0 and 4 planes of 15
def test_killed_amid_any_repeat_and_run_again_gives_the_same_bytes(
    tmp_path, monkeypatch, stop, end
):
    counted = []
    whole, parts = tmp_path / "whole" / "s.h5", tmp_path / "parts" / "s.h5"
    bowl(whole, y="0:1:3", progress=lambda done, total: counted.append((done, total)))
    assert counted == [(i, 61) for i in range(1, 62)]

    def stop_there(done, total):
        if done == stop:
            raise KilledError

    with monkeypatch.context() as patch:
        if end == "killed":  # nothing is written but what went to the journal
            patch.setattr(SurfaceStore, "finish", lambda self: None)
        with pytest.raises(KilledError):
            bowl(parts, y="0:1:3", progress=stop_there)
    gc.collect()  # the killed process's lock goes with its files
    if end == "interrupted":
        begun = read_surface(parts)
        assert begun.repeats.done.sum() == stop - 1  # theta0 comes first
        assert begun.directions_done == max(1, (stop - 1) // 15)
    else:
        assert not parts.exists()
    counted.clear()
    bowl(parts, y="0:1:3", progress=lambda done, total: counted.append(done))
    assert len(counted) == 61 - stop
    assert parts.read_bytes() == whole.read_bytes()
    assert [p.name for p in parts.parent.iterdir()] == ["s.h5"]


def test_the_origin_is_evaluated_once(monkeypatch):
    calls = []
    evaluate = Surface.evaluate_at

    def count(self, *at, repeat=0):
        calls.append((at, repeat))
        return evaluate(self, *at, repeat=repeat)

    monkeypatch.setattr(Surface, "evaluate_at", count)
    bowl(None, repeat=3, x="-1:1:2")
    assert calls == [((0.0,), 0), *(((x,), k) for k in range(3) for x in (-1.0, 1.0))]


@pytest.mark.parametrize(("before", "now"), [(4, 3), (1, 2), (2, 1)])
def test_another_number_of_repeats_is_another_computation(tmp_path, before, now):
    path = tmp_path / "s.h5"
    bowl(path, repeat=before)
    content = path.read_bytes()
    with pytest.raises(SettingsDifferError, match=rf"repeat \(stored {before}, now {now}\)") as e:
        bowl(path, repeat=now)
    assert len(str(e.value).splitlines()) <= 3
    assert path.read_bytes() == content


def test_large_directions_are_drawn_again_instead_of_being_kept(tmp_path, monkeypatch):
    small = bowl(tmp_path / "small.h5")
    drawn = []
    # A direction of 48 bytes: each is stored and held, four together are too large.
    for module in ("landscape.repeats", "landscape.surface", "records.surfaces"):
        monkeypatch.setattr(f"isoloss.{module}.LARGEST_STORED_DIRECTION", 100)
    problem = Problem(Bowl(), lambda out, _: 3.0 * out.square(), [(ROWS, ROWS[:, 0])], dtype=F64)

    def draw(seed):
        drawn.append(seed)
        return random_directions(problem.parameters, 1, seed=seed)

    seeds = repeat_seeds(1, 4)
    draws = Draws(draw, seeds[1:])
    surface = Surface(problem, Grid.parse("-1:1:5"), draw(seeds[0]), repeats=draws)
    data = surface.run(tmp_path / "large.h5")
    assert drawn == [*seeds, *seeds[1:]]  # once for the digests, once for the points
    assert len(draws._kept) == 1
    np.testing.assert_array_equal(
        data.repeats.values["train_loss"], small.repeats.values["train_loss"]
    )
    with h5py.File(tmp_path / "large.h5") as file:
        assert list(file["xdirection"]) == ["0"]
        assert [len(file[f"repeats/xdirection/{k}"]) for k in (1, 2, 3)] == [0, 0, 0]
        assert "digest" in file["repeats/xdirection/3"].attrs["recipe"]


def test_repeats_are_made_as_the_first_directions_are():
    problem = Problem(Bowl(), lambda out, _: out.square(), [(ROWS, ROWS[:, 0])], dtype=F64)

    def draw(seed, count=1, **options):
        return random_directions(problem.parameters, count, seed=seed, **options)

    def surface(repeats):
        return Surface(problem, Grid.parse("-1:1:3"), draw(0), repeats=repeats)

    with pytest.raises(SurfaceError, match=r"x of repeat 2 with normalisation 'filter'.*'layer'"):
        surface([draw(1), draw(2, normalisation="layer")])
    with pytest.raises(SurfaceError, match="each of the 1 axes, got 2"):
        surface([draw(1, count=2)])


def test_the_estimate_counts_all_directions():
    from isoloss.experiments.settings import SurfaceSettings
    from isoloss.experiments.surfaces import SurfaceExperiment

    one, four = (
        SurfaceExperiment(subject(), SurfaceSettings(x="-1:1:11", repeat=k)).cost() for k in (1, 4)
    )
    assert (one.units, four.units) == (12, 45)
    numbers = 4 * (4 * 5 + 5 + 5 * 3 + 3)
    assert (one.file_bytes, four.file_bytes) == (
        numbers + 2 * 8 * 11,
        4 * numbers + 2 * 8 * (44 + 11),
    )
