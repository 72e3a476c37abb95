"""Run folders: names, manifests, damaged files, and no torch."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from isoloss.records.runs import (
    Run,
    RunError,
    find_run,
    list_runs,
    locked_run,
    new_run,
    newest_run,
    refuse_taken,
    run_folders,
)

CONFIG = {"model": "fashion-cnn", "optimizer": {"name": "sgd", "lr": 0.05}, "seed": 0}


@dataclass(frozen=True)
class Record:
    epoch: int
    train_loss: float
    val_loss: float


NAMES = {
    "mnist-sam": True, "a.b_c-D9": True, "-x": True, "_": True, "0": True, "..": False,
    ".hidden": False, "": False, "a/b": False, "a b": False, "größe": False, "a\n": False,
    "../up": False,
}  # fmt: skip


def create_run(results, name, config, **how):
    with new_run(results, name, config, **how):
        pass
    return find_run(results, name)


@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path, name):
    if NAMES[name]:
        assert create_run(tmp_path, name, CONFIG).name == name
        assert find_run(tmp_path, name).config() == CONFIG
    else:
        for action in (
            lambda: create_run(tmp_path, name, CONFIG),
            lambda: find_run(tmp_path, name),
        ):
            with pytest.raises(RunError, match="letters, digits"):
                action()
        assert list(tmp_path.iterdir()) == []


def test_a_run_describes_itself(tmp_path):
    run = create_run(tmp_path, "one", {**CONFIG, "label": "SGD, lr 0.05"})
    with locked_run(tmp_path, "one"):
        assert (run.status, run.label) == ("training", "SGD, lr 0.05")
    assert run.status == "interrupted"  # nobody is at work on it
    run.write_history([Record(1, 0.5, math.nan), Record(2, 0.25, math.inf)])
    scores = {"loss": np.float32(0.5), "accuracy": None, "classes": np.eye(2, dtype=int)}
    run.write_evaluation({"splits": {"test": scores}})
    created = run.manifest()["created"]
    run.write_manifest("finished", seconds=1.5)
    again = find_run(tmp_path, "one")
    assert (again.status, again.manifest()["seconds"]) == ("finished", 1.5)
    assert again.manifest()["created"] == created
    history = again.history()
    assert list(history) == ["epoch", "train_loss", "val_loss"]
    assert history["train_loss"].tolist() == [0.5, 0.25]
    assert np.isnan(history["val_loss"]).all()
    read = {"loss": 0.5, "accuracy": None, "classes": [[1, 0], [0, 1]]}
    assert again.evaluation() == {"splits": {"test": read}}
    assert (run.path / "history.csv").read_text() == (
        "epoch,train_loss,val_loss\n1,0.5,\n2,0.25,\n"
    )
    for file in run.path.glob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)  # called for NaN and Infinity


def test_label_falls_back_to_the_name(tmp_path):
    assert create_run(tmp_path, "one", CONFIG).label == "one"


def test_a_taken_name_needs_force_and_force_clears(tmp_path):
    run = create_run(tmp_path, "one", CONFIG)
    (run.path / "surface.h5").write_bytes(b"of the old weights")
    with pytest.raises(RunError, match="`force`"):
        create_run(tmp_path, "one", {})
    assert run.config() == CONFIG
    create_run(tmp_path, "one", {"seed": 1}, force=True)
    assert run.config() == {"seed": 1}
    assert not (run.path / "surface.h5").exists()


def test_force_spares_a_folder_that_is_no_run(tmp_path):
    folder = tmp_path / "runs" / "thesis"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="none of ours: thesis"):
        create_run(tmp_path, "thesis", CONFIG, force=True)
    assert (folder / "thesis.tex").exists()


def test_missing_run_names_near_matches_and_the_remedy(tmp_path):
    for name in ("mnist-sam", "mnist-sgd", "other"):
        create_run(tmp_path, name, CONFIG)
    with pytest.raises(RunError) as error:
        find_run(tmp_path, "mnist-san")
    lines = str(error.value).splitlines()
    assert len(lines) <= 3
    assert "mnist-sam" in lines[0]
    assert "other" not in lines[0]
    assert "`run` mnist-san" in lines[1]
    with pytest.raises(RunError, match="0 runs there"):
        find_run(tmp_path / "nowhere", "x")


def test_listing_and_newest(tmp_path):
    assert list_runs(tmp_path) == []
    assert newest_run(tmp_path) is None
    for seconds, name in ((300, "b"), (100, "c"), (200, "a")):
        run = create_run(tmp_path, name, CONFIG)
        (run.checkpoints / "last.pt").write_bytes(b"")
        os.utime(run.checkpoints / "last.pt", (seconds, seconds))
    create_run(tmp_path, "untrained", CONFIG)
    (tmp_path / "runs" / "notes").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["a", "b", "c", "untrained"]
    assert newest_run(tmp_path) == Run(tmp_path / "runs" / "b")


def test_damaged_and_missing_files_are_named(tmp_path):
    run = create_run(tmp_path, "one", CONFIG)
    with pytest.raises(RunError, match=r"no evaluation\.json"):
        run.evaluation()
    with pytest.raises(RunError, match=r"no checkpoint best\.pt \(status: interrupted\)"):
        run.checkpoint("best")
    for content, message in (
        ('{"loss": 1', "damaged"),
        ("[1]", "expected a JSON object"),
        ("", "damaged"),
    ):
        (run.path / "evaluation.json").write_text(content)
        with pytest.raises(RunError, match=message):
            run.evaluation()
    with pytest.raises(RunError, match="status"):
        run.write_manifest("done")


def test_plugin_copies_do_not_collide(tmp_path):
    run = create_run(tmp_path, "one", CONFIG)
    for role in ("model", "loss"):
        file = tmp_path / role / "mine.py"
        file.parent.mkdir()
        file.write_text(f"# {role}\n")
        assert run.copy_plugin(file, role).read_text() == f"# {role}\n"


def test_the_reader_is_free_of_torch(tmp_path):
    create_run(tmp_path, "one", CONFIG).write_history([Record(1, 0.5, 0.5)])
    code = (
        "import sys; from pathlib import Path; from isoloss.records.runs import find_run\n"
        f"find_run(Path({str(tmp_path)!r}), 'one').history()\n"
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_checkpoints_of_epochs_are_listed_in_order(tmp_path):
    run = create_run(tmp_path, "one", CONFIG)
    assert run.epoch_checkpoints() == {}
    for name in (
        "last",
        "state",
        "epoch-0010",
        "epoch-0000",
        "epoch-0002",
        "epoch-10000",
        "epoch-x",
    ):
        (run.checkpoints / f"{name}.pt").write_bytes(b"")
    found = run.epoch_checkpoints()
    assert list(found) == [0, 2, 10, 10_000]
    assert found[2] == run.checkpoint("epoch-0002") == run.checkpoints / "epoch-0002.pt"
    with pytest.raises(RunError, match=r"no checkpoint epoch-0003.pt .*\n.*`run` one with `force`"):
        run.checkpoint("epoch-0003")
    with pytest.raises(RunError, match="last, best or epoch-N, got 'epoch-x'"):
        run.checkpoint("epoch-x")
    with pytest.raises(RunError, match=r"train one of that name: `run` two"):
        find_run(tmp_path, "two")


def test_a_run_appears_whole_or_not_at_all(tmp_path):
    with new_run(tmp_path, "one", CONFIG) as run:
        assert (run.name, run.manifest()["status"], run.config()) == ("one", "training", CONFIG)
        assert list_runs(tmp_path) == []
        (run.checkpoints / "last.pt").write_bytes(b"weights")
    assert find_run(tmp_path, "one").checkpoint().read_bytes() == b"weights"
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), new_run(tmp_path, "two", CONFIG):
            raise error
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["one"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_replacement_that_fails_leaves_the_old_run(tmp_path, error):
    old = create_run(tmp_path, "one", CONFIG)

    def fail(run):
        assert (run.config(), old.config()) == ({}, CONFIG)
        raise error

    with pytest.raises(error), new_run(tmp_path, "one", {}, force=True) as run:
        fail(run)
    assert old.config() == CONFIG
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["one"]


@pytest.mark.parametrize("moment", [0, 1, 2, "rmtree"])
def test_a_kill_in_a_replacement_leaves_the_old_or_the_new_run(tmp_path, monkeypatch, moment):
    create_run(tmp_path, "one", {"seed": 0})
    create_run(tmp_path, "one-b", {})

    class Killed(BaseException):
        pass

    killed = False
    replace = os.replace
    moves = 0

    def move(source, target):
        nonlocal moves, killed
        if killed or Path(target).suffix != ".json":  # folders alone
            if killed or moves == moment:
                killed = True
                raise Killed
            moves += 1
        replace(source, target)

    def remove(folder, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", move)
        patch.setattr(shutil, "rmtree", remove)
        with pytest.raises(Killed), new_run(tmp_path, "one", {"seed": 1}, force=True):
            pass
    leftovers = [p.name for p in (tmp_path / "runs").glob(".*")]
    assert leftovers
    with locked_run(tmp_path, "one-b"):
        (tmp_path / "runs" / f".one-b-{'x' * 8}").mkdir()  # another run in the making
        with locked_run(tmp_path, "one"):
            assert find_run(tmp_path, "one").config() == {"seed": 1 if moment == "rmtree" else 0}
        assert {p.name for p in (tmp_path / "runs").iterdir()} == {
            "one", "one-b", f".one-b-{'x' * 8}", ".one-b.lock", ".one-b.holder",
        }  # fmt: skip


@pytest.mark.parametrize("left", ["run.json", "checkpoints/last.pt", "facts.json", None])
def test_a_run_that_lost_its_configuration_is_named_and_can_be_replaced(tmp_path, left):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    if left is not None:
        (folder / left).parent.mkdir(exist_ok=True)
        (folder / left).write_text("{}")
    with pytest.raises(RunError, match=r"no config\.json.*\n.*`force`"):
        refuse_taken(folder)
    if left is not None:
        with pytest.raises(RunError, match=r"no config\.json.*\n.*`force`"):
            find_run(tmp_path, "one")
        assert [run.name for run in run_folders(tmp_path)] == ["one"]
    assert newest_run(tmp_path) is None
    with new_run(tmp_path, "one", {"seed": 1}, force=True):
        pass
    assert find_run(tmp_path, "one").config() == {"seed": 1}


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(RunError, match=r"thesis\.tex.*\n.*choose another"),
        new_run(tmp_path, "one", {}, force=True),
    ):
        pass
    assert run_folders(tmp_path) == []
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
