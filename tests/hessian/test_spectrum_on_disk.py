"""`Spectrum.run` and its file: starting over, interrupted at each stage, alone with its file."""

from __future__ import annotations

import gc

import h5py
import pytest
import torch
from torch import nn

from isoloss.experiments import SpectrumSettings
from isoloss.hessian import Spectrum
from isoloss.landscape import Problem
from isoloss.records.files import FileError
from isoloss.records.identity import SettingsDifferError
from isoloss.records.locks import LockedError, locked_file
from isoloss.records.spectra import read_spectrum

STAGES = ("eigenpairs", "trace", "scaled", "density")


def spectrum(seed=0, **about):
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
    problem = Problem(model, lambda o, t: (o - t).square(), [(x, y)], dtype=torch.float64)
    settings = SpectrumSettings(top=2, trace_budget=6, probes=2, steps=3, seed=seed)
    return Spectrum(problem, settings, about=about)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stage", STAGES)
def test_starting_over_replaces_the_file_at_the_first_finished_stage(tmp_path, stage):
    path = tmp_path / "h.h5"
    spectrum(seed=0).run(path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def stop(name, done, total):
        if name == stage:
            raise Killed

    with pytest.raises(Killed):
        spectrum(seed=1).run(path, stop, fresh=True)
    if stage == STAGES[0]:
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
        with pytest.raises(SettingsDifferError, match=r"seed \(stored 0, now 1\)"):
            spectrum(seed=1).run(path)
        spectrum(seed=1).run(path, fresh=True)
    else:
        assert read_spectrum(path).stages == STAGES[: STAGES.index(stage)]
        spectrum(seed=1).run(path)  # goes on
    spectrum(seed=1).run(tmp_path / "whole.h5")
    for suffix in (".h5", ".json"):
        one, other = (tmp_path / f"{name}{suffix}" for name in ("h", "whole"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("moment", ["spectra.h5py.File", "drafts.os.replace", "summary.write_text"])
def test_a_kill_in_the_write_leaves_the_old_or_the_new(tmp_path, monkeypatch, moment):
    path = tmp_path / "h.h5"
    spectrum(seed=0).run(path)
    before = path.read_bytes()

    def kill(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"isoloss.records.{moment}", kill)
        with pytest.raises(Killed):
            spectrum(seed=1).run(path, fresh=True)
    gc.collect()
    if moment == "summary.write_text":
        assert read_spectrum(path).stages == STAGES[:1]
        assert not path.with_suffix(".json").exists()  # no summary of another spectrum
        spectrum(seed=1).run(path)
    else:
        assert path.read_bytes() == before
        spectrum(seed=0).run(path)
    assert path.with_suffix(".json").exists()


def test_a_spectrum_replaces_nothing_but_a_spectrum(tmp_path):
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file.attrs["isoloss"] = "surface"
    before = path.read_bytes()
    with pytest.raises(FileError, match=r"expected a hessian file .* got a surface file"):
        spectrum().run(path, fresh=True)
    assert path.read_bytes() == before


def test_one_at_a_time(tmp_path):
    with locked_file(tmp_path / "h.h5"):
        spectrum().run(tmp_path / "other.h5")
        with pytest.raises(LockedError):
            spectrum().run(tmp_path / "h.h5")
    spectrum().run(tmp_path / "h.h5")
