"""The loss and metric at one point, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluation:
    """The loss at one point.

    Attributes:
        loss: Mean over samples, nats for a cross-entropy; for weighted losses the ratio of sums
            sum_i loss_i / sum_i weight_i (see `landscape.losses`).
        accuracy: Mean of the metric, a fraction; over tokens where a sample has several, ignored
            targets left out; NaN where there is no metric.
        count: Number of samples.
        weight: sum_i weight_i: the number of samples, of elements, of tokens that count, ..
        loss_standard_deviation: Of the samples' residuals loss_i - L weight_i over the mean
            weight (population form, divisor `count`); of the losses themselves where all
            weights are 1.
        sampling_error: Standard error of `loss` as an estimate of that over the whole split,
            where the problem's `sample` is a part of it (see `landscape.sampling`); 0 where not.
    """

    loss: float
    accuracy: float
    count: int
    weight: float
    loss_standard_deviation: float
    sampling_error: float = 0.0

    def __repr__(self) -> str:
        error = f" ± {self.sampling_error:.2g}" if self.sampling_error else ""
        accuracy = "" if math.isnan(self.accuracy) else f", accuracy={self.accuracy:.6g}"
        return f"Evaluation(loss={self.loss:.6g}{error}{accuracy}, {self.count:,} samples)"
