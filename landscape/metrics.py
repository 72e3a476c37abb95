"""What is counted beside the loss: one value a sample, averaged by whoever holds the counts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def is_classification(outputs: Any, targets: Tensor) -> bool:
    """Whether outputs are logits (batch, K) and targets class indices (batch,)."""
    logits = isinstance(outputs, Tensor) and outputs.ndim == 2
    return logits and targets.ndim == 1 and not targets.is_floating_point()


def top1(outputs: Any, targets: Tensor) -> Tensor:
    """Whether the largest output of each sample is the target's.

    Args:
        outputs: Logits (batch, K).
        targets: Class indices (batch,).

    Returns:
        Booleans (batch,); NaN (batch,) where this is no classification. A row of outputs that is
        not finite is no hit, wherever its largest number stands.
    """
    if not is_classification(outputs, targets):
        return no_metric(outputs, targets)
    # argmax would return the position of a NaN.
    return (outputs.argmax(1) == targets) & outputs.isfinite().all(1)


def no_metric(outputs: Any, targets: Tensor) -> Tensor:
    """NaN for each sample: nothing is counted."""
    return torch.full(targets.shape[:1], math.nan, device=targets.device)
