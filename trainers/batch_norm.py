"""Batch-norm running statistics, held still while a network is evaluated at perturbed weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


@contextmanager
def frozen_batch_norm_statistics(model: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are inside the context, outputs and gradients unchanged.

    A layer in training mode normalises with its batch whether it tracks statistics or not; with
    `track_running_stats` off it hands no buffers to the kernel and does not count the batch.
    That switch is what this context turns, on every layer that trains. (Setting `momentum` to 0
    would not do: `momentum=None` averages over `num_batches_tracked`, which still counts up, and
    0 * inf would poison the buffers.) Instance norm hands over its buffers even when it does not
    track; there the buffers are taken away for the while.

    Contexts nest; each restores what it found, also after an exception.

    Args:
        model: The network whose layers are held still.
    """
    found: list[tuple[nn.Module, str, object]] = []
    for module in model.modules():
        if not module.training:
            continue
        if isinstance(module, _BatchNorm):
            found.append((module, "track_running_stats", module.track_running_stats))
            module.track_running_stats = False
        elif isinstance(module, _InstanceNorm) and module.track_running_stats:
            for name in ("running_mean", "running_var"):
                found.append((module, name, getattr(module, name)))
                setattr(module, name, None)
    try:
        yield
    finally:
        for module, name, value in found:
            setattr(module, name, value)
