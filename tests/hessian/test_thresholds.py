"""Thresholds of stability against the optimizers themselves, on quadratic losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from isoloss.hessian import thresholds
from isoloss.trainers.sam import SAM

LR = 0.3


def growth(curvature, steps=400, **settings):
    """The size of x after many steps on curvature x^2 / 2, from x = 1."""
    x = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = torch.optim.SGD([x], lr=LR, **settings)
    largest = []
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * curvature * x.square()).backward()
        optimizer.step()
        largest.append(abs(x.item()))
    return max(largest[-20:])


@pytest.mark.parametrize(
    ("threshold", "settings"),
    [
        (thresholds.gradient_descent(LR), {}),
        *((thresholds.heavy_ball(LR, b), {"momentum": b}) for b in (0.3, 0.9)),
        *((thresholds.nesterov(LR, b), {"momentum": b, "nesterov": True}) for b in (0.3, 0.9)),
    ],
)
def test_steps_converge_just_below_and_diverge_just_above(threshold, settings):
    assert growth(0.95 * threshold, **settings) < 1e-3
    assert growth(1.05 * threshold, **settings) > 1e3


def test_a_coupled_decay_adds_to_the_curvature():
    threshold, decay = thresholds.heavy_ball(LR, 0.5), 2.0
    for share, converges in ((0.95, True), (1.05, False)):
        found = growth(share * threshold - decay, momentum=0.5, weight_decay=decay)
        assert (found < 1) == converges


@pytest.mark.parametrize("rho", [0.01, 0.5, 20.0])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 50.0])
def test_a_step_of_sam_grows_above_its_threshold_alone(rho, norm):
    # The threshold depends on ||g|| at the point: x is chosen so that curvature |x| = ||g||.
    threshold = thresholds.sam(LR, rho, norm)
    for share in (0.99, 1.01):
        curvature = share * threshold
        model = nn.Linear(1, 1, bias=False).double()
        x = model.weight
        with torch.no_grad():
            x.fill_(norm / curvature)
        optimizer = SAM(model, torch.optim.SGD([x], lr=LR), rho=rho)

        def closure(x=x, optimizer=optimizer, curvature=curvature):
            optimizer.zero_grad()
            loss = 0.5 * curvature * x.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        assert (abs(x.item()) > norm / curvature) == (share > 1)


def test_sam_is_the_published_form_and_keeps_its_digits():
    rho, norm = 0.7, 0.9
    published = norm / (2 * rho) * (math.sqrt(1 + 8 * rho / (LR * norm)) - 1)
    assert thresholds.sam(LR, rho, norm) == pytest.approx(published, rel=1e-14)
    assert thresholds.sam(LR, 1e-300, norm) == pytest.approx(2 / LR, rel=1e-15)
    assert thresholds.sam(LR, 0.0, norm) == thresholds.gradient_descent(LR)
    assert thresholds.sam(LR, rho, 0.0) == 0
    assert thresholds.heavy_ball(LR, 0.0) == thresholds.nesterov(LR, 0.0) == 2 / LR
