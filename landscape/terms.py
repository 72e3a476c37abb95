"""Means as ratios of sums over samples, and how class indices lie beside logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isoloss.errors import IsolossError

# What torch's losses leave out unless told otherwise.
IGNORE_INDEX = -100


class LossShapeError(IsolossError, ValueError):
    """Outputs, targets and values whose shapes do not go together."""


class Terms(NamedTuple):
    r"""What each sample adds to a mean R = sum_i sums_i / sum_i weights_i.

    Attributes:
        sums: (batch,), the sample's weighted values added up.
        weights: (batch,), the sample's weight: 1, its number of tokens that count, the weight of
            its class, .. It depends on the data alone, never on the network's weights.
    """

    sums: Tensor
    weights: Tensor


class Ratio(NamedTuple):
    r"""R = sum_i y_i / sum_i w_i over n samples.

    Attributes:
        value: R; NaN where the weights add up to 0.
        weight: sum_i w_i.
        deviation: sqrt(1/n sum_i (y_i - R w_i)^2) / (1/n sum_i w_i). The standard deviation of the
            y_i (population form) where all weights are 1. The standard error of R is
            deviation / sqrt(n - 1) (the ratio estimator of Cochran 1977, section 6.3).
    """

    value: float
    weight: float
    deviation: float


def ratio(sums: Tensor, weights: Tensor) -> Ratio:
    """Return the ratio of two sums over samples, with the spread of its residuals.

    Args:
        sums: y, (n,).
        weights: w, (n,).

    Returns:
        The ratio, computed in float64.
    """
    sums, weights = sums.double(), weights.double()
    weight = weights.sum().item()
    if weight == 0:
        return Ratio(math.nan, 0.0, math.nan)
    value = sums.sum().item() / weight
    squares = (sums - value * weights).square().sum().item()
    spread = math.sqrt(squares * len(sums)) / weight if math.isfinite(squares) else math.nan
    return Ratio(value, weight, spread)


def as_terms(result: Any, count: int, name: str) -> Terms:
    """Read what a loss, closure or metric returned for each sample.

    Args:
        result: A tensor (batch, ...), averaged over all dimensions but the first, each sample of
            weight 1; or a pair of tensors (batch,), the sums and the weights of `Terms`.
        count: Number of samples.
        name: What to call the function in an error.

    Raises:
        LossShapeError: If it returned anything else.
    """
    if isinstance(result, tuple):
        pair = len(result) == 2 and all(
            isinstance(part, Tensor) and part.shape == (count,) for part in result
        )
        if not pair or result[1].requires_grad:
            raise LossShapeError(
                f"{name}: expected a pair (sums, weights) of shape ({count},) each, the weights "
                f"constant, got {_describe(result)}"
            )
        return Terms(*result)
    if not isinstance(result, Tensor) or result.ndim == 0 or result.shape[0] != count:
        raise LossShapeError(
            f"{name}: expected one value a sample, shape ({count},) or ({count}, ...)\n"
            f"got {_describe(result)} from {count} samples\n"
            "return the values before averaging (torch functions: reduction='none')"
        )
    values = result if result.ndim == 1 else result.flatten(1).mean(1)
    return Terms(values, torch.ones_like(values, requires_grad=False))


def per_sample_sum(values: Tensor) -> Tensor:
    """Return the sum over all dimensions but the first, shape (batch,)."""
    return values if values.ndim == 1 else values.flatten(1).sum(1)


@dataclass(frozen=True)
class ClassLayout:
    """Where the classes of logits stand, and which targets do not count.

    Logits of several positions a sample (tokens, pixels) come as (batch, classes, *positions),
    torch's order, or (batch, *positions, classes), that of language models. The shape of the
    targets (batch, *positions) tells them apart unless both fit.

    Attributes:
        class_dim: 1 or -1 to state it; None to read it off the targets' shape.
        ignore_index: Targets of this class do not count.
    """

    class_dim: int | None = None
    ignore_index: int = IGNORE_INDEX

    def __post_init__(self) -> None:
        if self.class_dim not in (None, 1, -1):
            raise LossShapeError(f"expected class_dim 1 or -1, got {self.class_dim!r}")

    def find(self, outputs: Tensor, targets: Tensor) -> int:
        """Return the dimension of the classes, 1 or -1.

        Args:
            outputs: Logits.
            targets: Class indices (batch, *positions), or probabilities of the outputs' shape.

        Raises:
            LossShapeError: If the shapes do not fit, or both orders fit and none is stated.
        """
        shape, given = outputs.shape, targets.shape
        wanted = {1: shape[:1] + shape[2:], -1: shape[:-1]}
        if targets.is_floating_point():
            wanted = {1: shape, -1: shape}
        dims = [
            dim
            for dim, fitting in wanted.items()
            if outputs.ndim >= 2 and given == fitting and self.class_dim in (None, dim)
        ]
        if len(dims) == 2 and outputs.ndim > 2:
            raise LossShapeError(
                f"outputs of shape {tuple(shape)} and targets of shape {tuple(given)}: the classes "
                "may stand at dimension 1 or at the last\nstate which: per_sample_loss(loss, "
                "class_dim=1), or class_dim=-1 (--loss-arg class_dim=-1)"
            )
        if not dims:
            stated = "" if self.class_dim is None else f" (class_dim={self.class_dim})"
            raise LossShapeError(
                "expected logits (batch, classes, *positions) or (batch, *positions, classes)"
                f"{stated} with integer targets (batch, *positions) or probabilities\n"
                f"got outputs {tuple(shape)} and {targets.dtype} targets {tuple(given)}"
            )
        return dims[0]


def _describe(result: Any) -> str:
    if isinstance(result, Tensor):
        return f"shape {tuple(result.shape)}"
    if isinstance(result, tuple):
        return f"({', '.join(map(_describe, result))})"
    return type(result).__name__
