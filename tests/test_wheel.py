"""What an installation adds to an environment: the package `isoloss`, and all of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
NOT_SHIPPED = ("tests", "benchmarks", "docs", "results")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Names in a wheel built from a copy of the sources, with no network."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns(".git", ".*cache", "*.egg-info", "build", "results", "data")
    shutil.copytree(HOUSE, folder / "source", ignore=skipped)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(folder), str(folder / "source")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]


def test_a_wheel_holds_one_name(names):
    assert {name.partition("/")[0] for name in names} == {"isoloss"}
    assert "isoloss/py.typed" in names


def test_a_wheel_holds_the_sources_and_nothing_else(names):
    sources = {
        f"isoloss/{file.relative_to(HOUSE)}"
        for file in HOUSE.rglob("*.py")
        if not file.relative_to(HOUSE).parts[0].startswith((".", *NOT_SHIPPED, "build", "venv"))
    }
    assert set(names) == sources | {"isoloss/py.typed"}
