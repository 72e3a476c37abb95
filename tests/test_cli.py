"""The command as a script: from any folder, through a link, with our folder off the path."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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
