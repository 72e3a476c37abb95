"""A folder deleted while a command is at work is noticed, and does not come back by half."""

from __future__ import annotations

import shutil
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from isoloss import cli
from tests.fuzz import prepared

COMMANDS = {
    "train": ("train --run new --epochs 3 --fraction 0.05",
              "isoloss.trainers.loop.Trainer.train_epoch"),
    "resume": ("train --run tiny --resume --epochs 5",
               "isoloss.trainers.loop.Trainer.train_epoch"),
    "history": ("train --run new --epochs 3 --fraction 0.05",
                "isoloss.records.runs.Run.write_history"),
    "log": ("train --run new --epochs 3 --fraction 0.05",
            "isoloss.experiments.train_record.TrainingLog.note"),
    "scores": ("train --run new --epochs 1 --fraction 0.05",
               "isoloss.experiments.training.write_evaluation"),
    "surface": ("surface tiny --x=-1:1:9 --samples 20",
                "isoloss.landscape.surface.Surface.evaluate_at"),
    "surface --force": ("surface tiny --x=-1:1:9 --samples 20 --force",
                        "isoloss.landscape.surface.Surface.evaluate_at"),
    "hessian": ("hessian tiny --top 2 --probes 2 --steps 4 --trace-budget 6 --samples 20",
                "isoloss.hessian.stages.OperatorStages._trace"),
    "hessian --force": ("hessian tiny --top 1 --force --samples 20",
                        "isoloss.hessian.stages.OperatorStages._eigenpairs"),
    "evaluate": ("evaluate tiny", "isoloss.experiments.scoring.score_splits"),
}  # fmt: skip
ONCE = ("scores", "hessian", "hessian --force", "evaluate")  # what is called but once


@pytest.fixture
def results(tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(prepared.results(), tmp_path / "results"))
    for name in ("surface-1d.h5", "hessian.h5"):
        (copy / "runs" / "tiny" / name).unlink()
    return copy


@pytest.mark.parametrize(
    ("name", "moved"),
    [*((name, False) for name in COMMANDS), ("train", True), ("surface", True), ("hessian", True)],
)
def test_it_is_said_in_words(
    name: str, moved: bool, results: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line, place = COMMANDS[name]
    folder = results / "runs" / ("new" if "new" in line else "tiny")
    work, calls = resolve_name(place), []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        """Do what is done each time; the third time there is no folder any more."""
        calls.append(folder.is_dir())
        if folder.is_dir() and (len(calls) >= 3 or name in ONCE):
            shutil.rmtree(folder) if not moved else folder.rename(results / "elsewhere")
        return work(*arguments, **options)

    monkeypatch.setattr(place, interrupted)
    assert cli.main([*line.split(), "--results", str(results)]) == 1
    error = capsys.readouterr().err.strip()
    assert True in calls
    assert not folder.exists(), sorted(folder.rglob("*"))
    lines = error.splitlines()
    assert 2 <= len(lines) <= 3, error
    assert lines[0].startswith(f"error: expected the folder {folder}"), error
    assert "got none: was it deleted or moved?" in lines[0]
    assert "put it back to go on" in lines[1]
    assert list((results / "runs").rglob(".*")) == []


def test_a_deleted_journal_is_noticed_at_the_next_point(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = "isoloss.landscape.surface.Surface.evaluate_at"
    journal = results / "runs" / "tiny" / "surface-1d.h5.journal"
    work = resolve_name(place)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        journal.unlink(missing_ok=True)
        return work(*arguments, **options)

    line = "surface tiny --x=-1:1:9 --samples 20 --no-figures"
    with monkeypatch.context() as patch:
        patch.setattr(place, interrupted)
        assert cli.main([*line.split(), "--results", str(results)]) == 1
    assert f"could not write {journal}: it was deleted" in capsys.readouterr().err
    assert cli.main([*line.split(), "--results", str(results)]) == 0
