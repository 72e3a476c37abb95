"""Where values that are not finite come from: planted in each place, and named."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from isoloss.hessian import HessianOperator, Spectrum
from isoloss.hessian.operators.protocol import NonFiniteProductError, checked_product
from isoloss.hessian.spectrum import SpectrumUndefinedError
from isoloss.landscape.finite import where_not_finite
from isoloss.landscape.problem import Problem


class Log(nn.Module):
    def forward(self, x):
        return x.log()


def problem(model=None, *, x=None, at=None, value=math.nan, loss=None, **options):
    torch.manual_seed(0)
    x = torch.rand(7, 3) + 1 if x is None else x
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) if model is None else model
    if at is not None:
        name, index = at
        with torch.no_grad():
            model.get_parameter(name).view(-1)[index] = value
    return Problem(
        model, loss or nn.MSELoss(), [(x, torch.zeros(7, 2))], batch_size=3, check=False, **options
    )


def test_a_parameter():
    found = where_not_finite(problem(at=("2.weight", 5), value=math.inf))
    assert found == "the parameter 2.weight has 1 of 8 entries that are not"


def test_a_layer_and_the_sample():
    x = torch.rand(7, 3) + 1
    x[4] = -1
    found = where_not_finite(problem(nn.Sequential(Log(), nn.Linear(3, 2)), x=x))
    assert found == (
        "the output of 0 (Log) is not finite, its inputs are; batch 2, the loss of sample 4 first"
    )


def test_running_statistics_of_a_layer():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].running_var[2] = math.nan
    found = where_not_finite(problem(model))
    assert "the output of 1 (BatchNorm1d) is not finite, its running_var is not; batch 1" in found


def test_what_is_computed_between_layers():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.last(torch.log(-self.first(x).abs()))

    assert "the inputs of last (Linear) are not finite" in where_not_finite(problem(Between()))


def test_the_data():
    x = torch.rand(7, 3) + 1
    x[6, 1] = math.nan
    assert where_not_finite(problem(x=x)) == (
        "the data hold 1 of 3 entries that are not, in inputs; batch 3, the loss of sample 6 first"
    )


def test_the_loss_alone():
    def loss(outputs, targets):
        losses = (outputs - targets).square().mean(1)
        return torch.where(losses == losses.max(), losses / 0, losses)

    assert "every layer's output is finite; batch 1" in where_not_finite(problem(loss=loss))


def test_statistics_that_are_estimated_anew():
    model = nn.Sequential(Log(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    found = where_not_finite(problem(model, x=-torch.ones(7, 3), bn="recalibrate"))
    assert found == (
        "the output of 0 (Log) is not finite, its inputs are, "
        "where batch-norm statistics are estimated"
    )


class Root(nn.Module):
    """sqrt(w x) at w = 0: finite, with an infinite slope."""

    def __init__(self):
        super().__init__()
        self.free, self.w = nn.Linear(3, 2), nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return self.free(x) + (self.w * x[:, :2]).sqrt()


def test_the_gradient():
    found = where_not_finite(problem(Root()))
    assert found == "the loss is finite, but its gradient by w has 2 of 2 entries that are not"


def test_nothing():
    assert where_not_finite(problem()) == ""


def test_a_product_names_the_parameter_and_the_source():
    with HessianOperator(problem(Root())) as hessian:
        ones = torch.ones(hessian.size)
        with pytest.raises(NonFiniteProductError, match=r"those of w, 2 of 2.*its gradient by w"):
            checked_product(hessian, ones)


def test_a_spectrum_where_the_loss_is_not_finite(tmp_path):
    from isoloss.experiments.settings import SpectrumSettings

    spectrum = Spectrum(problem(at=("0.bias", 1)), SpectrumSettings(top=1))
    with pytest.raises(SpectrumUndefinedError, match=r"got nan: the parameter 0.bias has 1 of 4"):
        spectrum.run(tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()
