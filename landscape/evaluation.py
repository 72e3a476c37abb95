"""The loss and metric at one point, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from isoloss.landscape.sampling import Sample
from isoloss.landscape.terms import Ratio, ratio


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
        metrics: Means of further metrics that were asked for, in their order.
        metric_errors: Their standard errors, as `sampling_error`.
    """

    loss: float
    accuracy: float
    count: int
    weight: float
    loss_standard_deviation: float
    sampling_error: float = 0.0
    metrics: tuple[float, ...] = ()
    metric_errors: tuple[float, ...] = ()

    @classmethod
    def of(cls, columns: Tensor, sample: Sample | None) -> Self:
        """Return the evaluation of terms.

        Args:
            columns: Losses, their weights, hits and theirs, then those of each further metric,
                (4 + 2 m, samples) in float64.
            sample: How the samples were drawn, where they may be a part of a split.
        """
        pairs = columns.split(2)
        loss, accuracy, *others = (ratio(*pair) for pair in pairs)
        return cls(
            loss.value,
            accuracy.value,
            columns.shape[1],
            loss.weight,
            loss.deviation,
            _sampling_error(pairs[0], loss, sample),
            tuple(mean.value for mean in others),
            tuple(_sampling_error(*one, sample) for one in zip(pairs[2:], others, strict=True)),
        )

    def __repr__(self) -> str:
        error = f" ± {self.sampling_error:.2g}" if self.sampling_error else ""
        accuracy = "" if math.isnan(self.accuracy) else f", accuracy={self.accuracy:.6g}"
        return f"Evaluation(loss={self.loss:.6g}{error}{accuracy}, {self.count:,} samples)"


def _sampling_error(pair: Tensor, mean: Ratio, sample: Sample | None) -> float:
    """Return the standard error of a ratio of sums as an estimate of that over the whole split."""
    count = pair.shape[1]
    # The probe of determinism evaluates a few samples only, whose error nobody asks for.
    if sample is None or not sample.partial or count != sample.size:
        return 0.0
    return sample.error((pair[0] - mean.value * pair[1]) * count / mean.weight)
