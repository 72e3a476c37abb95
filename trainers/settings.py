"""What is fixed before a training starts, and what is kept of each of its epochs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from isoloss.errors import IsolossError, UsageError

PRECISIONS = ("bf16",)


class TrainingError(IsolossError, ValueError):
    """Data or a stored state that a training cannot start from."""


class TrainingSettingsError(TrainingError, UsageError):
    """Settings that make no training."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train, apart from what.

    Attributes:
        epochs: Passes over the training split; 0 leaves the network as it is.
        batch_size: Samples of one step; None takes all of them. The last batch may be smaller.
        seed: Fixes the order, the augmentation and the dropout of every epoch; 0 or more.
        schedule: A name in `SCHEDULES`.
        schedule_arguments: Settings of the schedule, such as `every`.
        warmup: Length of the linear warm-up, which goes with any schedule: "3" (epochs, fractions
            allowed) or "500steps".
        patience: Stop early when the monitored loss has not improved for so many epochs; None
            never does.
        clip: Largest 2-norm of the gradient that is descended with, over all parameters jointly;
            longer ones are scaled down to it. None leaves them.
        amp: "bf16" runs the training passes under autocast; weights, optimizer and validation stay
            float32. None does not.
    """

    epochs: int
    batch_size: int | None = 128
    seed: int = 0
    schedule: str = "constant"
    schedule_arguments: dict[str, Any] = field(default_factory=dict)
    warmup: str = "0"
    patience: int | None = None
    clip: float | None = None
    amp: str | None = None

    def __post_init__(self) -> None:
        least = {"epochs": 0, "batch_size": 1, "seed": 0, "patience": 1}
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and value < limit:
                raise TrainingSettingsError(f"expected {name} of {limit} or more, got {value}")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise TrainingSettingsError(f"expected clip above 0, got {self.clip}")
        if self.amp is not None and self.amp not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise TrainingSettingsError(f"expected amp among {known}, got {self.amp!r}")
        self.warmup_steps(1)

    def warmup_steps(self, steps_per_epoch: int) -> int:
        """Return the length of the warm-up in steps.

        Raises:
            TrainingSettingsError: If `warmup` is neither epochs nor steps.
        """
        found = re.fullmatch(
            r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}) *(epochs?|steps?)?", str(self.warmup)
        )
        steps = found is not None and str(found[2]).startswith("step")
        if found is None or (steps and not found[1].isdigit()):
            raise TrainingSettingsError(
                f"expected warmup in epochs, as 3, or in steps, as 500steps, got {self.warmup!r}"
            )
        return int(found[1]) if steps else round(float(found[1]) * steps_per_epoch)


@dataclass(frozen=True)
class EpochRecord:
    """One line of the history.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean over the epoch's samples as they were trained on: in training mode,
            augmented, each batch at the weights of its step.
        train_accuracy: The same mean of hits, a fraction; NaN for a regression.
        val_loss: Mean over the validation split after the epoch; NaN without such a split.
        val_accuracy: Fraction; NaN without a validation split and for a regression.
        lr: Learning rate of the epoch's first step.
        seconds: Wall time, validation included.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float


def best_epoch(losses: Sequence[float]) -> int:
    """Return the number, from 1, of the epoch with the lowest loss; 0 where none is finite."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    return losses.index(min(finite)) + 1 if finite else 0
