"""The gradient's share in the span of eigenvectors."""

import json
import math

import pytest
import torch

from isoloss.experiments import SpectrumSettings
from isoloss.hessian import Spectrum, gradient_overlap
from isoloss.hessian.operators.named import named_operator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.records.spectra import read_spectrum
from tests.hessian.test_hessian_operator import build, dense


def test_shares_are_squared_cosines_whatever_the_scale():
    basis = torch.linalg.qr(torch.randn(9, 3, generator=torch.Generator().manual_seed(0))).Q
    weights = torch.tensor([2.0, -1.0, 0.0])
    outside = torch.randn(9, generator=torch.Generator().manual_seed(1))
    outside -= basis @ (basis.T @ outside)
    gradient = basis @ weights + outside
    for scale in (1.0, 1e-25, 1e25):
        found = gradient_overlap(gradient * scale, basis)
        whole = float(gradient.square().sum())
        assert found.shares == pytest.approx([4 / whole, 1 / whole, 0.0], rel=1e-5, abs=1e-12)
        assert found.share == pytest.approx(5 / whole, rel=1e-5)
        assert found.norm == pytest.approx(scale * math.sqrt(whole), rel=1e-5)
    assert found.by_chance == 3 / 9


def test_without_a_gradient_there_is_no_share():
    basis = torch.eye(4)[:, :2]
    assert math.isnan(gradient_overlap(torch.zeros(4), basis).share)
    assert math.isnan(gradient_overlap(torch.full((4,), torch.nan), basis).share)
    assert math.isnan(gradient_overlap(torch.ones(4), basis * torch.nan).share)
    with pytest.raises(OperatorError, match="expected a gradient"):
        gradient_overlap(torch.ones(3), basis)


@pytest.mark.parametrize("operator", ["hessian", "ggn"])
def test_a_spectrum_stores_the_share_in_its_own_eigenvectors(tmp_path, operator):
    problem = build("tanh-mlp")
    settings = SpectrumSettings(
        top=3, smallest=0, trace_budget=0, probes=0, tol=1e-8, operator=operator
    )
    Spectrum(problem, settings).run(tmp_path / "h.h5")
    stored = read_spectrum(tmp_path / "h.h5").eigenpairs.account["gradient"]
    vectors = torch.linalg.eigh(dense(named_operator(problem, operator))).eigenvectors
    gradient = torch.cat([part.reshape(-1) for part in problem.gradient().values()])
    cosines = (vectors[:, -3:].T @ gradient).flip(0) / gradient.norm()
    assert stored["shares"] == pytest.approx(cosines.square().tolist(), abs=1e-6)
    assert stored["share"] == pytest.approx(float(cosines.square().sum()), abs=1e-6)
    assert stored["norm"] == pytest.approx(float(gradient.norm()))
    told = json.loads((tmp_path / "h.json").read_text())["eigenpairs"]["gradient"]
    assert told == stored
