"""The three errors of a spectrum's numbers, apart: in the file, in the summary, in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.commands.hessian import _say
from isoloss.experiments import SpectrumSettings
from isoloss.hessian import Spectrum, sample_error, sampling_bias, trace_sample_error
from isoloss.hessian.sample_error import PROBES
from isoloss.landscape.problem import Problem
from isoloss.records.spectra import read_spectrum

DOUBLE = torch.float64
SETTINGS = SpectrumSettings(top=2, trace_budget=4, probes=0)


class Lines(list):
    def say(self, line):
        self.append(line)


def problem_of(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(20, 3, dtype=DOUBLE)
    data = [(x, (x[:, 0] > 0).long())]
    return Problem(model.double(), nn.CrossEntropyLoss(), data, dtype=DOUBLE, **options)


def words_of(data):
    lines = Lines()
    _say(data, lines)
    return "\n".join(lines)


def test_solver_estimator_and_sample_are_apart(tmp_path):
    problem = problem_of(about={"population": 80})
    Spectrum(problem, SETTINGS).run(tmp_path / "h.h5")
    data = read_spectrum(tmp_path / "h.h5")
    pairs, trace = data.eigenpairs, data.trace
    vectors = np.concatenate([v.reshape(2, -1) for v in pairs.eigenvectors.values()], axis=1)
    expected = [
        sample_error(problem, torch.from_numpy(u), population=80).standard_error for u in vectors
    ]
    np.testing.assert_allclose(pairs.sample_standard_error, expected, rtol=1e-12)
    assert trace.sample_standard_error == trace_sample_error(problem, population=80).standard_error
    assert trace.sample_standard_error != trace.standard_error > 0
    bias = sampling_bias(problem, float(pairs.eigenvalues[0]), population=80)
    assert pairs.account["sample"] == {
        "count": 20, "population": 80, "bias": pytest.approx(bias, rel=1e-9)
    }  # fmt: skip
    assert trace.account["sample"] == {"count": 20, "population": 80, "probes": PROBES}
    summary = json.loads((tmp_path / "h.json").read_text())
    assert summary["eigenvalues"][1]["sample_standard_error"] == pairs.sample_standard_error[1]
    assert summary["trace"]["sample_standard_error"] == trace.sample_standard_error
    words = words_of(data)
    assert (
        f"(solver {pairs.residuals[0]:.2g}, sample {expected[0]:.2g}; "
        f"sampling bias about {bias:+.2g})"
    ) in words
    assert f"(s.e. over probes, sample {trace.sample_standard_error:.2g})" in words


def test_a_whole_split_has_no_error_of_sampling():
    data = Spectrum(problem_of(about={"population": 20}), SETTINGS).run()
    assert data.eigenpairs.sample_standard_error.tolist() == [0, 0]
    assert data.trace.sample_standard_error == 0
    assert "sample: none, every sample of the split is used" in words_of(data)


@pytest.mark.parametrize("policy", ["train", "recalibrate"])
def test_coupled_samples_are_said_to_be_coupled(tmp_path, policy):
    problem = problem_of(about={"population": 80}, bn=policy, bn_batch=20)
    Spectrum(problem, SETTINGS).run(tmp_path / "h.h5")
    data = read_spectrum(tmp_path / "h.h5")
    assert data.eigenpairs.sample_standard_error is None
    assert data.trace.sample_standard_error is None
    assert "couples the samples" in data.trace.account["sample"]["reason"]
    assert "couples the samples" in words_of(data)
