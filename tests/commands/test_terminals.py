"""Terminals that lack characters, names of files that are no text, and what else is set around."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys

import pytest

from isoloss import cli
from isoloss.commands import COMMANDS
from tests.fuzz import prepared

SMALL = "--samples 20 --no-figures"
LINES = [
    "--help",
    *(f"{name} --help" for name in COMMANDS),
    *(f"list {what}" for what in ("models", "data", "optimizers", "runs")),
    "evaluate tiny --no-figures --json",
    f"surface tiny --x=-1:1:2 {SMALL} --out λ.h5",
    f"hessian tiny --top 1 --probes 0 --trace-budget 0 {SMALL} --out Ж.h5 --json",
    "train --epochs 0 --fraction 0.05 --run new --no-figures --label λ±Ж",
    "surface λ --x=-1:1:3",
    "plot λ±Ж.h5",
]


@pytest.fixture
def results(tmp_path, monkeypatch):
    copied = shutil.copytree(prepared.results(), tmp_path / "results")
    config = copied / "runs" / "tiny" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "label": "λ ± Ж é"}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOLOSS_RESULTS", str(copied))
    return copied


def printed(line, encoding, errors="strict"):
    """Run a command on a terminal of an encoding; return the exit code and both outputs."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = cli.main(line.split() if isinstance(line, str) else line)
    for stream in streams:
        stream.flush()
        assert stream.errors == errors, "it is the caller's"
    return code, *(stream.buffer.getvalue().decode(encoding) for stream in streams)


@pytest.mark.parametrize("line", LINES)
def test_no_command_ends_for_want_of_characters(results, line):
    # Python's own C locale escapes bytes only: for λ it is as strict.
    code, out, err = printed(line, "ascii", "surrogateescape")
    assert code in (0, 1, 2)
    assert "unexpected" not in err
    if code == 0 and "--json" in line:
        json.loads(out)


@pytest.mark.parametrize(
    ("encoding", "label"),
    [
        ("ascii", "lambda +- \\u0416 \\xe9"),
        ("cp1252", "lambda ± \\u0416 é"),
        ("utf-8", "λ ± Ж é"),
    ],
)
def test_plainer_characters_and_escapes_stand_for_what_lacks(results, encoding, label):
    code, out, _ = printed(f"surface tiny --x=-1:1:2 {SMALL} --out a.h5", encoding)
    assert code == 0
    assert f"surface of {label}: " in out


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names of files are text")
def test_names_of_files_that_are_no_text(results, tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xff")
    file = tmp_path / os.fsdecode(b"s\xff.h5")
    for line, named in (
        (f"surface tiny --x=-1:1:2 {SMALL} --out", file),
        ("plot", file),
        ("train --epochs 0 --fraction 0.05 --run new --no-figures --results", folder),
        ("list runs --results", folder),
    ):
        code, _, err = printed([*line.split(), str(named)], "utf-8")
        assert code == 0, (line, err)


def test_a_backend_of_matplotlib_that_is_not_there(results):
    file = prepared.surface(1)
    done = subprocess.run(
        [sys.executable, "-m", "isoloss.cli", "plot", results / "runs" / "tiny" / file.name],
        env={**os.environ, "MPLBACKEND": "nonsense", "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stdout
