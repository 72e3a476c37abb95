"""The benchmarks run from the root of the repository; what they find is not judged here."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

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


def test_coverage_of_normal_errors_of_known_size():
    spec = spec_from_file_location("coverage_benchmark", HOUSE / "benchmarks" / "coverage.py")
    coverage = module_from_spec(spec)
    spec.loader.exec_module(coverage)
    errors = np.random.default_rng(0).normal(size=10_000)
    results = [
        SimpleNamespace(value=7 + error, standard_error=0.5, samples=10**9, products=3)
        for error in errors
    ]
    cells = coverage.row(results, 7.0).split()
    repeats, products, covered, doubt, nominal, ratio = [float(c) for c in cells if c not in "±%"]
    assert (repeats, products, ratio) == (10_000, 3, 0.5)  # to the two digits printed
    # P(|z| < 2 * 0.5), by 10,000 draws to 0.47 %; and P(|z| < 2).
    assert covered == pytest.approx(68.27, abs=4 * 0.47)
    assert doubt == 0.5
    assert nominal == pytest.approx(95.45, abs=0.06)
