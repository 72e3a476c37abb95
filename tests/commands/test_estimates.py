"""Commands say what long work will take, as they begin it; with everything taken to be long."""

from __future__ import annotations

import json

import pytest

from isoloss import cli
from isoloss.experiments import reporting

TRAIN = ("--model", "mnist-light", "--dataset", "digits", "--dataset-arg", "size=8",
         "--fraction", "0.2", "--no-figures")  # fmt: skip


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    def run(*words):
        capsys.readouterr()
        assert cli.main([*words, "--results", str(tmp_path)]) == 0
        return capsys.readouterr().out

    run.everything_is_long = lambda: (
        monkeypatch.setattr(reporting, "_LONG", 0.0),
        monkeypatch.setattr(reporting, "_SECONDS", 0.0),
    )
    return run


def test_train_surface_hessian_and_tune_say_once_what_they_will_take(command):
    train = ("train", "--run", "a", "--epochs", "2", *TRAIN)
    assert "about" not in command(*train), "what is short is not announced"
    command.everything_is_long()
    out = command(*train, "--force")
    assert out.count("about") == 1
    assert " steps of " in out
    assert "--epochs" in out
    surface = ("surface", "a", "--x=-1:1:5", "--samples", "40", "--no-figures")
    out = command(*surface)
    assert out.count("about") == 1
    assert ": 5 points of " in out  # without the first, which is theta0
    assert "fewer with --samples or a coarser grid" in out
    assert "about" not in command(*surface), "what is complete takes nothing"
    json.loads(command(*surface, "--force", "--json"))
    out = command("hessian", "a", "--samples", "40", "--trace-budget", "4", "--probes", "1",
                  "--steps", "3", "--top", "1", "--no-figures")  # fmt: skip
    # 36 for the largest and the smallest, 4 and 10 for the traces, 3 for the density.
    assert out.count(": 53 products of ") == 1
    assert "--trace-budget" in out


def test_tune_counts_rounds_of_trials(command):
    command.everything_is_long()
    options = [f"--set={o}" for o in ("model=mnist-light", "dataset=digits", "epochs=1",
                                      "fraction=0.2", "dataset_arg.size=8")]  # fmt: skip
    out = command("tune", "--name", "t", "--search", "lr=choice:0.01,0.1", "--trials", "2",
                  "--no-figures", *options)  # fmt: skip
    assert out.count(": 2 trials of ") == 1
    assert "fewer with --trials" in out
