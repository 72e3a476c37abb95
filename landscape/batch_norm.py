"""Batch-norm policies: which statistics a network normalises with while its weights move."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isoloss.errors import UsageError

POLICIES = ("eval", "train", "recalibrate")
HALF = (torch.bfloat16, torch.float16)


class BatchNormError(UsageError, ValueError):
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


def movable_buffers(model: nn.Module, policy: str) -> dict[str, Tensor]:
    """Return the buffers that may move with the weights: floating point, in the state dictionary.

    Batch norm's running mean and variance are among them under `"eval"` alone: other policies
    compute them anew. Counts of batches (`num_batches_tracked`) and other integers stay.
    """
    computed: set[str] = set()
    if policy != "eval":
        computed = {f"{prefix}running_{s}" for prefix in _tracked(model) for s in ("mean", "var")}
    stored = model.state_dict().keys() - computed
    return {
        name: buffer.detach()
        for name, buffer in model.named_buffers()
        if name in stored and buffer.is_floating_point()
    }


def use_batch_statistics(model: nn.Module) -> None:
    """Make every batch-norm layer normalise with its own batch and leave its buffers alone."""
    for layer in batch_norms(model):
        layer.train()
        layer.track_running_stats = False


@contextmanager
def recording_statistics(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Let the batch-norm layers normalise with their own batch inside the context.

    Yields:
        A dictionary that each forward pass fills: by the names of the layers' buffers, the mean
        and the unbiased variance over batch and positions of what entered the layer, (channels,)
        for each use, differentiable.
    """
    found: dict[str, list[Tensor]] = {}
    layers = _tracked(model)

    def recorder(prefix: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def record(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            x = inputs[0].float() if inputs[0].dtype in HALF else inputs[0]
            variance, mean = torch.var_mean(x, [d for d in range(x.ndim) if d != 1])
            found.setdefault(f"{prefix}running_mean", []).append(mean)
            found.setdefault(f"{prefix}running_var", []).append(variance)

        return record

    handles = [layer.register_forward_hook(recorder(name)) for name, layer in layers.items()]
    for layer in layers.values():
        layer.train()
        layer.track_running_stats = False  # leaves the buffers alone
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            layer.eval()
            layer.track_running_stats = True


@contextmanager
def differentiable_statistics(model: nn.Module) -> Iterator[None]:
    """Let outputs be differentiated by running statistics, which torch's own kernels do not."""
    layers = _tracked(model).values()
    for layer in layers:
        layer.forward = functools.partial(_normalise, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _normalise(layer: _BatchNorm, x: Tensor) -> Tensor:
    shape = [1, -1, *[1] * (x.ndim - 2)]
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    scale = (variance + layer.eps).rsqrt()
    if layer.affine:
        scale = scale * layer.weight
    result = (x - mean.view(shape)) * scale.view(shape)
    return (result + layer.bias.view(shape) if layer.affine else result).to(x.dtype)


def _tracked(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the layers with running statistics, by the prefix of their buffers' names."""
    return {
        f"{name}." if name else "": layer
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }
