"""The command as a script: from any folder, through a link, with our folder off the path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from isoloss import cli

HOUSE = Path(__file__).resolve().parent.parent


def script(cli, *arguments, cwd, code=0, **options):
    done = subprocess.run(
        [sys.executable, *options.get("python", ()), str(cli), *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_from_another_folder_and_through_a_link(tmp_path):
    link = tmp_path / "isoloss-command"
    link.symlink_to(HOUSE / "cli.py")
    assert "fashion-cnn" in script(link, "list", "models", cwd=tmp_path).stdout


@pytest.mark.parametrize("name", ["clone", "isoloss"])
def test_a_clone_runs_its_own_code(tmp_path, name):
    clone = tmp_path / name
    clone.mkdir()
    for item in HOUSE.iterdir():
        if item.name not in (".git", "results", "cli.py", "commands"):
            (clone / item.name).symlink_to(item)
    (clone / "cli.py").write_text((HOUSE / "cli.py").read_text())
    (clone / "commands").mkdir()
    source = (
        "def other() -> None:\n    print('of the clone')\nCOMMANDS = {'x': other, 'y': other}\n"
    )
    (clone / "commands" / "__init__.py").write_text(source)
    for name in ("flags.py", "console.py"):
        (clone / "commands" / name).symlink_to(HOUSE / "commands" / name)
    assert script(clone / "cli.py", "x", cwd=tmp_path).stdout == "of the clone\n"


@pytest.mark.slow
def test_a_plug_in_gets_the_packages_of_others_by_their_names(tmp_path):
    (tmp_path / "datasets.py").write_text("NAME = 'theirs'")
    text = """
        import sys
        import datasets

        assert datasets.NAME == "theirs", datasets.__file__

        def build(input_shape, num_classes):
            from torch import nn
            size = input_shape[-1] * input_shape[-2]
            return nn.Sequential(nn.Flatten(), nn.Linear(size, num_classes))
        """
    (tmp_path / "net.py").write_text(textwrap.dedent(text))
    script(
        HOUSE / "cli.py", "train", "--model", "net.py:build", "--fraction", "0.1", "--epochs", "1",
        "--results", tmp_path, "--no-figures", cwd=tmp_path,
    )  # fmt: skip


def test_without_what_it_needs_it_says_how_in_one_line(tmp_path):
    # -S leaves site-packages off the path.
    done = script(HOUSE / "cli.py", "list", cwd=tmp_path, code=1, python=["-S"])
    assert done.stderr.count("\n") == 1
    assert "pip install -e" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_comes_where_exceptions_are_dropped_is_not_lost(monkeypatch, capsys, name):
    """In `__del__` Python prints what is raised, and goes on."""

    class Dying:
        def __del__(self):
            os.kill(os.getpid(), getattr(signal, name))
            for _ in range(1000):  # bytecode, between which signals are answered
                pass

    def run(*arguments, **named):
        Dying()
        time.sleep(5)
        return 0

    class Command:
        main = staticmethod(run)

    monkeypatch.setattr(cli.typer.main, "get_command", lambda app: Command)
    # Whoever started the tests may have them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        began = time.monotonic()
        assert cli.main(["list", "runs"]) == 1
        assert time.monotonic() - began < 4
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted" in capsys.readouterr().err
