"""What is counted beside the loss: a pair a sample, as of a loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from isoloss.landscape.terms import ClassLayout, LossShapeError, Terms, per_sample_sum

DEFAULT_LAYOUT = ClassLayout()


def top1(outputs: Any, targets: Tensor, layout: ClassLayout = DEFAULT_LAYOUT) -> Terms:
    """Count the targets of each sample whose class has the largest output.

    Args:
        outputs: Logits (batch, K), or with positions, (batch, K, ..) or (batch, .., K).
        targets: Class indices (batch,) or (batch, ..).
        layout: Where the classes stand and which targets do not count.

    Returns:
        Hits and targets that count, (batch,) each; the hits are NaN where this is no
        classification. Outputs that are not finite are no hit, wherever their largest number
        stands.
    """
    if not isinstance(outputs, Tensor) or targets.is_floating_point():
        return no_metric(outputs, targets)
    try:
        logits = outputs.movedim(layout.find(outputs, targets), 1)
    except LossShapeError:
        return no_metric(outputs, targets)
    counted = targets != layout.ignore_index
    # argmax would return the position of a NaN.
    hits = (logits.argmax(1) == targets) & logits.isfinite().all(1) & counted
    return Terms(per_sample_sum(hits.float()), per_sample_sum(counted.float()))


def no_metric(outputs: Any, targets: Tensor) -> Terms:
    """NaN for each sample: nothing is counted."""
    values = torch.full(targets.shape[:1], math.nan, device=targets.device)
    return Terms(values, torch.ones_like(values))
