"""Settings are resolved in full, refused where they mean nothing, and reach torch's optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from isoloss.registry import UnknownNameError
from isoloss.trainers.optimizers import (
    OPTIMIZERS,
    OptimizerError,
    build_optimizer,
    resolve_optimizer,
)
from isoloss.trainers.sam import SAM

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
        | {"weight_decay": 0.0, "nesterov": False, "rho": 0.05, "m": None},
    ),
    "asam over adam": (
        ("asam", {"base": "adam", "weight_decay": 0.1}),
        {"name": "asam", "base": "adam", "lr": 1e-3, "weight_decay": 0.1} | {"rho": 0.5, "m": None},
    ),
    "asam-elementwise over rmsprop": (
        ("asam-elementwise", {"base": "rmsprop", "m": 8}),
        {"name": "asam-elementwise", "base": "rmsprop", "lr": 1e-3, "momentum": 0.0}
        | {"weight_decay": 0.0, "rho": 2.0, "m": 8},
    ),
    "grad-shift over adamw": (
        ("grad-shift", {"base": "adamw", "rho": 0.1}),
        {"name": "grad-shift", "base": "adamw", "lr": 1e-3, "weight_decay": 0.01, "rho": 0.1},
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
    if isinstance(optimizer, SAM):
        assert (optimizer.rho, optimizer.m) == (expected["rho"], expected["m"])


REFUSED = {
    "rho for sgd": (("sgd", {"rho": 0.1}), OptimizerError, "sgd takes no rho"),
    "base for adam": (("adam", {"base": "sgd"}), OptimizerError, "adam takes no base"),
    "momentum for adam": (
        ("sam", {"base": "adam", "momentum": 0.9}),
        OptimizerError,
        "sam over adam takes no momentum: expected settings among rho, m, lr, weight-decay",
    ),
    "sam over sam": (
        ("sam", {"base": "asam"}),
        OptimizerError,
        "among sgd, adam, adamw, rmsprop, got asam",
    ),
    "grad-shift over sam": (("grad-shift", {"base": "sam"}), OptimizerError, "got sam"),
    "m for grad-shift": (("grad-shift", {"m": 8}), OptimizerError, "takes no m"),
    "m 0": (("sam", {"m": 0}), OptimizerError, "m of 1 sample or more, got 0"),
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
    with torch.no_grad():
        model.weight.zero_()
    rho = 0.05 if "rho" in resolve_optimizer(name).settings else None
    optimizer = build_optimizer(resolve_optimizer(name, lr=0.05, rho=rho), model)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        return loss

    first = optimizer.step(closure).item()
    for _ in range(30):
        last = optimizer.step(closure).item()
    assert last < first / 4


class HalfDecayed(nn.Module):
    """Says which of its parameters weight decay applies to."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(2, 2)
        self._names = names

    def weight_decay_names(self) -> set[str]:
        return self._names


@pytest.mark.parametrize("name", ["sgd", "sam", "asam"])
def test_weight_decay_applies_to_the_parameters_a_network_names(name):
    model = HalfDecayed({"fc.weight"})
    optimizer = build_optimizer(
        resolve_optimizer(name, lr=0.5, momentum=0.0, weight_decay=0.1), model
    )
    before = {key: p.detach().clone() for key, p in model.named_parameters()}

    def closure() -> torch.Tensor:  # zero gradients: what moves is decay alone
        optimizer.zero_grad()
        loss = sum((0.0 * p).sum() for p in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    for key, p in model.named_parameters():
        expected = before[key] * (1 - 0.5 * 0.1) if key == "fc.weight" else before[key]
        torch.testing.assert_close(p.detach(), expected, rtol=1e-6, atol=0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_without_decay_a_network_that_names_parameters_has_one_group():
    settings = resolve_optimizer("sgd")
    assert len(build_optimizer(settings, HalfDecayed({"fc.weight"})).param_groups) == 1
    decayed = resolve_optimizer("sgd", weight_decay=0.1)
    with pytest.raises(OptimizerError, match=r"HalfDecayed.weight_decay_names\(\).* got fc.wait"):
        build_optimizer(decayed, HalfDecayed({"fc.wait"}))


def test_prepare_gets_the_base():
    seen = []

    def prepare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        seen.append(type(optimizer))
        return optimizer

    for name in ("adam", "sam", "grad-shift"):
        build_optimizer(resolve_optimizer(name), nn.Linear(2, 1), prepare)
    assert seen == [torch.optim.Adam, torch.optim.SGD, torch.optim.SGD]
