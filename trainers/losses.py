"""Losses by name or from a file, each giving a sum and a weight a sample."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoloss.errors import UsageError
from isoloss.landscape.losses import CATEGORICAL, GAUSSIAN, PerSampleLoss, per_sample_loss
from isoloss.landscape.objective import Closure
from isoloss.registry import Registry, call_with_arguments, is_plugin, load_factory

LOSSES: Registry = Registry("loss")

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class LossError(UsageError, ValueError):
    """Arguments, outputs or targets that a loss cannot take."""


@LOSSES.register("cross-entropy", description="-log p(target), in nats")
def cross_entropy(label_smoothing: float = 0.0, class_dim: int | None = None) -> PerSampleLoss:
    """Return the cross-entropy of logits (batch, K, ...) or (batch, ..., K) with classes.

    The mean runs over all targets (batch, ...) but those of class -100, of all samples together.
    Targets may be class probabilities, too.

    Args:
        label_smoothing: s in [0, 1]: the target mass is 1 - s + s/K on the class and s/K on each
            other one.
        class_dim: Where the classes stand in logits with several positions, 1 or -1; needed only
            where the shape of the targets fits both.

    Returns:
        The loss.

    Raises:
        LossError: If the smoothing is out of range.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise LossError(f"expected label_smoothing in [0, 1], got {label_smoothing}")
    return per_sample_loss(
        nn.CrossEntropyLoss(label_smoothing=label_smoothing), class_dim=class_dim
    )


@LOSSES.register(
    "smooth-crossentropy", description="KL divergence from smoothed one-hot targets, in nats"
)
def smooth_crossentropy(smoothing: float = 0.1) -> PerSampleLoss:
    r"""Return KL(q || p) of smoothed targets q from the predictions p = softmax(outputs).

    q is 1 - s on the class and s / (K - 1) on each other one, so with torch's label smoothing

        KL = CE(label_smoothing = s K / (K - 1)) - H,
        H = -(1 - s) ln(1 - s) - s ln(s / (K - 1)) = 0.5448 at K = 10, s = 0.1:

    the same gradients and Hessians, other values. The training code that SAM and ASAM are often
    compared with records this one.

    Args:
        smoothing: s in [0, 1].

    Returns:
        The loss of logits (batch, K) with classes (batch,).

    Raises:
        LossError: If the smoothing is out of range.
    """
    if not 0.0 <= smoothing <= 1.0:
        raise LossError(f"expected smoothing in [0, 1], got {smoothing}")

    def divergence(outputs: Tensor, targets: Tensor) -> Tensor:
        mass = torch.full_like(outputs, smoothing / max(outputs.shape[1] - 1, 1))
        mass = mass.scatter(1, targets.unsqueeze(1), 1.0 - smoothing)
        return F.kl_div(outputs.log_softmax(1), mass, reduction="none").sum(1)

    return per_sample_loss(divergence, likelihood=CATEGORICAL)


@LOSSES.register("mse", description="mean squared error; classes are compared as one-hot vectors")
def mse() -> PerSampleLoss:
    """Return the squared error averaged over the outputs of a sample.

    Integer targets (batch,) stand for one-hot vectors, which the raw outputs (batch, K) are
    compared with (no softmax; Hui & Belkin 2021).

    Returns:
        The loss.
    """

    def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
        if not targets.is_floating_point():
            if bool((targets < 0).any()):
                raise LossError(
                    f"mse: expected classes from 0, got {int(targets.min())}, a target that does "
                    "not count\nleave such samples out, or give `loss` cross-entropy"
                )
            targets = F.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
        if outputs.shape != targets.shape:
            raise LossError(
                f"mse: expected outputs and targets of one shape, got {tuple(outputs.shape)} "
                f"and {tuple(targets.shape)}\n"
                "give the targets the outputs' shape in the data set, as y[:, None] for one output"
            )
        return (outputs - targets).square()

    return per_sample_loss(squared_error, likelihood=GAUSSIAN)


def build_loss(
    spec: str,
    arguments: dict[str, Any],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> PerSampleLoss:
    """Return a loss by name, or one of the user's own.

    Args:
        spec: A name in `LOSSES`, or `path/file.py:object`, where the object is a function
            `loss(outputs, targets, **arguments) -> (batch,)` (or a pair of such: sums and
            weights), a torch loss module, which keeps its own normalisation, or a class or
            function that makes either from the arguments.
        arguments: Settings of the loss, such as `label_smoothing`.
        device: Where the outputs will be (matters to losses that hold tensors).
        dtype: Floating type of the outputs.

    Returns:
        `loss(outputs, targets) -> Terms`, see `landscape.losses`.

    Raises:
        UnknownNameError: For a name that is not registered.
        PluginError: For a file or an object that cannot be loaded.
        LossError: For an object that is no loss, or does not take the arguments.
        ArgumentError: For arguments that a registered loss does not take.
        LossReductionError: For a torch loss module that is no mean over samples.
    """
    factory = load_factory(spec, LOSSES)
    if factory.plugin is None or not _is_loss(factory.function):
        loss = call_with_arguments(factory, arguments, {}, f"loss {spec!r}")
    else:
        loss = _bind(factory.function, arguments, spec)
    if not callable(loss):
        raise LossError(
            f"{spec}: expected loss(outputs, targets) or a torch loss module, "
            f"got {type(loss).__name__}"
        )
    return per_sample_loss(loss, device, dtype)


def build_closure(spec: str, arguments: dict[str, Any]) -> Closure:
    """Return a closure of the user's own.

    Args:
        spec: `path/file.py:function`, `function(model, batch, **arguments)` returning one value a
            sample or a pair (sums, weights); see `landscape.objective.Closure`.
        arguments: Further arguments of the function, by name.

    Raises:
        PluginError: For a file or an object that cannot be loaded.
        LossError: For a name, or a function that does not take the arguments.
    """
    if not is_plugin(spec, LOSSES):
        raise LossError(f"expected a closure as path/file.py:function, got {spec!r}")
    return Closure(_bind(load_factory(spec, LOSSES).function, arguments, spec))


def choose_loss(
    spec: str, closure: str | None, arguments: dict[str, Any], device: torch.device | str = "cpu"
) -> PerSampleLoss | Closure:
    """Return the closure where one is named, else the loss.

    Args:
        spec: Of the loss.
        closure: Of the closure, or None.
        arguments: Of either.
        device: Where the outputs will be.
    """
    if closure is not None:
        return build_closure(closure, arguments)
    return build_loss(spec, arguments, device)


def _is_loss(function: Any) -> bool:
    """Return whether a user's object is a loss, rather than something that makes one."""
    if isinstance(function, nn.Module):
        return True
    if inspect.isclass(function):
        return False
    parameters = inspect.signature(function).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind in _BY_POSITION]
    return len(required) >= 2


def _bind(loss: Any, arguments: dict[str, Any], spec: str) -> Any:
    if not arguments:
        return loss
    try:
        inspect.signature(loss).bind(None, None, **arguments)
    except TypeError as error:
        raise LossError(f"loss {spec!r} does not take these arguments: {error}") from error
    return functools.partial(loss, **arguments)
