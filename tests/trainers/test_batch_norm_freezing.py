"""Running statistics stay; outputs and gradients are those of ordinary training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isoloss.trainers.batch_norm import frozen_batch_norm_statistics

LAYERS = {
    "1d": lambda: nn.BatchNorm1d(3),
    "no-momentum": lambda: nn.BatchNorm1d(3, momentum=None),
    "untracked": lambda: nn.BatchNorm1d(3, track_running_stats=False),
    "2d": lambda: nn.BatchNorm2d(3),
    "sync": lambda: nn.SyncBatchNorm(3),
    "instance": lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
}


def setup(name: str) -> tuple[nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (6, 3, 4, 4) if name in ("2d", "instance") else (6, 3)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    layer = LAYERS[name]().double()
    if name != "sync":  # on one process SyncBatchNorm trains on accelerators only
        layer(2 * x + 1)
    return layer, x


def outcome(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    (y.sin() * torch.arange(y.numel()).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]


def buffers(layer: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in layer.named_buffers()}


def state(layer: nn.Module) -> tuple:
    tensors = {name: None if b is None else id(b) for name, b in layer._buffers.items()}
    return layer.training, layer.momentum, layer.track_running_stats, tensors


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "sync"])
def test_same_outputs_same_gradients_and_no_update(name):
    layer, x = setup(name)
    before = buffers(layer)
    with frozen_batch_norm_statistics(layer):
        frozen = outcome(layer, x)
    for key, value in buffers(layer).items():
        assert torch.equal(value, before[key])
    plain = outcome(layer, x)
    assert all(torch.equal(a, b) for a, b in zip(frozen, plain, strict=True))
    if before:
        assert not torch.equal(layer.running_mean, before["running_mean"])


@pytest.mark.parametrize("name", LAYERS)
def test_nested_contexts_and_exceptions_restore(name):
    layer, _ = setup(name)
    found = state(layer)
    with frozen_batch_norm_statistics(layer), frozen_batch_norm_statistics(layer):
        assert state(layer) != found or name == "untracked"
    assert state(layer) == found
    with (
        pytest.raises(ZeroDivisionError),
        frozen_batch_norm_statistics(layer),
        frozen_batch_norm_statistics(layer),
    ):
        raise ZeroDivisionError
    assert state(layer) == found


def test_layers_in_evaluation_mode_are_left_alone():
    layer, x = setup("instance")
    layer.eval()
    expected = layer(x)
    with frozen_batch_norm_statistics(layer):
        assert torch.equal(layer(x), expected)
