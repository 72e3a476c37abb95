"""Batch-norm policies: which statistics a network normalises with while its weights move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

POLICIES = ("eval", "train", "recalibrate")


class BatchNormError(ValueError):
    """A batch-norm policy that is unknown or cannot be followed with this data."""


def check_policy(policy: str, bn_batch: int) -> None:
    """Raise `BatchNormError` for an unknown policy or a statistics batch below 2."""
    if policy not in POLICIES:
        raise BatchNormError(
            f"expected a batch-norm policy among {', '.join(POLICIES)}, got {policy!r}"
        )
    if bn_batch < 2:
        raise BatchNormError(
            f"expected a batch-norm statistics batch of 2 samples or more, got {bn_batch}"
        )


def check_layers(model: nn.Module, policy: str) -> None:
    """Raise `BatchNormError` for layers that have no running statistics to hold constant."""
    bare = [name for name, layer in model.named_modules() if _has_no_statistics(layer)]
    if bare and policy != "train":
        raise BatchNormError(
            f"expected running statistics in every batch norm under the policy {policy!r}, "
            f"{bare[0] or 'the network'} has none\nit normalises with the batch it is given: "
            "use the policy 'train' (`bn`) with a stated batch (`bn_batch`)"
        )


def explain_single_sample(error: ValueError) -> BatchNormError | None:
    """Return what to say where a batch was too small for its statistics; None for other errors."""
    if "more than 1 value per channel" not in str(error):
        return None
    return BatchNormError(
        "expected statistics batches of 2 samples or more, got a last one of a single sample\n"
        "choose a statistics batch (`bn_batch`) or a number of samples that leaves more"
    )


def _has_no_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.running_mean is None


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the network's batch-norm layers."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def use_batch_statistics(model: nn.Module) -> None:
    """Make every batch-norm layer normalise with its own batch and leave its buffers alone."""
    for layer in batch_norms(model):
        layer.train()
        layer.track_running_stats = False


@contextmanager
def estimating_statistics(model: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Let the batch-norm layers update their running statistics inside the context.

    The caller sets `momentum` before each batch, n_batch / n_so_far, which makes the running
    statistics the size-weighted mean over the batches, a ragged last one included.
    """
    layers = [layer for layer in batch_norms(model) if layer.running_mean is not None]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield layers
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.eval()
            layer.momentum = momentum
