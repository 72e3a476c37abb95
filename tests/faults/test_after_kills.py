"""What a kill prevented is made when the command is given again; what it left goes."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from isoloss import cli
from isoloss.experiments import demo
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.settings import SpectrumSettings, SurfaceSettings
from isoloss.experiments.train_options import TrainOptions
from isoloss.records.runs import Run
from tests.fuzz import prepared

pytestmark = pytest.mark.slow

SEARCH = (
    "tune --name t --search lr=loguniform:0.01:0.1 --trials 1 --set epochs=1 --set fraction=0.05"
)
TRAIN = "train --run new --epochs 1 --fraction 0.05"
CURVATURE = "--top 1 --probes 2 --steps 4 --trace-budget 6"
# What is given, what goes on with it, and the figures that are there in the end.
COMMANDS = {
    "train": (TRAIN, "train --run new --resume",
              "runs/new/training runs/new/confusion runs/new/roc runs/new/misclassified"),
    "surface": ("surface tiny --x=-1:1:3 --samples 20", "", "runs/tiny/surface-1d"),
    "planes": ("surface tiny --x=-1:1:3 --y=-1:1:2 --repeat 2 --samples 20", "",
               "runs/tiny/surface-2d-contour runs/tiny/surface-2d-range"),
    "hessian": (f"hessian tiny {CURVATURE} --samples 20", "", "runs/tiny/hessian"),
    "evaluate": ("evaluate tiny", "", "runs/tiny/confusion runs/tiny/misclassified"),
    "compare": ("compare tiny other", "", "comparisons/tiny_other/comparison"),
    "tune": (SEARCH, "", "tune/t/trials tune/t/runs/trial-0001/confusion "
             "tune/t/runs/trial-0001/misclassified"),
}  # fmt: skip


class Killed(BaseException):
    """Passes every handler of a command, as a kill does."""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared.results(), tmp_path / "results"))


def given(line: str, results: Path) -> int:
    return cli.main([*line.split(), "--results", str(results)])


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("before", [0, 1])
def test_figures_that_a_kill_prevented_are_drawn(
    name: str, before: int, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as its first or second figure is written, `before` being written."""
    if name == "tune":
        pytest.importorskip("optuna")
    line, again, stems = COMMANDS[name]
    figures = [results / f"{stem}.{kind}" for stem in stems.split() for kind in ("png", "pdf")]
    style = sys.modules["isoloss.figures.style"]
    write, written = style.write_together, []
    if name == "train":
        before += 1  # samples are drawn before there is a run

    def die(contents: dict[Path, bytes]) -> None:
        if len(written) == before:
            raise Killed
        written.append(contents)
        write(contents)

    with monkeypatch.context() as patch:
        patch.setattr(style, "write_together", die)
        try:
            given(line, results)
        except Killed:
            assert not all(figure.is_file() for figure in figures)
        else:
            assert len(written) == 1  # there is no second one
            return
    assert given(again or line, results) == 0
    assert [figure for figure in figures if not figure.is_file()] == []


def test_the_demo_draws_a_training_that_was_finished_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CURVE", SurfaceSettings(x="-1:1:3", samples=20))
    monkeypatch.setattr(demo, "SURFACE", SurfaceSettings(x="-1:1:3", y="-1:1:2", samples=20))
    spectrum = SpectrumSettings(top=1, probes=2, steps=4, trace_budget=6, samples=20)
    monkeypatch.setattr(demo, "SPECTRUM", spectrum)
    options = TrainOptions(run="d", epochs=1, fraction=0.05, seed=0)
    figure = tmp_path / "runs" / "d" / "training.png"
    for _ in range(2):
        demo.measure_demo_run(options, tmp_path, Reporter())
        assert figure.is_file()
        figure.unlink()


def test_an_evaluation_that_a_kill_cut_short_is_made_again(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are written first: without what goes with them they do not count as there."""
    run = Run(results / "runs" / "tiny")
    scores = (run.path / "evaluation.json").read_bytes()

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("isoloss.evaluation.reports.write_roc", die)
        with pytest.raises(Killed):
            given("evaluate tiny --no-figures", results)
    assert not (run.path / "roc.csv").exists()
    grid = "--x=-1:1:3 --y=-1:1:2 --repeat 2"
    line = f"compare tiny other --measure {grid} {CURVATURE} --samples 20"
    assert given(line, results) == 0
    for name in ("report.txt", "predictions.csv", "roc.csv"):
        assert (run.path / name).is_file(), name
    assert (run.path / "evaluation.json").read_bytes() == scores


PLUGIN = """
    import os, signal
    import torch
    from torch import nn

    def data(data_dir, n=160):
        y = torch.arange(n) % 2
        x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0)) + y[:, None]
        return {"train": (x[: n // 2], y[: n // 2]), "test": (x[n // 2 :], y[n // 2 :])}

    class Net(nn.Linear):
        def __init__(self, width=4):
            super().__init__(2, 2)
            self.calls, self.dies = 0, width == 13

        def forward(self, x):
            self.calls += 1
            if self.dies and self.calls > 6:  # some steps after it was tried
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(x)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_killed_trials_left_is_swept(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    plugin, tune = tmp_path / "blobs.py", tmp_path / "tune" / "t"
    plugin.write_text(textwrap.dedent(PLUGIN))
    fixed = f"--set dataset={plugin}:data --set model={plugin}:Net --set epochs=20"
    line = f"tune --name t --search model_arg.width=choice:4,13 {fixed} --jobs 2 --no-figures"
    killed = 0
    for trials in (4, 6):
        assert given(f"{line} --trials {trials}", tmp_path) == 0
        killed = (tune / "trials.csv").read_text().count("signal 9")
        assert list(tune.rglob(".*")) == []
        # What a search leaves that is killed itself.
        (tune / "runs" / ".trial-0009.lock").touch()
        (tune / "runs" / ".trial-0009.holder").write_text("process 1 on nowhere")
        (tune / ".isoloss-ab12cd_3.csv").touch()
    assert killed > 0
