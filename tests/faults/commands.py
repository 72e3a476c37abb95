"""Commands in processes of their own, cold as from a shell, or warm: all that is imported is there.

Starting Python and importing torch takes most of a small command's time, in which there is nothing
to lose. A warm command is a fork of this process, which computes nothing itself.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
HINDRANCE = 300.0  # seconds after which a command counts as hanging
SLOW_IMPORTS = (
    "isoloss.cli", "isoloss.experiments.training", "isoloss.experiments.comparison",
    "isoloss.experiments.drawing", "isoloss.experiments.sample_drawing",
    "isoloss.experiments.surfaces", "isoloss.experiments.spectra", "isoloss.experiments.tuning",
    "isoloss.experiments.selection", "isoloss.experiments.scoring", "optuna", "torchinfo",
    "optuna.storages", "optuna.samplers", "sklearn.datasets", "scipy.stats",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: Its exit code, negative for a signal; None where it did not end in time.
        said: What it printed.
        complained: What it printed on standard error.
        seconds: How long it took.
    """

    code: int | None
    said: str
    complained: str
    seconds: float


class Started:
    """A command that runs.

    Args:
        arguments: What is given.
        results: Its folder of results.
        warm: Whether to fork this process.
    """

    def __init__(self, arguments: Sequence[str], results: Path, *, warm: bool) -> None:
        self._began = time.monotonic()
        self._out, self._error = (results.with_suffix(end) for end in (".out", ".err"))
        line = [*arguments, "--results", str(results)]
        self._process: subprocess.Popen[bytes] | multiprocessing.process.BaseProcess
        if warm:
            context = multiprocessing.get_context("fork")
            self._process = context.Process(target=_run, args=(line, self._out, self._error))
            self._process.start()
            return
        with open(self._out, "wb") as out, open(self._error, "wb") as error:
            self._process = subprocess.Popen(
                [sys.executable, str(HOUSE / "cli.py"), *line], stdout=out, stderr=error,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
                preexec_fn=_hear,
            )  # fmt: skip

    def send(self, name: str) -> bool:
        """Send a signal; return whether the command was still there to get it."""
        if self._code() is not None:
            return False
        assert self._process.pid is not None
        os.kill(self._process.pid, getattr(signal, name))
        return True

    def end(self) -> Ended:
        """Wait for the end; what takes too long is killed."""
        while (code := self._code()) is None and time.monotonic() - self._began < HINDRANCE:
            time.sleep(0.005)
        if code is None:
            self._process.kill()
            while self._code() is None:
                time.sleep(0.005)
        said = [file.read_text(errors="replace") for file in (self._out, self._error)]
        return Ended(code, *said, time.monotonic() - self._began)

    def _code(self) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode


@functools.cache
def warm_up() -> None:
    """Import what commands import, before the first warm one."""
    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    found = Path(sys.modules["isoloss"].__path__[0]).resolve()
    assert found == HOUSE, f"expected the package in {HOUSE}, got {found}: set PYTHONPATH"


def _hear() -> None:
    """Let Ctrl-C be heard where the campaign runs in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(line: Sequence[str], out: Path, error: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in ((1, out), (2, error)):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    sys.exit(sys.modules["isoloss.cli"].main(line))
