"""Paths in surface files: what is written is read, survives rewrites, and damage is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from isoloss.records.files import FileError
from isoloss.records.surfaces import SurfaceStore, read_surface
from isoloss.records.trajectories import COLUMNS, Trajectory

X, Y = np.array([-1.0, 0.0, 1.0]), np.array([0.0, 2.0])


def path(count=4, seed=0, **about):
    generator = np.random.default_rng(seed)
    columns = {name: generator.random(count) for name in COLUMNS}
    columns["epoch"] = np.arange(count)
    columns["distance"] = columns["from_origin"] / 2
    columns["from_origin"][-1] = columns["distance"][-1] = 0.0
    return Trajectory(**columns, about={"label": "a", "checkpoints": ["0" * 64], **about})


def store(file, points=7, fresh=False):
    made = SurfaceStore(file, X, Y, ["train_loss"], {"seed": 1}, fresh=fresh)
    made.load()
    made.start()
    for index in range(points):
        made.append(6 - index, (float(index),))
    return made


def same(a, b):
    return a.about == b.about and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in COLUMNS
    )


def test_what_is_written_is_read(tmp_path):
    made = store(tmp_path / "s.h5")
    made.trajectories = {"b": path(3, 1, optimizer="sam"), "a": path()}
    made.finish()
    data = read_surface(tmp_path / "s.h5")
    assert list(data.trajectories) == ["b", "a"]
    assert all(same(data.trajectories[name], made.trajectories[name]) for name in "ab")
    assert data.trajectories["a"].epoch.dtype == np.int64
    np.testing.assert_array_equal(data.trajectories["a"].relative_distance, [0.5, 0.5, 0.5, 0.0])
    assert list(data.values) == ["train_loss"]
    assert "paths of b, a" in repr(data)


def test_they_are_kept_when_the_file_is_written_again_and_go_when_it_is_begun_anew(tmp_path):
    file = tmp_path / "s.h5"
    made = store(file, 3)
    made.trajectories = {"a": path()}
    made.finish()
    again = store(file)
    assert again.trajectories.keys() == {"a"}
    again.finish()
    assert same(read_surface(file).trajectories["a"], path())
    whole = tmp_path / "whole" / "s.h5"
    at_once = store(whole)
    at_once.trajectories = {"a": path()}
    at_once.finish()
    assert file.read_bytes() == whole.read_bytes()
    store(file, fresh=True).finish()
    assert read_surface(file).trajectories == {}


def replaced(group, name, value):
    del group[name]
    group[name] = value


NO_LABEL = '{"label": 3, "checkpoints": []}'


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda group: group.__delitem__("x"), "entry `trajectories/a/x`"),
        (lambda group: group.attrs.__delitem__("about"), "about"),
        (lambda group: group.attrs.__setitem__("about", "[]"), "about"),
        (lambda group: group.attrs.__setitem__("about", NO_LABEL), "label"),
        (lambda group: group["y"].__setitem__(1, np.nan), "finite epochs and coordinates"),
        (lambda group: [replaced(group, name, np.empty(0)) for name in COLUMNS], "path of a"),
        (lambda group: replaced(group, "loss", np.zeros(9)), "loss"),
        (lambda group: replaced(group, "loss", h5py.ExternalLink("b.h5", "x")), "another file"),
    ],
)
def test_damaged_paths_are_refused_by_name(tmp_path, damage, named):
    file = tmp_path / "s.h5"
    made = store(file)
    made.trajectories = {"a": path()}
    made.finish()
    with h5py.File(file, "a") as opened:
        damage(opened["trajectories/a"])
    with pytest.raises(FileError, match=named):
        read_surface(file)


def test_losses_may_be_anything(tmp_path):
    made, bad = store(tmp_path / "s.h5"), path()
    bad.loss[1], bad.plane_loss[2] = np.inf, np.nan
    made.trajectories = {"a": bad}
    made.finish()
    found = read_surface(tmp_path / "s.h5").trajectories["a"]
    assert np.isinf(found.loss[1])
    assert np.isnan(found.plane_loss[2])
