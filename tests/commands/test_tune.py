"""`tune` on a tiny plug-in: judged on validation, resumed, in parallel, and what it refuses."""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
import sys
import textwrap

import pytest

from isoloss import cli
from isoloss.errors import UsageError
from isoloss.experiments import trial_runs
from isoloss.experiments.search_space import parse_search, parse_settings, trial_options
from isoloss.records.locks import locked
from isoloss.records.runs import Run

pytest.importorskip("optuna")

PLUGIN = """
    import os, signal
    import torch
    from torch import nn

    def data(data_dir, n=160):
        g = torch.Generator().manual_seed(0)
        y = torch.arange(n) % 2
        x = torch.randn(n, 2, generator=g) + y[:, None]
        return {"train": (x[: n // 2], y[: n // 2]), "test": (x[n // 2 :], y[n // 2 :])}

    def net(width=4, num_features=2, num_classes=2):
        if width == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.Sequential(nn.Linear(num_features, width), nn.Linear(width, num_classes))
"""
LR = "lr=loguniform:1e-3:1"


@pytest.fixture
def tune(tmp_path):
    plugin = tmp_path / "blobs.py"
    plugin.write_text(textwrap.dedent(PLUGIN))
    fixed = {"dataset": f"{plugin}:data", "model": f"{plugin}:net", "epochs": 1}
    (tmp_path / "fixed.json").write_text(json.dumps(fixed | {"val_fraction": 0.3}))

    def run(*arguments, name="a", search=(LR,)):
        ranges = [part for text in search for part in ("--search", text)]
        config = ("--config", str(tmp_path / "fixed.json"), "--results", str(tmp_path / "results"))
        return cli.main(["tune", "--name", name, *ranges, *config, *map(str, arguments)])

    run.folder = tmp_path / "results" / "tune"
    return run


def rows(folder):
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_time(folder):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder)]


@pytest.mark.slow
def test_the_best_on_validation_is_tested_once_and_trains_again(tune, capsys, tmp_path):
    folder = tune.folder / "a"
    search = (LR, "optimizer=choice:sgd,adam", "model-arg.width=int:2:6:2")
    assert tune("--trials", 3, search=search) == 0
    out = capsys.readouterr().out
    table = rows(folder)
    assert [row["state"] for row in table] == ["complete"] * 3
    assert {row["model_arg.width"] for row in table} <= {"2", "4", "6"}
    best = min(table, key=lambda row: (-float(row["val_accuracy"]), float(row["val_loss"])))
    summary = json.loads((folder / "tune.json").read_text())
    assert summary["best"]["run"] == best["run"]
    assert summary["best"]["val"]["accuracy"] == float(best["val_accuracy"])
    assert f"best: {best['run']} of 3 trials" in out
    assert (folder / "trials.png").is_file()
    for row in table:
        run = Run(folder / "runs" / row["run"])
        tested = "test" in run.evaluation()["splits"]
        assert tested == (row is best) == (run.path / "report.txt").is_file()
        assert run.config()["lr"] == float(row["lr"])
        assert run.config()["optimizer"] == row["optimizer"]
    assert summary["tested_runs"] == [best["run"]]

    results = ("--results", str(tmp_path / "again"))
    config = ("--config", str(folder / "best.json"))
    assert cli.main(["train", "--run", "b", *config, *results, "--no-figures"]) == 0
    weights = [
        Run(path).evaluation()["checkpoint_sha256"]
        for path in (folder / "runs" / best["run"], tmp_path / "again" / "runs" / "b")
    ]
    assert weights[0] == weights[1]

    def untouched(*arguments, **settings):
        raise AssertionError("a complete search trains nothing")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_runs, "train", untouched)
        assert tune("--trials", 3, "--json", "--no-figures", search=search) == 0
    printed = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert printed["best"] == summary["best"]


def test_an_interrupted_search_goes_on_as_if_it_never_stopped(tune, capsys, monkeypatch):
    assert tune("--trials", 4, "--no-figures", name="whole") == 0
    train, calls = trial_runs.train, []

    def interrupted(*arguments, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(trial_runs, "train", interrupted)
        assert tune("--trials", 4, "--no-figures") == 1
    assert "interrupted after 2 of 4 trials" in capsys.readouterr().err
    assert tune("--trials", 4, "--no-figures") == 0
    assert without_time(tune.folder / "a") == without_time(tune.folder / "whole")

    assert tune("--trials", 5, "--no-figures", search=("lr=uniform:0.1:0.2",)) == 1
    error = capsys.readouterr().err
    assert "--search lr=loguniform:1e-3:1 (now uniform:0.1:0.2)" in error
    assert "--force" in error
    assert tune("--trials", 1, "--no-figures", "--force", search=("lr=uniform:0.1:0.2",)) == 0
    assert len(rows(tune.folder / "a")) == 1
    assert len(list((tune.folder / "a" / "runs").iterdir())) == 1


def test_a_diverged_trial_is_a_failed_one(tune, capsys):
    assert tune("--trials", 4, search=("lr=choice:0.1,1e38",)) == 0
    states = {row["lr"]: (row["state"], row["val_accuracy"]) for row in rows(tune.folder / "a")}
    assert states["1e38"] == ("failed", "")
    assert states["0.1"][0] == "complete"
    assert tune("--trials", 2, name="b", search=("lr=choice:1e37,1e38",)) == 1
    error = capsys.readouterr().err
    assert "expected one completed trial or more, all 2 failed" in error
    assert "trials.csv" in error


def test_options_that_do_not_go_together_end_the_search(tune, capsys):
    search = (LR, "model_arg.depth=int:1:2")
    assert tune("--trials", 9, search=search) == 2
    assert "3 trials in a row: " in capsys.readouterr().err
    assert len(rows(tune.folder / "a")) == 3
    # Nothing is lost with other settings, as nothing was completed.
    assert tune("--trials", 1, "--no-figures") == 0


@pytest.mark.slow
def test_trials_in_processes_of_their_own(tune):
    width = ("model_arg.width=choice:4,13",)
    assert tune("--trials", 2, "--jobs", 2, "--no-figures", search=width) == 0
    table = rows(tune.folder / "a")
    assert len(table) == 2
    for row in table:  # a process that was killed takes its trial with it, and no other
        killed = row["model_arg.width"] == "13"
        assert row["state"] == ("failed" if killed else "complete")
        assert row["reason"] == ("its process was ended by signal 9" if killed else "")
    assert {row["model_arg.width"] for row in table} == {"4", "13"}


def test_starting_over_gives_the_old_search_up_when_a_trial_has_run(tune, capsys, monkeypatch):
    assert tune("--trials", 1, "--no-figures") == 0
    before = {p: p.read_bytes() for p in tune.folder.rglob("*") if p.is_file()}

    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial_runs, "train", interrupted)
        assert tune("--trials", 1, "--no-figures", "--seed", 1, "--force") == 1
    assert tune("--trials", 1, "--no-figures", "--set", "val_fraction=0", "--force") == 1
    assert tune("--trials", 1, "--force", search=("model_arg.size=choice:1,2",)) != 0
    assert {p: p.read_bytes() for p in tune.folder.rglob("*") if p.is_file()} == before
    assert tune("--trials", 1, "--no-figures", "--seed", 1, "--force") == 0
    assert json.loads((tune.folder / "a" / "tune.json").read_text())["seed"] == 1
    assert [p.name for p in tune.folder.iterdir()] == ["a"]


def test_data_without_validation_end_the_search(tune, capsys):
    assert tune("--trials", 2, "--set", "val_fraction=0") == 1
    assert "expected a validation split" in capsys.readouterr().err


def test_one_process_at_a_time(tune, capsys):
    with locked(tune.folder / "a", "it"):
        assert tune("--trials", 1) == 1
    assert "search a for this process alone, but process" in capsys.readouterr().err


def test_without_optuna(tune, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune("--trials", 1) == 1
    assert "pip install optuna" in capsys.readouterr().err


def test_ranges_and_settings_become_options():
    space = parse_search(
        [
            "weight-decay=uniform:0:0.01:0.005",
            "batch_size=choice:16,full",
            "epochs=logint:1:8",
            "model_arg.widths=choice:[8,12],[16, 24]",
            "nesterov=choice:true,none",
            "clip=choice:none,1",
        ]
    )
    fixed = parse_settings(["model_arg.head=gap", "model_arg.depth=2", "loss=mse", "momentum=0"])
    drawn = {
        "weight_decay": 0.005,
        "batch_size": "full",
        "epochs": 4,
        "model_arg.widths": "[16, 24]",
        "nesterov": "true",
        "clip": "none",
    }
    options = trial_options(fixed, space, drawn, "trial-0001")
    assert options.model_arg == {"head": "gap", "depth": 2, "widths": [16, 24]}
    assert (options.weight_decay, options.batch_size, options.epochs) == (0.005, None, 4)
    assert (options.nesterov, options.clip, options.loss, options.momentum) == (
        True,
        None,
        "mse",
        0,
    )
    assert {o: d.scale for o, d in space.items()}["epochs"] == "log"
    step = space["weight_decay"].distribution()
    assert (step.low, step.high, step.step, step.log) == (0.0, 0.01, 0.005, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "expected OPTION=RANGE, such as lr=loguniform:1e-4:1e-1, got 'lr'"),
        ("rh=uniform:0:1", "no option 'rh' to set; did you mean rho"),
        ("run=choice:a,b", "no option 'run' to set"),
        ("lr=logunifrm:1:2", "did you mean loguniform:LOW:HIGH?"),
        ("lr=loguniform:0:1", "LOW above 0 on a log scale, got 'loguniform:0:1'"),
        ("lr=uniform:1:0", "LOW below HIGH and STEP above 0, got 'uniform:1:0'"),
        ("lr=uniform:0:1:0", "STEP above 0"),
        ("lr=loguniform:1:2:3", "expected loguniform:LOW:HIGH with LOW below HIGH, got"),
        ("lr=uniform:nan:1", "LOW below HIGH"),
        ("lr=uniform:0:1e999", "expected finite ends"),
        ("lr=uniform:0:1:nan", "expected finite ends, of 64 bits, and up to 1,000,000,000 steps"),
        ("lr=uniform:0:1:1e999", "expected finite ends"),
        ("model_arg.a=uniform:1:1e308:1", "and up to 1,000,000,000 steps"),
        ("model_arg.a=int:1:" + "9" * 30, "expected finite ends, of 64 bits"),
        ("lr=uniform:1", "expected uniform:LOW:HIGH"),
        ("lr=uniform:a:b", "of numbers, got 'uniform:a:b'"),
        ("epochs=int:1.5:3", "of whole numbers"),
        ("epochs=uniform:1:3", "epochs is a whole number: expected epochs=int:LOW:HIGH"),
        ("optimizer=uniform:1:3", "optimizer is no number: expected optimizer=choice:A,B"),
        ("nesterov=int:0:1", "nesterov is no number"),
        ("lr=choice:0.1", "two or more different values"),
        ("lr=choice:0.1,0.1", "two or more different values"),
        ("lr=choice:0.1,fast", "lr: expected float, got 'fast'"),
        ("epochs=choice:1,2.5", "epochs: expected int, got 2.5"),
        ("model_arg=choice:1,2", "expected model_arg.NAME=.., got"),
        ("lr.x=choice:1,2", "expected lr=.., got"),
        ("fraction=uniform:0.1:1", "decides which samples trials are judged by"),
    ],
)
def test_ranges_that_are_refused(text, message):
    with pytest.raises(UsageError) as caught:
        parse_search([text])
    assert message in str(caught.value)
    assert str(caught.value).startswith("`search`: ")
    assert len(str(caught.value).splitlines()) <= 3


def test_a_range_given_twice_or_fixed_as_well(tune, capsys):
    assert tune("--trials", 1, search=(LR, LR)) == 2
    assert "lr is given twice" in capsys.readouterr().err
    assert tune("--trials", 1, "--set", "lr=0.1") == 2
    assert "--set: lr is searched" in capsys.readouterr().err
    assert tune("--trials", 1, search=()) == 2
    assert "expected one range or more" in capsys.readouterr().err
    with pytest.raises(UsageError, match="`fixed`: epochs: expected int, got 'five'"):
        parse_settings(["epochs=five"])
    assert not tune.folder.exists()


@pytest.mark.parametrize("damage", ["another file", "half a file", "other results"])
def test_the_damaged_file_of_a_search_is_refused(tune, capsys, damage):
    assert tune("--trials", 1, "--no-figures") == 0
    file = tune.folder / "a" / "study.db"
    if damage == "another file":
        file.write_bytes(b"nonsense " * 1000)
    elif damage == "half a file":
        file.write_bytes(file.read_bytes()[:8192])
    else:
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute(
                "UPDATE study_user_attributes SET value_json = '[1]' WHERE key LIKE 'trial%'"
            )
    capsys.readouterr()
    assert tune("--trials", 2, "--no-figures") == 1
    error = capsys.readouterr().err
    assert "study.db" in error
    assert "unexpected" not in error
    assert len(error.splitlines()) <= 3
