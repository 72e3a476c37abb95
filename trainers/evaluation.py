"""What a network puts out over a split: means for the training loop, predictions for scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from isoloss.landscape.batches import as_batch
from isoloss.landscape.losses import PerSampleLoss
from isoloss.landscape.metrics import is_classification, top1
from isoloss.landscape.terms import Terms

EVALUATION_BATCH = 256


class ScoresError(ValueError):
    """Names that do not fit the classes."""


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

    def guesses(self) -> Tensor:
        """Index of the largest output (count,); -1 where a row of outputs is not finite."""
        return self.outputs.argmax(1).where(self.outputs.isfinite().all(1), -1)

    def probabilities(self) -> Tensor:
        """Softmax of the outputs (count, K), float64; NaN where a row is not finite."""
        finite = self.outputs.isfinite().all(1, keepdim=True)
        return self.outputs.double().softmax(1).where(finite, math.nan)


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


@dataclass
class LossSums:
    """Loss and hits added up over samples, each with what divides it.

    Attributes:
        loss: Sum of the samples' (weighted) losses.
        weight: Sum of their weights.
        hits: Targets whose class has the largest output; NaN for a regression.
        counted: Targets that count.
    """

    loss: float = 0.0
    weight: float = 0.0
    hits: float = 0.0
    counted: float = 0.0

    def add(self, terms: Terms, hits: Terms) -> None:
        """Add the pairs of a batch."""
        # One transfer from the device; Apple's GPUs have no float64.
        parts = torch.stack([part.detach().to(terms.sums.dtype) for part in (*terms, *hits)])
        loss, weight, found, counted = parts.cpu().double().sum(1).tolist()
        self.loss, self.weight = self.loss + loss, self.weight + weight
        self.hits, self.counted = self.hits + found, self.counted + counted

    def __add__(self, other: LossSums) -> LossSums:
        return LossSums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def mean_loss(self) -> float:
        """The mean loss; NaN where no target counts."""
        return self.loss / self.weight if self.weight else math.nan

    @property
    def accuracy(self) -> float:
        """The share of hits; NaN where no target counts and for a regression."""
        return self.hits / self.counted if self.counted else math.nan


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


def loss_sums(
    model: nn.Module,
    loss: PerSampleLoss,
    split: Split,
    *,
    batch_size: int = EVALUATION_BATCH,
    channels_last: bool = True,
) -> LossSums:
    """Add up loss and hits over a split, in evaluation mode.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: Sum and weight of each sample.
        split: The samples.
        batch_size: Samples of one forward pass; does not change what is computed.
        channels_last: Whether images are laid out channels last.

    Returns:
        The sums.
    """
    sums = LossSums()
    for outputs, targets in _forward(model, split, batch_size, channels_last):
        sums.add(loss(outputs, targets), top1(outputs, targets, loss.layout))
    return sums


def mean_scores(
    model: nn.Module,
    loss: PerSampleLoss,
    split: Split,
    *,
    batch_size: int = EVALUATION_BATCH,
    channels_last: bool = True,
) -> tuple[float, float]:
    """Return mean loss and accuracy over a split, in evaluation mode; arguments of `loss_sums`."""
    sums = loss_sums(model, loss, split, batch_size=batch_size, channels_last=channels_last)
    return sums.mean_loss, sums.accuracy


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
