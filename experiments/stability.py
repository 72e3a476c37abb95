"""Up to which largest eigenvalue the steps of a training are stable, where that is known."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from isoloss.experiments.train_options import TrainOptions
from isoloss.experiments.train_record import describe_loss
from isoloss.experiments.trained import Trained
from isoloss.hessian import thresholds

# threshold(learning rate, norm of the gradient)
Threshold = Callable[[float, float], float]


@dataclass(frozen=True)
class Stability:
    """The threshold of an optimizer's steps, and of which matrix it is a threshold.

    Attributes:
        rule: Which threshold, with its formula; why there is none where it is None.
        threshold: From the learning rate and the norm of the gradient; None where none is known.
        shift: d, the coefficient of a coupled weight decay: the matrix is H + d I.
    """

    rule: str
    threshold: Threshold | None
    shift: float = 0.0


def stability_of(options: TrainOptions, model: nn.Module) -> Stability:
    """Return the threshold of a training's steps.

    Args:
        options: Its settings, all resolved.
        model: The network, which may have weight decay on some parameters alone.
    """
    name, decay = options.optimizer or "", options.weight_decay or 0.0
    base = options.base or name
    if base == "adamw":
        decay = 0.0  # decoupled: it shrinks the weights, and is no part of the gradient
    partial = bool(decay) and hasattr(model, "weight_decay_names")
    shift = 0.0 if partial else decay
    if name == "grad-shift":
        shift += options.rho or 0.0
    found = functools.partial(Stability, shift=shift)
    if partial:
        return found("none: weight decay of some parameters alone", None)
    if base in ("adam", "adamw"):
        return found(
            f"none: that of {base}, 38 / lr, is of the preconditioned Hessian, which takes the "
            "optimizer's state",
            None,
        )
    if base != "sgd":
        return found(f"none known for {base or 'weights from elsewhere'}", None)
    momentum = options.momentum or 0.0
    if name in ("sgd", "grad-shift"):
        return _of_sgd(momentum, bool(options.nesterov), found)
    if name == "sam" and not momentum and not decay and options.m is None:
        rho = options.rho or 0.0

        def of_sam(lr: float, norm: float) -> float:
            return thresholds.sam(lr, rho, norm)

        return found("SAM: |g| / (2 rho) (sqrt(1 + 8 rho / (lr |g|)) - 1)", of_sam)
    return found(f"none known for {name} over {base} with these settings", None)


def _of_sgd(momentum: float, nesterov: bool, found: Callable[..., Stability]) -> Stability:
    if not momentum:
        return found("gradient descent: 2 / lr", lambda lr, _: thresholds.gradient_descent(lr))
    if nesterov:
        text = f"Nesterov: (2 + 2 b) / ((1 + 2 b) lr), b = {momentum:g}"
        return found(text, lambda lr, _: thresholds.nesterov(lr, momentum))
    text = f"heavy ball: (2 + 2 b) / lr, b = {momentum:g}"
    return found(text, lambda lr, _: thresholds.heavy_ball(lr, momentum))


def only_for_reference(
    options: TrainOptions, subject: Trained, steps_per_epoch: int, whole: bool, bn: str
) -> list[str]:
    """Return why a threshold is not one of what was measured; nothing where it is.

    Args:
        options: Settings of the training.
        subject: The network, with the loss that was measured.
        steps_per_epoch: Of the training: 1 where each is on the full batch.
        whole: Whether all training samples were measured on, by all parameters.
        bn: Batch-norm policy of the measurement.
    """
    modules = list(subject.model.modules())
    trained = {"loss": options.loss, "closure": options.closure, "loss_arg": options.loss_arg}
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)
    dropout = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in modules)
    found = {
        f"mini-batches of {options.batch_size}": steps_per_epoch > 1,
        "measured on a part of the samples or parameters": not whole,
        "measured with another loss": subject.about["loss"] != describe_loss(trained),
        f"augmented by {options.augment}": options.augment is not None,
        "dropout": dropout,
        "trained with batch statistics": norms and bn != "train",
        f"gradients clipped at {options.clip}": options.clip is not None,
    }
    return [reason for reason, holds in found.items() if holds]
