"""A surface that the loss-landscape code has begun goes on as one of ours."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from isoloss import cli
from isoloss.records.surfaces import read_surface

GRID = ("--x=-1:1:5", "--y=-0.5:0.5:3", "--no-figures")
TRAIN = ("train", "--dataset-arg", "size=8", "--fraction", "0.3", "--epochs", "1", "--run", "a")


def command(*arguments, results):
    return cli.main([*map(str, arguments), "--results", str(results)])


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run, a whole surface of ours, and that of the other code with points still to be done."""
    folder = tmp_path_factory.mktemp("begun")
    assert command(*TRAIN, "--no-figures", results=folder) == 0
    assert command("surface", "a", *GRID, results=folder) == 0
    ours = folder / "runs" / "a" / "surface-2d.h5"
    theirs = folder / "net_weights_xnorm=filter.h5_[-1.0,1.0,5]x[-0.5,0.5,3].h5"
    assert cli.main(["export", str(ours), "--to", "ll", "--out", str(theirs)]) == 0
    data = read_surface(ours)
    with h5py.File(theirs, "r+") as file:
        for name in ("train_loss", "train_acc"):
            flat = file[name][()].ravel()  # (ny, nx) in the order of their file
            assert np.array_equal(flat, data.values[name].ravel())
            flat[[3, 7, 11]] = -1
            file[name][...] = flat.reshape(file[name].shape)
    return folder, ours, theirs


def go_on(begun, tmp_path, *more):
    folder, _, theirs = begun
    out = tmp_path / "on.h5"
    code = command("surface", "a", *GRID, "--continue-from", theirs, "--out", out, *more,
                   results=folder)  # fmt: skip
    return code, out


def test_finished_points_are_kept_and_the_others_are_those_of_ours(begun, tmp_path, capsys):
    code, out = go_on(begun, tmp_path)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "12 of 15 points taken over" in said.out
    whole, data = read_surface(begun[1]), read_surface(out)
    assert data.done.all()
    kept = np.ones(15, bool)
    kept[[3, 7, 11]] = False
    for name in ("train_loss", "train_acc"):
        found, expected = data.values[name].ravel(), whole.values[name].ravel()
        np.testing.assert_array_equal(found[kept], expected[kept])
        # Directions are float32 in both: the same points, by other sums of theta and directions.
        np.testing.assert_allclose(found[~kept], expected[~kept], rtol=1e-6)
    assert data.settings["continued_from"]["file"] == begun[2].name
    assert data.settings["directions"]["x"]["kind"] == "file"
    code, _ = go_on(begun, tmp_path)
    assert code == 0
    assert "is complete" in capsys.readouterr().out


def test_a_file_of_other_axes_or_another_function_is_refused(begun, tmp_path, capsys):
    folder, _, theirs = begun
    moved = tmp_path / theirs.name
    shutil.copy(theirs, moved)
    for directions in folder.glob("*directions.h5"):
        shutil.copy(directions, tmp_path)

    def refused(*arguments):
        code = command("surface", "a", "--no-figures", *arguments, "--continue-from", moved,
                       "--out", tmp_path / "o.h5", results=folder)  # fmt: skip
        assert code in (1, 2)
        assert not (tmp_path / "o.h5").exists()
        return capsys.readouterr().err

    assert "5 points from -1 to 1" in refused("--x=-1:1:7", "--y=-0.5:0.5:3")
    assert "expected a curve" in refused("--x=-1:1:5")
    assert "train_loss" in refused("--x=-1:1:5", "--y=-0.5:0.5:3", "--loss", "mse")
    for directions in tmp_path.glob("*directions.h5"):
        directions.unlink()
    assert "direction file" in refused("--x=-1:1:5", "--y=-0.5:0.5:3")
    assert "no file" in command_error(folder, tmp_path, capsys)


def command_error(folder, tmp_path, capsys):
    missing = tmp_path / "missing.h5"
    assert command("surface", "a", *GRID, "--continue-from", missing, results=folder) == 1
    return capsys.readouterr().err
