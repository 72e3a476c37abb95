"""The benchmarks run from the root of the repository; what they find is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent


def benchmarks(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=HOUSE, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


def test_they_are_listed():
    done = benchmarks()
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert listed == {f.stem for f in (HOUSE / "benchmarks").glob("[a-z]*.py")}
    assert "expected a benchmark among" in benchmarks("none-of-them").stderr


def test_coverage_measures_each_method_on_each_spectrum():
    done = benchmarks("coverage", "--repeats", "2", "--size", "201")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 + 4 * 3 * 2
    assert all(0.01 < float(line.split()[-1]) < 100 for line in lines[2:])
