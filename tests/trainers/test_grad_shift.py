"""g + rho w is weight decay: bit for bit with SGD, Adam's coupled decay with Adam."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isoloss.trainers.grad_shift import GradientShift

RHO = 0.03
PAIRS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "sgd, momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd, nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01}),
}


def trained(make, steps=12):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    optimizer = make(model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("name", PAIRS)
def test_equals_weight_decay_bit_for_bit(name):
    kind, settings = PAIRS[name]
    shifted = trained(lambda p: GradientShift(kind(p, **settings), RHO))
    decayed = trained(lambda p: kind(p, weight_decay=RHO, **settings))
    plain = trained(lambda p: kind(p, **settings))
    assert all(torch.equal(a, b) for a, b in zip(shifted, decayed, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(shifted, plain, strict=True))


def test_is_not_the_decoupled_decay_of_adamw():
    shifted = trained(lambda p: GradientShift(torch.optim.Adam(p, lr=0.01), RHO))
    decoupled = trained(lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=RHO))
    assert max((a - b).abs().max() for a, b in zip(shifted, decoupled, strict=True)) > 1e-3


def test_takes_no_gradient_anywhere_but_at_w():
    weight = nn.Parameter(torch.ones(3))
    optimizer = GradientShift(torch.optim.SGD([weight], lr=0.1), 0.5)
    seen = []

    def closure() -> torch.Tensor:
        seen.append(weight.detach().clone())
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(seen) == 1
    torch.testing.assert_close(weight.detach(), torch.full((3,), 1 - 0.1 * 1.5))


def test_gradients_present_are_used_and_left_out_where_there_are_none():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = GradientShift(torch.optim.SGD([used, unused], lr=1.0), 0.5)
    gradient = torch.zeros(2)
    used.grad = gradient
    assert optimizer.step() is None
    assert torch.equal(used.detach(), torch.full((2,), 0.5))
    assert torch.equal(unused.detach(), torch.ones(2))
    assert torch.equal(gradient, torch.zeros(2))  # the caller's tensor is left alone


def test_state_and_learning_rate_are_the_bases():
    weight = nn.Parameter(torch.ones(2))
    optimizer = GradientShift(torch.optim.SGD([weight], lr=1.0, momentum=0.9), 0.5)
    optimizer.param_groups[0]["lr"] = 0.25
    assert optimizer.base.param_groups[0]["lr"] == 0.25
    weight.grad = torch.ones(2)
    optimizer.step()
    twin = nn.Parameter(torch.ones(2))
    other = GradientShift(torch.optim.SGD([twin], lr=1.0, momentum=0.9), 0.5)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups is other.base.param_groups
    assert torch.equal(other.state[twin]["momentum_buffer"], torch.full((2,), 1.5))
    with pytest.raises(ValueError, match="rho"):
        GradientShift(torch.optim.SGD([weight], lr=1.0), -1.0)
