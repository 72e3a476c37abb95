"""Losses as one value a sample, so that means can be weighted by sample count."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.errors import IsolossError

PerSampleLoss = Callable[[Any, Tensor], Tensor]


class LossShapeError(IsolossError, ValueError):
    """A loss that does not give one value for each sample."""


def per_sample_loss(
    loss: nn.Module | Callable[[Any, Tensor], Tensor],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> PerSampleLoss:
    """Turn a loss into a function with one value a sample.

    A torch loss module is copied and the copy's `reduction` set to `"none"`. Values with further
    dimensions (`MSELoss` on vectors, `CrossEntropyLoss` on sequences) are averaged over all
    dimensions but the first. The mean over samples that is formed later divides by the number of
    samples, also where torch would divide by a sum of class weights or by the number of targets
    that are not ignored.

    Args:
        loss: A torch loss module with an attribute `reduction`, or a callable
            `loss(outputs, targets)` that returns a tensor of shape (batch, ...).
        device: Where the outputs will be; tensors of a loss module (class weights) move there.
        dtype: Floating type of the outputs.

    Returns:
        `f(outputs, targets) -> Tensor` of shape (batch,). It raises `LossShapeError` where the
        loss returns another shape.
    """
    if isinstance(loss, nn.Module):
        loss = copy.deepcopy(loss).to(device, dtype)
        if hasattr(loss, "reduction"):
            loss.reduction = "none"  # type: ignore[assignment]
    name = str(getattr(loss, "__name__", type(loss).__name__))

    def values(outputs: Any, targets: Tensor) -> Tensor:
        result = loss(outputs, targets)
        count = targets.shape[0]
        if result.ndim == 0 or result.shape[0] != count:
            raise LossShapeError(
                f"loss {name}: expected one value a sample, shape ({count},) or ({count}, ...)\n"
                f"got shape {tuple(result.shape)} from targets of shape {tuple(targets.shape)}\n"
                "return the values before averaging (torch losses: reduction='none')"
            )
        if isinstance(outputs, Tensor) and result.numel() > max(outputs.numel(), targets.numel()):
            raise LossShapeError(
                f"loss {name}: expected outputs and targets of one shape\n"
                f"got outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, which it "
                f"broadcast to {tuple(result.shape)}: samples would be compared with each other\n"
                "give the targets the outputs' shape"
            )
        return result if result.ndim == 1 else result.flatten(1).mean(1)

    return values
