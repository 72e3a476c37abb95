"""Predictions of a network over a split, and the scores computed from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor, nn

from landscape.batches import as_batch
from landscape.losses import PerSampleLoss
from landscape.metrics import is_classification, top1

EVALUATION_BATCH = 256


class Split(Protocol):
    """Samples in a fixed order."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def batches(self, size: int, order: Tensor | None = None) -> Iterable[Any]:
        """Yield batches of at most `size` samples, in the order of the indices `order`."""


@dataclass(frozen=True)
class Predictions:
    """What a network puts out for the samples of a split, in their order.

    Attributes:
        outputs: (count, ...), on the CPU; logits for a classifier.
        targets: (count, ...), on the CPU.
    """

    outputs: Tensor
    targets: Tensor

    @property
    def classes(self) -> bool:
        """Whether outputs are logits (count, K) and targets class indices (count,)."""
        return is_classification(self.outputs, self.targets)


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; NaN where a ratio has nothing below.

    Attributes:
        name: Name of the class.
        precision: Share of those predicted as this class that are of it.
        recall: Share of those of this class that are predicted as it.
        f1: Harmonic mean of the two.
        support: Samples of the class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class SplitScores:
    """Scores of a network on a split.

    Attributes:
        loss: Mean over samples.
        loss_standard_error: Of that mean, s / sqrt(N); NaN for one sample.
        accuracy: Fraction of samples whose largest output is the target; NaN for a regression.
        accuracy_standard_error: Binomial, sqrt(p (1 - p) / N); it is 0 where p is 0 or 1.
        count: Samples N.
        macro_f1: Mean of the classes' F1, those where it is NaN left out.
        confusion: Samples of class i predicted as class j in row i, column j; empty for a
            regression.
        classes: Scores of each class; empty for a regression.
    """

    loss: float
    loss_standard_error: float
    accuracy: float
    accuracy_standard_error: float
    count: int
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassScores, ...]


def correct(outputs: Any, targets: Tensor) -> float:
    """Return the number of samples whose largest output is the target; NaN for a regression."""
    return float(top1(outputs, targets).sum())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode, and back in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def mean_scores(
    model: nn.Module,
    loss: PerSampleLoss,
    split: Split,
    *,
    batch_size: int = EVALUATION_BATCH,
    channels_last: bool = True,
) -> tuple[float, float]:
    """Return the mean loss and the accuracy over a split, in evaluation mode.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: One value a sample.
        split: The samples.
        batch_size: Samples of one forward pass; does not change what is computed.
        channels_last: Whether images are laid out channels last.

    Returns:
        Mean loss and accuracy (a fraction; NaN for a regression).
    """
    total = hits = 0.0
    for outputs, targets in _forward(model, split, batch_size, channels_last):
        total += loss(outputs, targets).cpu().double().sum().item()
        hits += correct(outputs, targets)
    return total / len(split), hits / len(split)


def predict(
    model: nn.Module,
    split: Split,
    *,
    batch_size: int = EVALUATION_BATCH,
    channels_last: bool = True,
) -> Predictions:
    """Return the outputs for all samples of a split, in evaluation mode.

    Args:
        model: The network; its mode and weights are left as they are.
        split: The samples.
        batch_size: Samples of one forward pass; does not change what is computed.
        channels_last: Whether images are laid out channels last.

    Returns:
        The predictions.
    """
    pairs = [(o.cpu(), t.cpu()) for o, t in _forward(model, split, batch_size, channels_last)]
    return Predictions(torch.cat([o for o, _ in pairs]), torch.cat([t for _, t in pairs]))


def score(
    predictions: Predictions, loss: PerSampleLoss, class_names: Sequence[str] | None = None
) -> SplitScores:
    """Compute all scores from predictions.

    Args:
        predictions: From `predict`.
        loss: One value a sample.
        class_names: A name for each output; the indices where None.

    Returns:
        The scores.
    """
    outputs, targets = predictions.outputs, predictions.targets
    count = len(targets)
    losses = loss(outputs, targets).double()
    spread = losses.std().item() / math.sqrt(count) if count > 1 else math.nan
    accuracy = correct(outputs, targets) / count
    error = math.sqrt(accuracy * (1 - accuracy) / count)
    if not predictions.classes:
        return SplitScores(
            losses.mean().item(), spread, math.nan, math.nan, count, math.nan, (), ()
        )
    labels = list(range(outputs.shape[1]))
    truth, guess = targets.numpy(), outputs.argmax(1).numpy()
    scores = precision_recall_fscore_support(truth, guess, labels=labels, zero_division=np.nan)
    names = list(class_names) if class_names is not None else [str(label) for label in labels]
    classes = tuple(
        ClassScores(name, float(p), float(r), float(f), int(s))
        for name, p, r, f, s in zip(names, *scores, strict=True)
    )
    f1 = [c.f1 for c in classes if not math.isnan(c.f1)]
    confusion = confusion_matrix(truth, guess, labels=labels)
    return SplitScores(
        loss=losses.mean().item(),
        loss_standard_error=spread,
        accuracy=accuracy,
        accuracy_standard_error=error,
        count=count,
        macro_f1=sum(f1) / len(f1),
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        classes=classes,
    )


def evaluate_split(
    model: nn.Module,
    loss: PerSampleLoss,
    split: Split,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int = EVALUATION_BATCH,
    channels_last: bool = True,
) -> SplitScores:
    """Return all scores of a network on a split: `predict`, then `score`.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: One value a sample.
        split: The samples.
        class_names: A name for each output; the indices where None.
        batch_size: Samples of one forward pass; does not change what is computed.
        channels_last: Whether images are laid out channels last.

    Returns:
        The scores.
    """
    predictions = predict(model, split, batch_size=batch_size, channels_last=channels_last)
    return score(predictions, loss, class_names)


def placement(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return device and floating type of a network's weights."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return weight.device, weight.dtype


def _forward(
    model: nn.Module, split: Split, batch_size: int, channels_last: bool
) -> Iterator[tuple[Any, Tensor]]:
    device, dtype = placement(model)
    with evaluating(model), torch.no_grad():
        for item in split.batches(batch_size):
            batch = as_batch(item).to(device, dtype, channels_last)
            yield batch.call(model), batch.targets
