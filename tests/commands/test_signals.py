"""What ends a command from outside: one message, exit 1, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isoloss import cli
from isoloss.records.runs import Run

HOUSE = Path(__file__).resolve().parents[2]
SLOW = """
import os, time
import torch.nn as nn

class Net(nn.Linear):
    def __init__(self):
        super().__init__(784, 10)

    def forward(self, x):
        if "SLOW" in os.environ:
            if self.training:
                print("in training", flush=True)
            time.sleep(0.3)
        return super().forward(x.flatten(1))
"""


def heard() -> None:
    """Let Ctrl-C be heard where the tests themselves run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object, results: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, HOUSE / "cli.py", *map(str, arguments), "--results", results],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_training_that_is_ended_says_how_to_go_on(tmp_path: Path, name: str) -> None:
    (tmp_path / "net.py").write_text(SLOW)
    train = ("train", "--run", "a", "--model", f"{tmp_path}/net.py:Net", "--fraction", "0.2",
             "--epochs", "1", "--no-figures")  # fmt: skip
    process = start(*train, results=tmp_path, SLOW="1")
    assert process.stdout is not None
    while "in training" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    run = Run(tmp_path / "runs" / "a")
    assert run.status == "training"
    process.send_signal(getattr(signal, name))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error == (
        "error: interrupted after epoch 0 of 1\ngo on with: python cli.py train --run a --resume\n"
    )
    assert run.manifest()["status"] == "interrupted"
    assert cli.main(["train", "--run", "a", "--resume", "--results", str(tmp_path)]) == 0
    assert run.status == "finished"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("delay", [0.05, 0.6])
def test_ended_during_start_up(tmp_path: Path, delay: float) -> None:
    process = start("train", "--run", "a", results=tmp_path)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    # In the first hundredths of a second Python itself is not there yet.
    assert process.returncode in (1, -signal.SIGINT)
    assert "unexpected" not in error
    if process.returncode == 1 and "Traceback" not in error:
        assert error.startswith(("interrupted", "error: interrupted"))


@pytest.mark.parametrize("command", ["surface", "hessian", "evaluate", "plot", "compare"])
def test_ctrl_c_outside_the_inner_loops_says_so(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isoloss.experiments.selection.select", interrupt)
    monkeypatch.setattr("isoloss.experiments.plotting.draw_files", interrupt)
    monkeypatch.setattr("isoloss.experiments.comparison.compare", interrupt)
    compare = sys.modules["isoloss.commands.compare"]
    monkeypatch.setattr(compare, "find_run", lambda *_: Run(tmp_path))
    (tmp_path / "a.h5").touch()
    name = str(tmp_path / "a.h5") if command == "plot" else "a"
    place = () if command == "plot" else ("--results", str(tmp_path))
    assert cli.main([command, name, *place]) == 1
    assert capsys.readouterr().err == f"{cli.INTERRUPTED}\n"


def test_handlers_of_the_caller_are_put_back() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert cli.main(["list", "losses"]) == 0
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
