"""A network's outputs over a split: means for the training loop, predictions for scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.evaluation.predictions import Predictions
from isoloss.evaluation.reports import LARGEST_REGRESSION
from isoloss.evaluation.scores import Groups, NetworkScores, SampleTerms, Scores, score
from isoloss.landscape.batches import as_batch
from isoloss.landscape.kernels import same_without_gradients
from isoloss.landscape.losses import PerSampleLoss
from isoloss.landscape.metrics import top1
from isoloss.landscape.objective import Loss, objective
from isoloss.landscape.terms import Terms
from isoloss.split import Split

EVALUATION_BATCH = 256


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
    loss: Loss,
    split: Split,
    *,
    batch_size: int = EVALUATION_BATCH,
) -> LossSums:
    """Add up loss and hits over a split, in evaluation mode.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: Sum and weight of each sample, or a closure.
        split: The samples.
        batch_size: Samples of one forward pass; does not change what is computed.

    Returns:
        The sums.
    """
    sums = LossSums()
    for terms, hits in _terms(model, loss, split, batch_size):
        sums.add(terms, hits)
    return sums


def predict(
    model: nn.Module,
    split: Split,
    *,
    batch_size: int = EVALUATION_BATCH,
) -> Predictions:
    """Return the outputs for all samples of a split, in evaluation mode.

    Args:
        model: The network; its mode and weights are left as they are.
        split: The samples.
        batch_size: Samples of one forward pass; does not change what is computed.

    Returns:
        The predictions.
    """
    pairs = [(o.cpu(), t.cpu()) for o, t in _forward(model, split, batch_size)]
    outputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if outputs.dtype == torch.bfloat16:  # which numpy lacks; float32 holds all of its values
        outputs = outputs.float()
    groups = None if split.groups is None else split.groups.numpy()
    return Predictions(outputs.numpy(), targets.numpy(), groups)


def sample_terms(predictions: Predictions, loss: PerSampleLoss) -> SampleTerms:
    """Return what each sample adds to loss and accuracy, float64.

    Args:
        predictions: From `predict`.
        loss: Sum and weight of each sample, of outputs on the CPU.
    """
    outputs, targets = map(torch.from_numpy, (predictions.outputs, predictions.targets))
    pairs = (*loss(outputs, targets), *top1(outputs, targets, loss.layout))
    return SampleTerms(*(part.double().numpy() for part in pairs))


def score_splits(
    predictions: Mapping[str, Predictions],
    loss: PerSampleLoss,
    class_names: Sequence[str] | None = None,
    groups: Groups | None = None,
) -> NetworkScores:
    """Return the scores of a network from its predictions for each of several splits.

    Args:
        predictions: From `predict`, by the name of the split.
        loss: Sum and weight of each sample, of outputs on the CPU.
        class_names: A name for each output; the indices where None.
        groups: Groups of classes, as in `score`.

    Returns:
        The scores.
    """
    return NetworkScores(
        {
            name: score(part, sample_terms(part, loss), class_names, groups)
            for name, part in predictions.items()
        }
    )


def has_rows(model: nn.Module, split: Split) -> bool:
    """Return whether the network puts out a number or a row of numbers for each sample of a split.

    Only then there are predictions to keep. Many outputs with positions (tokens, pixels) would fill
    the memory, and outputs in several parts have no one meaning.
    """
    few = split.subset(range(min(2, len(split))))
    outputs = [outputs for outputs, _ in _forward(model, few, len(few))]
    return all(
        isinstance(part, Tensor) and (part.ndim <= 2 or part[0].numel() <= LARGEST_REGRESSION)
        for part in outputs
    )


def score_terms(
    model: nn.Module,
    loss: Loss,
    splits: Mapping[str, Split],
    *,
    batch_size: int = EVALUATION_BATCH,
) -> NetworkScores:
    """Return mean loss and accuracy over each of several splits, with their errors.

    For what has no outputs to keep: a closure, which has no accuracy, and outputs that are not a
    row a sample. There is nothing by class.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: Sum and weight of each sample, or a closure.
        splits: By name.
        batch_size: Samples of one pass; does not change what is computed.

    Returns:
        The scores.
    """
    scores = {}
    for name, split in splits.items():
        columns = [
            torch.stack([part.detach().cpu().double() for part in (*terms, *hits)])
            for terms, hits in _terms(model, loss, split, batch_size)
        ]
        parts = SampleTerms(*torch.cat(columns, dim=1).numpy())
        groups = None if split.groups is None else split.groups.numpy()
        # What is put out for a sample is its loss: not finite where that is not.
        scores[name] = score(Predictions(parts.losses, parts.weights, groups), parts)
    return NetworkScores(scores)


def evaluate_split(
    model: nn.Module,
    loss: PerSampleLoss,
    split: Split,
    *,
    class_names: Sequence[str] | None = None,
    groups: Groups | None = None,
    batch_size: int = EVALUATION_BATCH,
) -> Scores:
    """Return all scores of a network on a split: `predict`, then `score`.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: Sum and weight of each sample, of outputs on the CPU.
        split: The samples.
        class_names: A name for each output; the indices where None.
        groups: Groups of classes, as in `score`.
        batch_size: Samples of one forward pass; does not change what is computed.

    Returns:
        The scores.
    """
    predictions = predict(model, split, batch_size=batch_size)
    return score(predictions, sample_terms(predictions, loss), class_names, groups)


def placement(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return device and floating type of a network's weights."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return weight.device, weight.dtype


def _terms(
    model: nn.Module, loss: Loss, split: Split, batch_size: int
) -> Iterator[tuple[Terms, Terms]]:
    device, dtype = placement(model)
    whole = objective(model, loss, device=device, dtype=dtype)
    with evaluating(model), torch.no_grad():
        for item in split.batches(batch_size):
            yield whole(whole.read(item).to(device, dtype, channels_last=True), metric=True)


def _forward(model: nn.Module, split: Split, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
    device, dtype = placement(model)
    with evaluating(model), torch.no_grad():
        for item in split.batches(batch_size):
            # Channels last is 1.8x faster on CPUs.
            batch = as_batch(item).to(device, dtype, channels_last=True)
            with same_without_gradients():
                outputs = batch.call(model)
            yield outputs, batch.targets
