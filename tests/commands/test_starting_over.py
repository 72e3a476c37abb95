"""Starting over with --force, and two processes at one run: nothing is lost, nothing is mixed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from isoloss import cli
from isoloss.records.locks import locked_file
from isoloss.records.runs import Run, locked_run
from isoloss.records.spectra import read_spectrum

HOUSE = Path(__file__).resolve().parents[2]
TRAIN = ("train", "--run", "tiny", "--epochs", "1", "--fraction", "0.1", "--no-figures")
SURFACE = ("surface", "tiny", "--x=-1:1:3", "--samples", "40", "--no-figures")
HESSIAN = ("hessian", "tiny", "--top", "1", "--probes", "0", "--trace-budget", "0",
           "--samples", "40", "--no-figures")  # fmt: skip


def command(*arguments, results):
    return cli.main([*map(str, arguments), "--results", str(results)])


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    for arguments in (TRAIN, SURFACE, HESSIAN):
        assert command(*arguments, results=results) == 0
    return results


@pytest.fixture
def results(one_run, tmp_path):
    return shutil.copytree(one_run, tmp_path / "results")


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(
            (*SURFACE, "--device", "cuda"),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA"),
        ),
        (*SURFACE, "--loss", "nowhere.py:loss"),
        (*SURFACE, "--out", "{run}/hessian.h5"),
        (*HESSIAN, "--out", "{run}/surface-1d.h5"),
        (*HESSIAN, "--top", "999999999"),
        (*TRAIN, "--model", "nowhere.py:net"),
        (*TRAIN, "--lr", "-1"),
        (*TRAIN, "--data-dir", "nowhere", "--dataset", "mnist"),
    ],
    ids=" ".join,
)
def test_starting_over_that_fails_leaves_all_as_it_was(results, arguments, capsys):
    run, before = results / "runs" / "tiny", contents(results)
    arguments = [text.format(run=run) for text in arguments]
    assert command(*arguments, "--force", results=results) in (1, 2)
    assert contents(results) == before


def test_starting_over_replaces_what_was_computed(results):
    run = Run(results / "runs" / "tiny")
    assert command(*SURFACE, "--x=-1:1:5", results=results) == 1  # it is another computation
    assert command(*SURFACE, "--x=-1:1:5", "--force", results=results) == 0
    assert command(*SURFACE, "--x=-1:1:5", results=results) == 0
    assert command(*HESSIAN, "--top", "2", "--force", results=results) == 0
    assert len(read_spectrum(run.path / "hessian.h5").eigenpairs.eigenvalues) == 2
    assert command(*TRAIN, "--seed", "1", "--force", results=results) == 0
    assert run.config()["seed"] == 1
    assert run.status == "finished"
    assert not list(run.path.glob("*.h5"))
    assert [p.name for p in run.path.parent.iterdir()] == ["tiny"]
    assert f"{run.path}" in (run.path / "log.txt").read_text()


# A network that never ends its first training step: the new run has its initial weights then.
HANGING = """
import os, time
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        if self.training and "HANG" in os.environ:
            print("in training", flush=True)
            time.sleep(600)
        return self.linear(x.flatten(1)[:, :64])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_second_training_is_refused_until_the_first_has_ended(results, tmp_path, capsys):
    (tmp_path / "net.py").write_text(HANGING)
    arguments = [*TRAIN, "--model", f"{tmp_path}/net.py:Net", "--force", "--results", str(results)]
    first = subprocess.Popen(
        [sys.executable, HOUSE / "cli.py", *arguments],
        env={**os.environ, "HANG": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    while "in training" not in (line := first.stdout.readline()):
        assert line
    run = Run(results / "runs" / "tiny")
    assert run.status == "training"
    assert run.checkpoint().is_file()
    assert not list(run.path.glob("*.h5"))
    before = contents(results)
    for second in (("train", "--run", "tiny", "--resume"), arguments[:-2], SURFACE):
        assert command(*second, results=results) == 1
        assert f"process {first.pid} on" in capsys.readouterr().err
    assert contents(results) == before
    first.kill()
    first.wait()
    first.stdout.close()
    assert command("train", "--run", "tiny", "--resume", "--no-figures", results=results) == 0
    assert run.status == "finished"
    assert [p.name for p in run.path.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("arguments", [TRAIN, SURFACE, HESSIAN, ("evaluate", "tiny")])
def test_no_command_writes_into_a_run_in_training(results, arguments, capsys):
    before = contents(results)
    again = {"train": ["--resume", "--force"], "evaluate": [""]}.get(arguments[0], ["--force"])
    with locked_run(results, "tiny"):
        for option in again:
            given = ("train", "--run", "tiny") if option == "--resume" else arguments
            assert command(*given, *[option] * bool(option), results=results) == 1
            error = capsys.readouterr().err
            assert "run tiny for this process alone, but process" in error
            assert len(error.splitlines()) <= 3
    assert contents(results) == before


@pytest.mark.parametrize("arguments", [TRAIN, SURFACE, HESSIAN, ("evaluate", "tiny")])
def test_one_file_is_written_by_one_process_and_others_are_free(results, arguments, capsys):
    run, before = results / "runs" / "tiny", contents(results)
    own = {"surface": "surface-1d.h5", "hessian": "hessian.h5", "evaluate": "evaluation.json"}
    own = own.get(arguments[0], "surface-1d.h5")  # train takes them all
    force = () if arguments[0] == "evaluate" else ("--force",)
    with locked_file(run / own):
        assert command(*arguments, *force, results=results) == 1
        assert "at work on it" in capsys.readouterr().err
    assert contents(results) == before
    if arguments[0] != "train":
        with locked_file(run / "another.h5"):
            assert command(*arguments, *force, results=results) == 0
