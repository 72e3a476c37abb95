"""A network's outputs over a split: means for the training loop, predictions for scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isoloss.evaluation.predictions import Predictions
from isoloss.evaluation.scores import Groups, NetworkScores, Scores, score
from isoloss.landscape.batches import as_batch
from isoloss.landscape.losses import PerSampleLoss
from isoloss.landscape.metrics import top1
from isoloss.split import Split

EVALUATION_BATCH = 256


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
    outputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if outputs.dtype == torch.bfloat16:  # which numpy lacks; float32 holds all of its values
        outputs = outputs.float()
    return Predictions(outputs.numpy(), targets.numpy())


def sample_losses(predictions: Predictions, loss: PerSampleLoss) -> np.ndarray:
    """Return the loss of each sample, (count,), float64.

    Args:
        predictions: From `predict`.
        loss: One value a sample, of outputs on the CPU.
    """
    outputs, targets = map(torch.from_numpy, (predictions.outputs, predictions.targets))
    return loss(outputs, targets).double().numpy()


def score_splits(
    predictions: Mapping[str, Predictions],
    loss: PerSampleLoss,
    class_names: Sequence[str] | None = None,
    groups: Groups | None = None,
) -> NetworkScores:
    """Return the scores of a network from its predictions for each of several splits.

    Args:
        predictions: From `predict`, by the name of the split.
        loss: One value a sample, of outputs on the CPU.
        class_names: A name for each output; the indices where None.
        groups: Groups of classes, as in `score`.

    Returns:
        The scores.
    """
    return NetworkScores(
        {
            name: score(part, sample_losses(part, loss), class_names, groups)
            for name, part in predictions.items()
        }
    )


def evaluate_split(
    model: nn.Module,
    loss: PerSampleLoss,
    split: Split,
    *,
    class_names: Sequence[str] | None = None,
    groups: Groups | None = None,
    batch_size: int = EVALUATION_BATCH,
    channels_last: bool = True,
) -> Scores:
    """Return all scores of a network on a split: `predict`, then `score`.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: One value a sample, of outputs on the CPU.
        split: The samples.
        class_names: A name for each output; the indices where None.
        groups: Groups of classes, as in `score`.
        batch_size: Samples of one forward pass; does not change what is computed.
        channels_last: Whether images are laid out channels last.

    Returns:
        The scores.
    """
    predictions = predict(model, split, batch_size=batch_size, channels_last=channels_last)
    return score(predictions, sample_losses(predictions, loss), class_names, groups)


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
