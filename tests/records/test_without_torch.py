"""Runs and files made before the package had its name, and what reads them: no torch is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isoloss import cli
from isoloss.experiments import Subject
from isoloss.records.runs import Run
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import read_surface

BEFORE = Path(__file__).resolve().parents[1] / "fixtures" / "before-the-move"
# An import of torch, wherever it is asked for, ends the process.
WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise AssertionError("torch was imported")
sys.meta_path.insert(0, Refuse())
from isoloss import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def results(tmp_path):
    """Two runs made before the move."""
    shutil.copytree(BEFORE, tmp_path / "results")
    runs = tmp_path / "results" / "runs"
    shutil.copytree(runs / "before", runs / "twin")
    return tmp_path / "results"


@pytest.mark.parametrize(
    "command",
    [
        "list runs",
        "compare before twin",
        "plot {runs}/before/surface-2d.h5",
        "plot {runs}/before/surface-1d.h5",
        "plot {runs}/before/hessian.h5",
        "export {runs}/before/surface-2d.h5 --to vtk",
        "export {runs}/before/hessian.h5 --to npy",
        "surface --help",
    ],
)
def test_stored_results_are_read_listed_and_drawn_without_torch(results, command):
    arguments = command.format(runs=results / "runs").split()
    if arguments[0] not in ("plot", "export") and "--help" not in arguments:
        arguments += ["--results", str(results)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_what_was_made_before_means_the_same_now(results):
    run = Run(results / "runs" / "before")
    assert run.facts().parameters == 6308
    assert (
        run.facts().data_digest
        == "4b6c50dfe8812034723d1be6eb8e1bfd29aadc254aca5a094a3f34655fd43c11"
    )
    assert "facts" not in run.config()
    surface, spectrum = (
        read_surface(run.path / "surface-2d.h5"),
        read_spectrum(run.path / "hessian.h5"),
    )
    assert surface.done.shape == (3, 5)
    assert spectrum.stages == ("eigenpairs", "trace", "density")
    # Its weights and data give the loss that was stored then.
    subject = Subject.from_run("before", results=results)
    loss = subject.problem("train").evaluate().loss
    assert loss == pytest.approx(surface.origin["train_loss"], rel=1e-6)


def test_an_old_run_is_measured_on_and_compared(results):
    argv = [
        "surface",
        "before",
        "--x=0:1:2",
        "--y=0:1:2",
        "--no-figures",
        "--results",
        str(results),
    ]
    assert cli.main(argv) == 1  # another grid than that of the file: nothing is overwritten
    assert cli.main([*argv, "--force"]) == 0
    data = read_surface(results / "runs" / "before" / "surface-2d.h5")
    assert np.isfinite(data.values["train_loss"]).all()
