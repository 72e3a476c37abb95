"""What a network put out for the samples of a split, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from isoloss.errors import IsolossError


class ScoresError(IsolossError, ValueError):
    """Names that do not fit the classes."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network puts out for the samples of a split, in their order.

    Attributes:
        outputs: (count, ...); logits for a classifier.
        targets: (count, ...).
        groups: (count,) integers, what each sample belongs to; None where samples are independent.
    """

    outputs: np.ndarray
    targets: np.ndarray
    groups: np.ndarray | None = None

    @property
    def classes(self) -> bool:
        """Whether outputs are logits (count, K) and targets class indices (count,)."""
        return self.outputs.ndim == 2 and self.targets.ndim == 1 and self.targets.dtype.kind != "f"

    def labelled(self) -> Predictions:
        """Return those of samples that have a class: targets below 0 (-100) do not count."""
        counted = self.targets >= 0
        if counted.all():
            return self
        groups = None if self.groups is None else self.groups[counted]
        return Predictions(self.outputs[counted], self.targets[counted], groups)

    def finite(self) -> np.ndarray:
        """Return whether all outputs of a sample are finite, (count,)."""
        return np.isfinite(self.outputs.reshape(len(self.outputs), -1)).all(1)

    def guesses(self) -> np.ndarray:
        """Return the index of the largest output (count,); -1 where a row is not finite."""
        return np.where(self.finite(), self.outputs.argmax(1), -1)

    def probabilities(self) -> np.ndarray:
        """Return the softmax of the outputs (count, K), float64; NaN where a row is not finite."""
        finite = self.finite()[:, None]
        logits = np.where(finite, self.outputs.astype(np.float64), 0.0)
        return np.where(finite, softmax(logits, axis=1), np.nan)


def class_labels(count: int, class_names: Sequence[str] | None = None) -> list[str]:
    """Return a name for each of `count` outputs, their indices where there are no names.

    Raises:
        ScoresError: If there are more or fewer names than outputs.
    """
    names = [str(k) for k in range(count)] if class_names is None else list(class_names)
    if len(names) != count:
        raise ScoresError(
            f"expected a network with one output for each of {len(names)} classes, got {count}"
        )
    return names
