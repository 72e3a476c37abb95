"""Paths of runs on one plane, end to end on the digits: coordinates, losses, resuming, refusals."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from isoloss import cli
from isoloss.experiments import trajectories
from isoloss.experiments.epoch_paths import epoch_path
from isoloss.experiments.selection import select
from isoloss.experiments.settings import Selection
from isoloss.landscape import Surface
from isoloss.records.runs import Run
from isoloss.records.surfaces import journal_path, read_surface

NETWORK = """
import math
from torch import nn

def build(input_shape, num_classes, hidden=8):
    entries = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(entries, hidden), nn.BatchNorm1d(hidden),
                         nn.ReLU(), nn.Linear(hidden, num_classes))
"""
TRAIN = ("train", "--batch-size", 64, "--no-figures")
GRID = ("--x", "auto:4", "--y", "auto:3")
NAMES = ("sgd", "adam")


def run_command(*arguments, results):
    return cli.main([*map(str, arguments), "--results", str(results)])


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    file = tmp_path_factory.mktemp("network") / "small.py"
    file.write_text(NETWORK)
    return f"{file}:build"


@pytest.fixture(scope="module")
def trained(network, tmp_path_factory):
    """Two runs from one initialisation, one with a checkpoint at every second epoch."""
    results = tmp_path_factory.mktemp("results")
    for name, every in zip(NAMES, (1, 2), strict=True):
        train = (*TRAIN, "--run", name, "--optimizer", name, "--checkpoint-every", every)
        assert run_command(*train, "--model", network, "--epochs", 3, results=results) == 0
    assert run_command("trajectory", *NAMES, *GRID, "--no-figures", results=results) == 0
    return results


@pytest.fixture
def results(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "results")


def stored(results, file="trajectory-sgd-adam.h5"):
    return read_surface(results / "runs" / "sgd" / file)


def weights(results, name, checkpoint):
    path = results / "runs" / name / "checkpoints" / f"{checkpoint}.pt"
    return torch.load(path, weights_only=True)


def vector(state, names):
    return np.concatenate([state[name].double().numpy().reshape(-1) for name in names])


def test_paths_begin_at_epoch_0_and_end_at_the_last_weights(trained):
    path = epoch_path(Run(trained / "runs" / "adam"))
    assert path.epochs == (0, 2, 3)
    assert [file.name for file in path.files] == ["epoch-0000.pt", "epoch-0002.pt", "last.pt"]
    assert epoch_path(Run(trained / "runs" / "sgd")).epochs == (0, 1, 2, 3)
    data = stored(trained)
    assert list(data.trajectories) == ["sgd", "adam"]
    assert data.trajectories["adam"].epoch.tolist() == [0, 2, 3]


def test_coordinates_are_those_of_sklearn_on_all_checkpoints_together(trained):
    from sklearn.decomposition import PCA

    data, subject = stored(trained), select(Selection(run="sgd", results=trained))
    names = [name for name, _ in subject.model.named_parameters()]
    files = [("sgd", f"epoch-000{i}") for i in range(4)]
    files += [("adam", "epoch-0000"), ("adam", "epoch-0002"), ("adam", "last")]
    every = np.array([vector(weights(trained, *file), names) for file in files])
    pca = PCA(n_components=2, svd_solver="full").fit(every)
    recipes = data.settings["directions"]
    for axis, number in zip("xy", (0, 1), strict=True):
        assert recipes[axis]["kind"] == "pca"
        assert recipes[axis]["normalisation"] == "none"
        assert recipes[axis]["points"] == 7
        found = recipes[axis]["explained_variance_ratio"]
        assert found == pytest.approx(pca.explained_variance_ratio_[number], rel=1e-5)
    assert abs(data.cosine) < 1e-6  # rounded to float32
    origin = vector(weights(trained, "sgd", "last"), names)
    expected = (every - origin) @ pca.components_.T
    paths = [data.trajectories[name] for name in NAMES]
    for column, name in zip(expected.T, "xy", strict=True):
        found = np.concatenate([getattr(path, name) for path in paths])
        sign = np.sign(found @ column)
        np.testing.assert_allclose(found, sign * column, atol=1e-5 * np.abs(expected).max())
    off = every - origin - expected @ pca.components_
    distances = np.concatenate([path.distance for path in paths])
    np.testing.assert_allclose(distances, np.linalg.norm(off, axis=1), atol=1e-4)
    assert paths[0].distance[-1] == paths[0].from_origin[-1] == 0.0
    # Both began at the same weights.
    assert [paths[0].x[0], paths[0].y[0]] == [paths[1].x[0], paths[1].y[0]]


def test_losses_of_a_path_are_those_that_evaluate_says(results, capsys):
    data = stored(results)
    for name, checkpoint, index in (("sgd", "epoch-0001", 1), ("adam", "epoch-0000", 0)):
        evaluate = ("evaluate", name, "--checkpoint", checkpoint, "--json", "--no-figures")
        capsys.readouterr()
        assert run_command(*evaluate, results=results) == 0
        loss = json.loads(capsys.readouterr().out)["splits"]["train"]["loss"]
        assert data.trajectories[name].loss[index] == pytest.approx(loss, rel=1e-6)
    assert data.trajectories["sgd"].loss[-1] == data.origin["train_loss"]
    assert data.trajectories["sgd"].plane_loss[-1] == data.origin["train_loss"]


def test_the_plane_holds_the_paths_and_is_the_same_when_asked_again(results, capsys):
    file = results / "runs" / "sgd" / "trajectory-sgd-adam.h5"
    before, data = file.read_bytes(), stored(results)
    for path in data.trajectories.values():
        assert data.x[0] < path.x.min() <= path.x.max() < data.x[-1]
        assert data.y[0] < path.y.min() <= path.y.max() < data.y[-1]
    assert data.done.shape == (3, 4)
    assert run_command("trajectory", *NAMES, *GRID, "--no-figures", results=results) == 0
    out = capsys.readouterr().out
    assert "is complete" in out
    assert "has all paths: sgd, adam" in out
    assert "principal component 1 of 7 checkpoints" in out
    assert file.read_bytes() == before
    assert data.trajectories["sgd"].about["buffers"] == "held"
    summary = json.loads(file.with_suffix(".json").read_text())
    assert summary["trajectories"]["sgd"]["points"] == 4
    assert summary["components"]["x"]["points"] == 7


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_an_interrupted_path_goes_on_to_the_same_bytes(results, monkeypatch, capsys, stop):
    file = results / "runs" / "sgd" / "trajectory-sgd-adam.h5"
    command = ("trajectory", *NAMES, *GRID, "--no-figures")
    assert run_command(*command, "--force", results=results) == 0
    whole = file.read_bytes()
    calls, evaluate = [], trajectories.path_point

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(trajectories, "path_point", interrupted)
    assert run_command(*command, "--force", results=results) == 1
    assert "same command without --force goes on" in capsys.readouterr().err
    assert read_surface(file).done.all()
    assert read_surface(file).trajectories == {}
    assert run_command(*command, results=results) == 0
    assert len(calls) == stop + 7 - (stop - 1)
    assert file.read_bytes() == whole
    assert [path.name for path in file.parent.glob("*.journal")] == []
    assert not journal_path(file).exists()


def test_an_interrupted_plane_goes_on_to_the_same_bytes(results, monkeypatch):
    file = results / "runs" / "sgd" / "trajectory-sgd-adam.h5"
    command = ("trajectory", *NAMES, *GRID, "--no-figures")
    file.unlink()
    assert run_command(*command, results=results) == 0
    whole = file.read_bytes()
    file.unlink()
    calls, evaluate = [], Surface.evaluate_at

    def interrupted(self, *coordinates, **options):
        calls.append(coordinates)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return evaluate(self, *coordinates, **options)

    monkeypatch.setattr(Surface, "evaluate_at", interrupted)
    assert run_command(*command, results=results) == 1
    assert read_surface(file).done.sum() == 3  # and theta0
    assert run_command(*command, results=results) == 0
    assert len(calls) == 5 + 9  # of theta0 the loss alone is looked at again
    assert file.read_bytes() == whole


def test_buffers_move_with_components_where_asked(results):
    states = ("trajectory", "sgd", "adam", "--dir-type", "states", "--samples", 100)
    grid = ("--x", "0:0.001:2", "--y", "0:0.001:2", "--no-figures", "--out")
    file = results / "states.h5"
    assert run_command(*states, *grid, file, results=results) == 0
    data = read_surface(file)
    assert data.settings["directions"]["x"]["dir_type"] == "states"
    with h5py.File(file) as opened:
        axes = np.array([
            np.concatenate([opened[f"{axis}direction/{i}"][()].reshape(-1)
                            for i in range(len(opened["xdirection"]))]) for axis in "xy"
        ]).astype(float)  # fmt: skip
    model = select(Selection(run="sgd", results=results)).model
    names = [name for name, _ in model.named_parameters()] + ["2.running_mean", "2.running_var"]
    away = vector(weights(results, "adam", "last"), names)
    away -= vector(weights(results, "sgd", "last"), names)
    path = data.trajectories["adam"]
    np.testing.assert_allclose([path.x[-1], path.y[-1]], axes @ away, rtol=1e-5)
    assert path.from_origin[-1] == pytest.approx(np.linalg.norm(away), rel=1e-9)


def test_a_path_is_added_to_a_plane_that_is_there(results):
    surface = ("surface", "sgd", "--x=-1:1:3", "--y=-1:1:3", "--samples", 200, "--no-figures")
    assert run_command(*surface, results=results) == 0
    file = results / "runs" / "sgd" / "surface-2d.h5"
    before = read_surface(file)
    on = ("trajectory", "--on", file, "--no-figures")
    assert run_command(*on, "sgd", results=results) == 0
    one = read_surface(file)
    assert list(one.trajectories) == ["sgd"]
    assert run_command(*on, "adam", results=results) == 0
    both = read_surface(file)
    assert list(both.trajectories) == ["sgd", "adam"]
    np.testing.assert_array_equal(both.trajectories["sgd"].x, one.trajectories["sgd"].x)
    np.testing.assert_array_equal(both.values["train_loss"], before.values["train_loss"])
    assert both.settings == before.settings
    # Least squares on the stored directions, ignored entries and all.
    names = [n for n, _ in select(Selection(run="sgd", results=results)).model.named_parameters()]
    with h5py.File(file) as opened:
        axes = np.array([
            np.concatenate([opened[f"{axis}direction/{i}"][()].reshape(-1)
                            for i in range(len(names))]) for axis in "xy"
        ]).astype(float)  # fmt: skip
    origin = vector(weights(results, "sgd", "last"), names)
    away = vector(weights(results, "adam", "epoch-0002"), names) - origin
    expected, *_ = np.linalg.lstsq(axes.T, away, rcond=None)
    path = both.trajectories["adam"]
    np.testing.assert_allclose([path.x[1], path.y[1]], expected, rtol=1e-6)
    off = np.linalg.norm(away - expected @ axes)
    assert path.distance[1] == pytest.approx(off, rel=1e-9)
    assert path.from_origin[1] == pytest.approx(np.linalg.norm(away), rel=1e-9)


def test_a_surface_along_principal_components_of_one_run(results):
    surface = ("surface", "sgd", "--xdir", "pca:0", "--ydir", "pca:1", "--x=-1:1:3", "--y=-1:1:3")
    assert run_command(*surface, "--samples", 100, "--no-figures", results=results) == 0
    file = results / "runs" / "sgd" / "surface-2d-pca-0-pca-1.h5"
    recipes = read_surface(file).settings["directions"]
    assert [recipes[axis]["component"] for axis in "xy"] == [0, 1]
    # 4 points: 1 / sin^2(pi / 8) over 2 (16 - 1) / 3.
    walk = 1 / np.sin(np.pi / 8) ** 2 / 10
    assert recipes["x"]["random_walk"] == pytest.approx(walk, rel=1e-5)
    on = ("trajectory", "sgd", "adam", "--on", file, "--no-figures")
    assert run_command(*on, results=results) == 0
    assert list(read_surface(file).trajectories) == ["sgd", "adam"]


def test_one_run_is_the_default_and_has_a_plain_name_and_figures(results):
    assert run_command("trajectory", *GRID, "--samples", 100, results=results) == 0
    run = results / "runs" / "adam"
    assert (run / "trajectory.h5").is_file()
    assert {"trajectory-paths.png", "trajectory-paths.pdf", "trajectory-contour.png"} <= {
        path.name for path in run.iterdir()
    }


def test_around_another_run(results):
    command = ("trajectory", "sgd", "--around", "adam", *GRID, "--samples", 100, "--no-figures")
    assert run_command(*command, results=results) == 0
    data = read_surface(results / "runs" / "adam" / "trajectory-sgd.h5")
    assert data.trajectories["sgd"].distance[-1] > 0


def test_a_run_without_epochs_says_how_to_keep_them(results, network, capsys):
    train = (*TRAIN, "--run", "bare", "--model", network, "--epochs", 1)
    assert run_command(*train, results=results) == 0
    assert run_command("trajectory", "sgd", "bare", results=results) == 1
    err = capsys.readouterr().err
    assert "expected epoch checkpoints of run bare, got none" in err
    config = results / "runs" / "bare" / "config.json"
    remedy = f"train --config {config} --checkpoint-every 1 --force"
    assert remedy in err
    assert run_command(*remedy.split(), "--no-figures", results=results) == 0
    assert epoch_path(Run(config.parent)).epochs == (0, 1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ("--model-arg", "hidden=4"),
            (
                "sgd and other differ in 7 tensors: 1.weight, 1.bias, 2.weight, ..",
                "1.weight is of shape (8, ",
                " in the one and of shape (4, ",
            ),
        ),
        (("--loss", "mse"), ("runs of one loss", "cross-entropy", "mse")),
        (("--fraction", "0.5"), ("runs of one data", "digits")),
    ],
)
def test_runs_of_other_functions_are_refused(results, network, capsys, options, named):
    kept = ("--run", "other", "--epochs", 1, "--checkpoint-every", 1)
    assert run_command(*TRAIN, *kept, "--model", network, *options, results=results) == 0
    assert run_command("trajectory", "sgd", "other", *GRID, results=results) == 1
    err = capsys.readouterr().err
    assert all(text in err for text in named), err


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("nobody",), 1, "no run nobody"),
        (("sgd", "sgd"), 2, "expected each run once"),
        (("sgd", "--x", "auto"), 2, "--x: expected auto:COUNT"),
        (("sgd", "--x", "auto:1"), 2, "--x: expected auto:COUNT"),
        (("sgd", "--y", "none"), 2, "expected"),
        (("sgd", "--repeat", "2"), 2, "--repeat: expected 1"),
        (("sgd", "--xdir", "pca:3"), 2, "--xdir: expected a principal component from 0 to 2"),
        (("sgd", "--xdir", "pca:-1"), 2, "--xdir: expected pca:K"),
        (("sgd", "--xdir", "pca:0:sgd,nobody"), 1, "no run nobody"),
        (("sgd", "--xdir", "pca:1"), 2, "which are parallel"),
        (("sgd", "--on", "nothing.h5"), 1, "no file at nothing.h5"),
        (("sgd", "--on", "nothing.h5", "--around", "adam"), 2, "--around: "),
        (("sgd", "--on", "nothing.h5", "--x=-1:1:3"), 2, "--x: "),
    ],
)
def test_wrong_questions_are_refused_in_a_few_lines(trained, capsys, arguments, code, named):
    assert run_command("trajectory", *arguments, "--no-figures", results=trained) == code
    err = capsys.readouterr().err
    assert named in err
    assert len(err.splitlines()) <= 3


def test_a_damaged_checkpoint_is_named(results, capsys):
    file = results / "runs" / "sgd" / "checkpoints" / "epoch-0001.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run_command("trajectory", "sgd", *GRID, "--no-figures", results=results) == 1
    assert "epoch-0001.pt" in capsys.readouterr().err


def test_other_epochs_than_those_of_the_file_are_another_plane(results, capsys):
    (results / "runs" / "sgd" / "checkpoints" / "epoch-0002.pt").unlink()
    assert run_command("trajectory", *NAMES, *GRID, "--no-figures", results=results) == 1
    err = capsys.readouterr().err
    assert "differs in" in err
    assert "directions.x" in err


def test_an_estimate_writes_nothing(results, capsys):
    before = sorted((results / "runs" / "sgd").iterdir())
    command = ("trajectory", "sgd", *GRID, "--samples", 100, "--estimate")
    assert run_command(*command, results=results) == 0
    # 12 points and theta0, two evaluations for each of 4 points.
    assert "for 21 points" in capsys.readouterr().out
    assert sorted((results / "runs" / "sgd").iterdir()) == before
