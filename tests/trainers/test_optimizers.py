"""Settings are resolved in full, refused where they mean nothing, and reach torch's optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from registry import UnknownNameError
from trainers.optimizers import OPTIMIZERS, OptimizerError, build_optimizer, resolve_optimizer
from trainers.sam import SAM
from trainers.schedules import SCHEDULES, Horizon, create_schedule

RESOLVED = {
    "sgd": (
        ("sgd", {}),
        {"name": "sgd", "base": None, "lr": 0.05, "momentum": 0.9}
        | {"weight_decay": 0.0, "nesterov": False},
    ),
    "adam": (("adam", {"lr": 0.01}), {"name": "adam", "base": None, "lr": 0.01, "weight_decay": 0}),
    "sam": (
        ("sam", {"momentum": 0.5, "rho": None}),
        {"name": "sam", "base": "sgd", "lr": 0.05, "momentum": 0.5}
        | {"weight_decay": 0.0, "nesterov": False, "rho": 0.05},
    ),
    "asam over adam": (
        ("asam", {"base": "adam", "weight_decay": 0.1}),
        {"name": "asam", "base": "adam", "lr": 1e-3, "weight_decay": 0.1, "rho": 0.5},
    ),
}


@pytest.mark.parametrize("case", RESOLVED)
def test_settings_are_resolved_in_full(case):
    (name, options), expected = RESOLVED[case]
    settings = resolve_optimizer(name, **options)
    assert settings.to_json() == expected
    optimizer = build_optimizer(settings, nn.Linear(2, 1))
    group = optimizer.param_groups[0]
    for key in ("lr", "momentum", "weight_decay", "nesterov"):
        assert key not in expected or group[key] == expected[key]
    assert not isinstance(optimizer, SAM) or optimizer.rho == expected["rho"]


REFUSED = {
    "rho for sgd": (("sgd", {"rho": 0.1}), OptimizerError, "sgd takes no rho"),
    "base for adam": (("adam", {"base": "sgd"}), OptimizerError, "adam takes no base"),
    "momentum for adam": (
        ("sam", {"base": "adam", "momentum": 0.9}),
        OptimizerError,
        "sam over adam takes no momentum: expected settings among rho, lr, weight-decay",
    ),
    "sam over sam": (("sam", {"base": "asam"}), OptimizerError, "among sgd, adam, got asam"),
    "unknown": (("sgdm", {}), UnknownNameError, "sgd"),
    "unknown base": (("sam", {"base": "adma"}), UnknownNameError, "adam"),
    "negative lr": (("sgd", {"lr": -1.0}), OptimizerError, "lr above 0, got -1"),
    "nan lr": (("sgd", {"lr": math.nan}), OptimizerError, "lr"),
    "momentum 1": (("sgd", {"momentum": 1.0}), OptimizerError, r"in \[0, 1\)"),
    "negative rho": (("sam", {"rho": -0.1}), OptimizerError, "rho"),
    "nesterov": (("sgd", {"nesterov": True, "momentum": 0.0}), OptimizerError, "momentum above 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_settings_are_refused(case):
    (name, options), error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        resolve_optimizer(name, **options)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_lowers_a_loss_by_closure(name):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator)
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(resolve_optimizer(name, lr=0.05), model)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        return loss

    first = optimizer.step(closure).item()
    for _ in range(30):
        last = optimizer.step(closure).item()
    assert last < first / 4


def test_schedules():
    horizon = Horizon(epochs=4, steps_per_epoch=5)
    assert [create_schedule("constant", horizon)(t) for t in (0, 19)] == [1.0, 1.0]
    cosine = create_schedule("cosine", horizon)
    values = [cosine(t) for t in range(20)]
    assert values[0] == 1.0
    assert cosine(10) == pytest.approx(0.5, abs=1e-15)
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < 0.01
    with pytest.raises(UnknownNameError, match="cosine"):
        create_schedule("cosin", horizon)
    assert SCHEDULES.names() == ["constant", "cosine"]
