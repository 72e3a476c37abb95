"""A run made again from what it stored, and what is said of differences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import pytest

from isoloss import cli
from isoloss.experiments.reproduction import reproduce
from isoloss.records.runs import Run

TRAIN = ("train", "--run", "a", "--dataset-arg", "size=8", "--fraction", "0.2", "--epochs", "2")
SURFACE = ("surface", "a", "--x=-1:1:3", "--repeat", "2", "--loss", "mse", "--samples", "100")
HESSIAN = ("hessian", "a", "--top", "2", "--probes", "2", "--steps", "5", "--trace-budget", "0")


def command(*arguments: str, results: Path) -> int:
    return cli.main([*arguments, "--results", str(results)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("made")
    for arguments in (TRAIN, SURFACE, HESSIAN):
        assert command(*arguments, "--no-figures", results=results) == 0
    return results


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "results")


def test_the_same_machine_makes_the_same_bytes(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert command("reproduce", "a", "--json", results=results) == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert {part["name"]: part["identical"] for part in parts} == {
        "training": True,
        "hessian.h5": True,
        "surface-1d.h5": True,
    }
    assert all(part["difference"] == 0 and part["reproduced"] for part in parts)


@pytest.mark.parametrize(
    ("file", "name", "factor", "reproduced"),
    [
        ("surface-1d.h5", "train_loss", 1 + 1e-8, True),
        ("surface-1d.h5", "train_loss", 1 + 1e-4, False),
        ("surface-1d.h5", "repeats/train_loss", 1 + 1e-4, False),
        ("hessian.h5", "eigenvalues", 1 + 1e-6, True),
        ("hessian.h5", "eigenvalues", 1 + 1e-3, False),
    ],
)
def test_numbers_that_are_others_are_found(
    results: Path, file: str, name: str, factor: float, reproduced: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with h5py.File(results / "runs" / "a" / file, "r+") as content:
        content[name][...] = content[name][...] * factor
    parts = {part.name: part for part in reproduce("a", results=results)}
    assert not parts[file].identical
    assert parts[file].difference == pytest.approx(abs(factor - 1), rel=0.01)
    assert parts[file].reproduced is reproduced
    assert parts["training"].identical
    assert command("reproduce", "a", results=results) == (0 if reproduced else 1)
    assert ("not reproduced" in capsys.readouterr().err) is not reproduced


def test_another_training_is_found(results: Path) -> None:
    path = results / "runs" / "a" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "seed": 1}))
    training, *_ = reproduce("a", results=results)
    assert not training.identical
    assert not training.reproduced
    assert training.difference is not None
    assert training.difference > 0.01


def test_what_cannot_be_made_again_says_why(results: Path) -> None:
    arguments = ("--model", "fashion-cnn", "--dataset", "digits", "--dataset-arg", "size=8")
    weights = results / "runs" / "a" / "checkpoints" / "last.pt"
    shutil.copy(weights, results / "found.pt")
    surface = ("surface", "--checkpoint", str(results / "found.pt"), *arguments, "--x=-1:1:3")
    assert command(*surface, "--samples", "50", "--no-figures", results=results) == 0
    training, measured = reproduce("found", results=results)
    assert "its weights are from" in training.text()
    assert not training.reproduced
    assert measured.identical
    manifest = Run(results / "runs" / "a").path / "run.json"
    stored = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**stored, "status": "diverged"}))
    assert command("reproduce", "a", results=results) == 1
