"""Surfaces along every kind of direction from the command line, on small runs of the digits."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from isoloss import cli
from isoloss.experiments.reproduction import reproduce
from isoloss.experiments.selection import select
from isoloss.experiments.settings import Selection
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import read_surface
from isoloss.trainers.checkpoints import load_state, load_weights

TRAIN = ("train", "--dataset-arg", "size=8", "--fraction", "0.2", "--epochs", "2", "--no-figures",
         "--checkpoint-every", "1", "--batch-size", "64")  # fmt: skip
# Smooth, so that second differences are curvature, and with buffers that a direction may move.
NET = """
from torch import nn
def net(num_features, num_classes, width=12):
    return nn.Sequential(nn.Flatten(), nn.Linear(num_features, width), nn.BatchNorm1d(width),
                         nn.Tanh(), nn.Linear(width, num_classes))
"""
FAST = ("--samples", "60", "--no-figures")


def command(*arguments, results):
    return cli.main([*map(str, arguments), "--results", str(results)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs a and b of one network, wide of another, and a's spectrum."""
    results = tmp_path_factory.mktemp("trained")
    (results / "net.py").write_text(NET)
    for name, more in {
        "a": ("--optimizer", "adam"),
        "b": ("--seed", "1", "--optimizer", "sam"),
        "plain": ("--optimizer", "sgd", "--momentum", "0"),
        "wide": ("--model-arg", "width=13"),
    }.items():
        model = ("--model", f"{results / 'net.py'}:net")
        assert command(*TRAIN, *model, "--run", name, *more, results=results) == 0
    spectrum = ("--top", "2", "--probes", "0", "--trace-budget", "0", "--smallest", "1")
    assert command("hessian", "a", *spectrum, *FAST, results=results) == 0
    return results


@pytest.fixture
def results(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "results")


def surface(*arguments, results, run="a"):
    """Make a surface; return its data."""
    assert command("surface", run, *FAST, *arguments, results=results) == 0
    paths = (results / "runs" / run).glob("surface*.h5")
    return read_surface(max(paths, key=lambda path: path.stat().st_mtime_ns))


def loss_of(run, results, checkpoint="last"):
    """The loss of a checkpoint as a surface of it has it."""
    arguments = ("--x=0:0:1", "--checkpoint", checkpoint, "--out", results / "one.h5", "--force")
    assert command("surface", run, *FAST, *arguments, results=results) == 0
    return read_surface(results / "one.h5").origin["train_loss"]


def test_another_run_lies_at_one(results):
    data = surface("--xdir", "to:b", "--x=-0.5:1:4", results=results)
    assert data.values["train_loss"][-1] == pytest.approx(loss_of("b", results), rel=1e-6)
    recipe = data.settings["directions"]["x"]
    assert (recipe["kind"], recipe["run"], recipe["label"]) == ("to", "b", "towards b")
    assert (recipe["normalisation"], recipe["ignore"]) == ("none", "none")
    assert (recipe["dir_type"], recipe["reaches"]) == ("states", True)
    path = results / "runs" / "a" / "surface-1d-to-b.h5"
    with h5py.File(path) as file:  # parameters, then buffers
        names = list(select(Selection(run="a", results=results)).problem().parameters)
        first = file["xdirection/0"][...]
        assert len(file["xdirection"]) > len(names)
    ours, theirs = (
        load_weights(results / "runs" / run / "checkpoints" / "last.pt")[names[0]]
        for run in ("a", "b")
    )
    np.testing.assert_allclose(first, (theirs - ours).numpy(), rtol=1e-6)


def test_a_plane_through_three_checkpoints(results):
    checkpoint = results / "runs" / "b" / "checkpoints" / "last.pt"
    data = surface("--xdir", f"to:{checkpoint}", "--ydir", "to:@epoch-0", "--x=0:1:2", "--y=0:1:2",
                   results=results)  # fmt: skip
    found = data.values["train_loss"]
    assert found[0, 1] == pytest.approx(loss_of("b", results), rel=1e-6)
    assert found[1, 0] == pytest.approx(loss_of("a", results, "epoch-0000"), rel=1e-6)
    assert data.cosine != 0
    labels = [data.settings["directions"][axis]["label"] for axis in "xy"]
    assert labels == ["towards last", "towards epoch 0"]


def test_only_the_weights_move_where_asked_for(results):
    data = surface("--xdir", "to:b", "--x=0:1:2", "--dir-type", "weights", results=results)
    assert abs(data.values["train_loss"][-1] - loss_of("b", results)) > 1e-4
    assert data.settings["directions"]["x"]["reaches"] is False


def test_eigenvectors_curve_by_their_eigenvalues(results):
    pairs = read_spectrum(results / "runs" / "a" / "hessian.h5").eigenpairs
    h = 0.02
    for index, value in ((0, pairs.eigenvalues[0]), (-1, pairs.smallest_eigenvalues[0])):
        data = surface(f"--xdir=eigen:{index}", f"--x=-{h}:{h}:3", "--dtype", "float64",
                       results=results)  # fmt: skip
        loss = data.values["train_loss"]
        assert (loss[0] - 2 * loss[1] + loss[2]) / h**2 == pytest.approx(value, rel=0.02)
        recipe = data.settings["directions"]["x"]
        assert recipe["label"] == f"eigenvector {index} (λ = {value:.3g})"


def test_the_gradient_has_its_slope(results):
    data = surface("--xdir", "gradient", "--x=-0.001:0.001:3", "--dtype", "float64",
                   results=results)  # fmt: skip
    with h5py.File(results / "runs" / "a" / "surface-1d-gradient.h5") as file:
        square = sum(float((array[...] ** 2).sum()) for array in file["xdirection"].values())
    slope = (data.values["train_loss"][2] - data.values["train_loss"][0]) / 0.002
    assert slope == pytest.approx(square, rel=1e-3)


@pytest.mark.parametrize("run", ["a", "b"])
def test_the_update_goes_back_to_the_weights_before_the_last_step(run, results):
    """Adam by its formula, and SAM over SGD by its momentum, from what the state holds."""
    data = surface("--xdir", "update", "--x=-1:0:2", results=results, run=run)
    state = load_state(results / "runs" / run / "checkpoints" / "state.pt")
    group, entries = state["optimizer"]["param_groups"][0], state["optimizer"]["state"]
    with h5py.File(results / "runs" / run / "surface-1d-update.h5") as file:
        for number, entry in entries.items():
            if run == "a":
                m = entry["exp_avg"] / (1 - 0.9 ** entry["step"])
                v = entry["exp_avg_sq"] / (1 - 0.999 ** entry["step"])
                expected = -group["lr"] * m / (v.sqrt() + 1e-8)
            else:
                expected = -group["lr"] * entry["momentum_buffer"]
            found = torch.from_numpy(file[f"xdirection/{number}"][...])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
    assert data.settings["directions"]["x"]["label"] == (
        "last step (adam)" if run == "a" else "last step (sam over sgd)"
    )


def test_a_direction_of_a_file_is_the_same_direction(results):
    first = surface("--xdir", "to:b", "--x=0:1:3", results=results)
    source = results / "runs" / "a" / "surface-1d-to-b.h5"
    again = surface("--xdir", f"file:{source}", "--x=0:1:3", results=results)
    np.testing.assert_array_equal(first.values["train_loss"], again.values["train_loss"])
    digests = [data.settings["directions"]["x"]["digest"] for data in (first, again)]
    assert digests[0] == digests[1]
    # Without buffers, and as x of a file taken for y: in the order of the parameters all the same.
    plain = surface("--x=0:1:3", "--y=0:0:1", "--ydir", f"file:{source}:x", "--dir-type", "weights",
                    "--no-orthogonal", results=results)  # fmt: skip
    assert "dir_type" not in plain.settings["directions"]["y"]


def test_a_random_direction_beside_a_fixed_one_is_drawn_again_and_again(results):
    data = surface("--xdir=eigen:0", "--ydir", "random", "--x=-1:1:3", "--y=-1:1:3",
                   "--repeat", "3", results=results)  # fmt: skip
    assert data.repeats.done.all()
    assert np.abs(data.repeats.cosines).max() < 1e-6
    along = data.repeats.values["train_loss"][:, 1]  # y = 0: the same line every time
    assert (along == along[0]).all()
    others = data.repeats.values["train_loss"][:, 0]
    assert not np.allclose(others[0], others[1])
    assert len(set(data.settings["repeats"]["seeds"])) == 3


def test_surfaces_along_directions_are_reproduced_and_changes_are_named(results):
    surface("--xdir", "to:b", "--ydir", "eigen:1", "--x=0:1:2", "--y=0:1:2", results=results)
    name = "surface-2d-to-b-eigen-1.h5"
    parts = {part.name: part for part in reproduce("a", results=results)}
    assert parts[name].identical
    shutil.rmtree(results / "reproduced")
    shutil.rmtree(results / "runs" / "b")
    model = ("--model", f"{results / 'net.py'}:net")
    assert command(*TRAIN, *model, "--run", "b", "--seed", "2", results=results) == 0
    parts = {part.name: part for part in reproduce("a", results=results)}
    assert not parts[name].reproduced
    assert "x (towards b)" in parts[name].reason


def test_a_surface_goes_on_along_its_own_directions_alone(results, capsys):
    out = ("--out", results / "one.h5")
    assert command("surface", "a", "--xdir", "to:b", "--x=0:1:2", *FAST, *out, results=results) == 0
    capsys.readouterr()
    assert command("surface", "a", "--xdir", "gradient", "--x=0:1:2", *FAST, *out,
                   results=results) == 1  # fmt: skip
    error = capsys.readouterr().err
    assert "directions.x" in error
    assert '"to", now "gradient"' in error


TIED = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(10, 10)
        self.frozen.requires_grad_(False)
    def forward(self, x):
        return self.frozen(self.out(self.second(self.first(x.flatten(1)).tanh())))
"""


def test_tied_weights_are_one_and_frozen_ones_that_differ_are_said(tmp_path, capsys):
    (tmp_path / "tied.py").write_text(TIED)
    for seed in (0, 1):
        assert command(*TRAIN, "--model", f"{tmp_path / 'tied.py'}:Net", "--seed", seed,
                       "--run", f"t{seed}", results=tmp_path) == 0  # fmt: skip
    capsys.readouterr()
    axis = ("t0", "--xdir", "to:t1", "--x=0:1:2", *FAST)
    assert command("surface", *axis, results=tmp_path) == 2
    assert "frozen.weight and 1 more differ" in capsys.readouterr().err
    assert command("surface", *axis, "--parameters", "all", results=tmp_path) == 0
    data = read_surface(tmp_path / "runs" / "t0" / "surface-1d-to-t1.h5")
    assert data.values["train_loss"][1] == pytest.approx(loss_of("t1", tmp_path), rel=1e-6)
    assert data.settings["directions"]["x"]["reaches"]
    held = ("--parameters", "trainable", "--out", tmp_path / "held.h5")
    assert command("surface", *axis, *held, results=tmp_path) == 0
    assert not read_surface(tmp_path / "held.h5").settings["directions"]["x"]["reaches"]


REFUSED = {
    "--xdir tob": ("--xdir", "to:RUN", "did you mean to?"),
    "--xdir gradiant": ("--xdir", "did you mean gradient"),
    "--xdir to:": ("--xdir", "to:RUN", "@epoch-0"),
    "--xdir random:3": ("random alone",),
    "--xdir to:a": ("the other weights are the same",),
    "--xdir to:c": ("no run c",),
    "--xdir to:nowhere/last.pt": ("no file at nowhere/last.pt",),
    "--xdir to:b@epoch-9": ("0, 1, 2", "epoch-9"),
    "--xdir to:b@first": ("last, best or epoch-N", "first"),
    "--xdir to:wide": ("does not fit", "other shapes", "1.weight"),
    "--xdir=eigen:7": ("0 to 1 and -1 to -1, got 7", "top"),
    "--xdir=eigen:first": ("whole number", "eigen:first"),
    "--xdir=eigen:0 --checkpoint epoch-0001": ("eigenvectors at the weights", "--checkpoint"),
    "--xdir=eigen:0 --parameters *.weight": ("eigenvectors at the weights", "--parameters"),
    "--xdir update --checkpoint epoch-0001": ("the weights that the training ended with", "last"),
    "--xdir file:nowhere.h5": ("no file at nowhere.h5",),
    "--xdir to:b --x=-40:40:3": ("running variances of 0 or more", "take x within", "--dir-type"),
    "--dir-type states --ignore none --x=-99:99:3": ("running variances", "take x within"),
    "--xdir to:b --repeat 3": ("--repeat", "a random direction", "to"),
    "--ydir to:b": ("--ydir", "without --y"),
    "--xdir to:b --ydir to:b --y=0:1:2": ("cosine of 1.000000", "parallel"),
    "--xdir to:b --norm filtre": ("filter, layer", "filtre"),
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_refusals(arguments, trained, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    code = command("surface", "a", *arguments.split(), *FAST, results=trained)
    error = capsys.readouterr().err
    assert code in (1, 2), error
    assert 1 <= len(error.splitlines()) <= 3, error
    assert "Traceback" not in error
    for text in REFUSED[arguments]:
        assert text in error
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_run_whose_optimizer_keeps_nothing_says_so(trained, capsys):
    assert command("surface", "plain", "--xdir", "update", *FAST, results=trained) == 2
    assert "keeps nothing of its last step: SGD" in capsys.readouterr().err
    assert command("surface", "plain", "--xdir=eigen:0", *FAST, results=trained) == 2
    assert "compute them first" in capsys.readouterr().err


def test_the_summary_is_json(results, capsys):
    capsys.readouterr()
    assert command("surface", "a", "--xdir", "gradient", "--x=0:1:2", *FAST, "--json",
                   results=results) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["points"] == 2
