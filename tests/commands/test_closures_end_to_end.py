"""A closure of the user's own through training, surface, spectrum and evaluation."""

from __future__ import annotations

import json

import pytest
import torch

from isoloss import cli
from isoloss.experiments.subject import Subject
from isoloss.records.runs import Run
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import read_surface

THEIRS = '''
import torch
from torch import nn


class Coder(nn.Module):
    """Cannot be called as a whole."""

    def __init__(self, features):
        super().__init__()
        self.encoder = nn.Linear(features, 4)
        self.decoder = nn.Linear(2, features)

    def forward(self, x, noise):
        raise AssertionError("the closure calls the parts")


def build(input_shape):
    return Coder(input_shape[0])


def load(data_dir):
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()
    return {"train": (x[:40], y[:40]), "test": (x[40:], y[40:])}


def closure(model, batch, beta=1.0):
    x, _ = batch
    mean, spread = model.encoder(x).chunk(2, 1)
    divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1)
    return 0.5 * (model.decoder(mean) - x).square().sum(1) + beta * divergence


def outside(model, batch):
    return closure(model, batch).mean()


def both(outputs, targets):
    return outputs
'''


@pytest.fixture
def theirs(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(THEIRS)
    return file


def train(theirs, tmp_path, *more):
    return cli.main([
        "train", "--model", f"{theirs}:build", "--dataset", f"{theirs}:load", "--closure",
        f"{theirs}:closure", "--run", "coder", "--epochs", "3", "--batch-size", "8",
        "--results", str(tmp_path / "results"), *more,
    ])  # fmt: skip


def test_train_surface_hessian_and_evaluate_with_a_closure(theirs, tmp_path, capsys):
    results = ["--results", str(tmp_path / "results")]
    assert train(theirs, tmp_path, "--loss-arg", "beta=0.5") == 0
    run = Run(tmp_path / "results" / "runs" / "coder")
    assert run.config()["closure"] == f"{theirs}:closure"
    assert sorted(run.facts().plugins) == ["closure", "dataset", "model"]
    assert (run.path / "plugins" / "closure-theirs.py").read_text() == THEIRS
    history = run.history()
    assert history["train_loss"][-1] < history["train_loss"][0]

    assert cli.main(["surface", "coder", "--x=-1:1:3", *results]) == 0
    surface = read_surface(run.path / "surface-1d.h5")
    assert surface.settings["loss"]["spec"] == f"{theirs}:closure"
    assert surface.settings["loss"]["arguments"] == {"beta": 0.5}
    assert surface.settings["loss"]["sha256"]
    assert surface.settings["closure"] == "closure"
    space = {}
    exec(THEIRS, space)
    subject = Subject.from_run("coder", results=tmp_path / "results")
    split = subject.split("train")
    with torch.no_grad():
        pair = (split.inputs, split.targets)
        expected = space["closure"](subject.model, pair, beta=0.5).mean().item()
    assert surface.origin["train_loss"] == pytest.approx(expected, rel=1e-5)

    scores = run.evaluation()["splits"]
    assert scores["train"]["loss"] == pytest.approx(expected, rel=1e-5)
    assert scores["test"]["accuracy"] is None
    assert scores["test"]["count"] == 20
    (run.path / "evaluation.json").unlink()
    assert cli.main(["evaluate", "coder", *results]) == 0
    assert run.evaluation()["splits"] == scores
    assert run.evaluation()["loss"]["closure"] is True
    assert "loss" in (run.path / "report.txt").read_text()
    assert not (run.path / "predictions.csv").exists()

    options = ["--top", "2", "--trace-budget", "6", "--probes", "1", *results]
    assert cli.main(["hessian", "coder", *options]) == 0
    assert read_spectrum(run.path / "hessian.h5").settings["loss"]["closure"] is True

    # Another closure, or a loss, for one measurement.
    other = tmp_path / "other.h5"
    again = ["surface", "coder", "--x=-1:1:3", "--closure", f"{theirs}:closure", "--out"]
    assert cli.main([*again, str(other), *results]) == 0
    assert read_surface(other).settings["loss"]["arguments"] == {}
    assert read_surface(other).origin["train_loss"] > expected
    capsys.readouterr()
    assert cli.main(["surface", "coder", "--json", "--x=-1:1:3", *results]) == 0
    assert json.loads(capsys.readouterr().out)["points_computed"] == 0


def test_training_follows_the_gradient_of_the_closure(theirs, tmp_path):
    plain = ["--optimizer", "sgd", "--lr", "0.1", "--momentum", "0", "--no-figures"]
    more = ["--batch-size", "full", "--epochs", "1", "--checkpoint-every", "1", *plain]
    assert train(theirs, tmp_path, *more) == 0
    folder = tmp_path / "results" / "runs" / "coder" / "checkpoints"
    first, last = (
        torch.load(folder / name, weights_only=True) for name in ("epoch-0000.pt", "last.pt")
    )
    subject = Subject.from_run("coder", results=tmp_path / "results", checkpoint="epoch-0000")
    gradient = subject.problem("train").gradient()
    for name, value in first.items():
        torch.testing.assert_close(last[name], value - 0.1 * gradient[name], rtol=0, atol=1e-6)


def test_a_closure_that_cannot_be_is_refused(theirs, tmp_path, capsys):
    def refused(status, words, *more):
        capsys.readouterr()
        assert train(theirs, tmp_path, "--no-figures", *more) == status
        error = capsys.readouterr().err
        assert words in error
        assert len(error.splitlines()) <= 3

    refused(2, "--loss", "--loss", "mse")
    refused(2, "path/file.py", "--closure", "closure")
    refused(2, "gamma", "--loss-arg", "gamma=2")
    refused(1, "one value a sample", "--closure", f"{theirs}:outside")
    assert train(theirs, tmp_path, "--no-figures", "--force") == 0
    capsys.readouterr()
    surface = ["surface", "coder", "--x=-1:1:3", "--results", str(tmp_path / "results")]
    assert cli.main([*surface, "--loss", "mse", "--closure", f"{theirs}:closure"]) == 2
    theirs.write_text(THEIRS + "\n# changed\n")
    assert cli.main(surface) == 1
    assert "changed" in capsys.readouterr().err


def test_weights_from_elsewhere_are_measured_with_a_closure(theirs, tmp_path):
    space = {}
    exec(THEIRS, space)
    torch.manual_seed(0)
    model = space["build"]((5,))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    command = [
        "surface", "--checkpoint", str(tmp_path / "weights.pt"), "--model", f"{theirs}:build",
        "--dataset", f"{theirs}:load", "--closure", f"{theirs}:closure", "--x=-1:1:3",
        "--results", str(tmp_path / "results"),
    ]  # fmt: skip
    assert cli.main(command) == 0
    run = Run(tmp_path / "results" / "runs" / "weights")
    with torch.no_grad():
        train = space["load"](None)["train"]
        expected = space["closure"](model, train).mean().item()
    found = read_surface(run.path / "surface-1d.h5").origin["train_loss"]
    assert found == pytest.approx(expected, rel=1e-5)
    assert (run.path / "plugins" / "closure-theirs.py").exists()
