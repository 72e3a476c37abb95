"""What people write in a notebook: runs, measurements and comparisons without the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.experiments import SpectrumSettings, Subject, TrainOptions, train
from isoloss.experiments.options import OptionError
from isoloss.experiments.reporting import Reporter
from isoloss.hessian import Spectrum
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import read_surface

HOUSE = Path(__file__).resolve().parents[2]
CELL = """
from isoloss.experiments import Subject, TrainOptions, compare, train

for optimizer in ("sgd", "sam"):
    train(TrainOptions(run=optimizer, optimizer=optimizer, model="mnist-light", fraction=0.1))
    subject = Subject.from_run(optimizer)
    surface = subject.surface(x="-1:1:3", y="-1:1:3", samples=64)
    spectrum = subject.spectrum(top=2, trace_budget=10, probes=1, steps=4, samples=64)
comparison = compare(["sgd", "sam"])
figure = comparison.figure()
print(comparison.text())
"""


@pytest.mark.slow
def test_a_cell_of_ten_lines_trains_measures_and_compares_two_runs(tmp_path):
    assert len([line for line in CELL.splitlines() if line]) <= 10
    check = (
        "assert figure.axes and surface.done.all() and spectrum.eigenpairs.eigenvalues.size == 2\n"
        "import sys\n"
        "assert not [m for m in sys.modules if m.startswith(('isoloss.commands', 'isoloss.cli'))]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", CELL + check], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"sgd.*\n.*sam", done.stdout)
    # The files that the commands would have written, in the same places.
    names = {path.name for path in (tmp_path / "results" / "runs" / "sam").iterdir()}
    assert {"config.json", "facts.json", "surface-2d.h5", "hessian.h5", "hessian.json"} <= names


@pytest.fixture
def own():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    y = (x.sum(1) > 0).long()
    torch.manual_seed(0)
    return Subject(nn.Linear(3, 2), nn.CrossEntropyLoss(), train=(x, y), test=(x[:9], y[:9]))


def test_a_network_of_ones_own_is_measured_in_memory(own):
    surface = own.surface(x="-1:1:3", split="both")
    x, y = own.splits["test"].inputs, own.splits["test"].targets
    with torch.no_grad():
        expected = nn.functional.cross_entropy(own.model(x), y).item()
    assert surface.origin["test_loss"] == pytest.approx(expected, rel=1e-6)
    spectrum = own.spectrum(top=2, trace_budget=0, probes=0, dtype="float64")
    assert spectrum.eigenpairs is not None
    assert spectrum.trace is spectrum.density is None
    with pytest.raises(OptionError, match="`split`: expected one of train, test, got 'val'"):
        own.problem("val")


def test_a_path_keeps_what_was_computed(own, tmp_path):
    for _ in range(2):  # the second time it is read
        surface = own.surface(tmp_path / "s.h5", x="0:1:2")
        spectrum = own.spectrum(tmp_path / "h.h5", top=1, trace_budget=0, probes=0)
        assert np.array_equal(
            read_surface(tmp_path / "s.h5").values["train_loss"], surface.values["train_loss"]
        )
        stored = read_spectrum(tmp_path / "h.h5").eigenpairs
        assert np.array_equal(stored.eigenvalues, spectrum.eigenpairs.eigenvalues)


def test_identity_is_what_is_stored_and_compared(own):
    from isoloss.experiments.settings import SampleSettings

    problem = own.problem("train", SampleSettings(samples=20, bn="eval"))
    identity = problem.identity()
    assert identity["samples"] == 20
    assert identity["population"] == 40
    assert identity["split"] == "train"
    assert identity["selection"] == "trainable"
    stored = own.spectrum(top=1, trace_budget=0, probes=0, samples=20).settings
    assert identity.items() <= stored.items()


def test_progress_is_shown_where_it_is_asked_for(own, capsys, tmp_path):
    spectrum = {"top": 1, "trace_budget": 0, "probes": 1, "steps": 2}
    own.surface(x="0:1:2")
    own.spectrum(**spectrum)
    assert capsys.readouterr().err == ""
    own.surface(x="0:1:2", progress=True)
    assert "surface of Linear: 3/3" in capsys.readouterr().err
    own.spectrum(**spectrum, progress=True)
    assert "density: 2/2" in capsys.readouterr().err
    options = TrainOptions(run="a", model="mnist-light", epochs=1, fraction=0.1)
    train(options, results=tmp_path, figures=False, progress=True)
    assert "training a: " in capsys.readouterr().err


def test_a_spectrum_of_a_problem_shows_its_stages(own, capsys):
    settings = SpectrumSettings(top=1, trace_budget=0, probes=1, steps=2)
    found = Spectrum(own.problem(), settings).run(progress=True)
    errors = capsys.readouterr().err
    assert "density: 2/2" in errors
    assert "eigenpairs: " in errors
    quiet = Spectrum(own.problem(), settings).run()
    assert capsys.readouterr().err == ""
    assert np.array_equal(found.eigenpairs.eigenvalues, quiet.eigenpairs.eigenvalues)


class Lines(Reporter):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({}, "5 parameters, 3 trainable,"), ({"parameters": ("all",)}, "3 trainable, 5 moved,")],
)
def test_the_start_says_what_is_trainable_and_what_is_moved(settings, said):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
    model[0].requires_grad_(False)
    x = torch.linspace(-1, 1, 8)[:, None]
    subject = Subject(model, nn.CrossEntropyLoss(), train=(x, (x[:, 0] > 0).long()), label="mine")
    heard = Lines()
    subject.surface(x="0:1:2", ignore="none", norm="none", reporter=heard, **settings)
    subject.spectrum(top=1, trace_budget=0, probes=0, reporter=heard, **settings)
    surface, spectrum = (line for line in heard.lines if " of mine: " in line)
    assert said in surface
    assert said in spectrum
    assert "8 train samples, 2 points" in surface
    assert "8 samples" in spectrum
