"""The loss and metric at one point, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from isoloss.landscape.sampling import Sample
from isoloss.landscape.terms import ratio


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

    @classmethod
    def of(cls, columns: Tensor, sample: Sample | None) -> Self:
        """Return the evaluation of terms.

        Args:
            columns: Losses, their weights, hits and theirs, (4, samples) in float64.
            sample: How the samples were drawn, where they may be a part of a split.
        """
        losses, weights, hits, counted = columns
        loss, accuracy = ratio(losses, weights), ratio(hits, counted)
        error = 0.0
        # The probe of determinism evaluates a few samples only, whose error nobody asks for.
        if sample is not None and sample.partial and len(losses) == sample.size:
            error = sample.error((losses - loss.value * weights) * len(losses) / loss.weight)
        return cls(loss.value, accuracy.value, len(losses), loss.weight, loss.deviation, error)

    def __repr__(self) -> str:
        error = f" ± {self.sampling_error:.2g}" if self.sampling_error else ""
        accuracy = "" if math.isnan(self.accuracy) else f", accuracy={self.accuracy:.6g}"
        return f"Evaluation(loss={self.loss:.6g}{error}{accuracy}, {self.count:,} samples)"
