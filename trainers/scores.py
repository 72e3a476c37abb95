"""Scores of a network on a split, each with its uncertainty where something is averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn

from isoloss.landscape.losses import PerSampleLoss
from isoloss.landscape.metrics import top1
from isoloss.landscape.terms import ratio
from isoloss.trainers.evaluation import (
    EVALUATION_BATCH,
    Predictions,
    ScoresError,
    Split,
    class_labels,
    predict,
)
from isoloss.trainers.roc import auc, log_odds

Groups = Sequence[Sequence[str]]


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class against the rest; NaN where a ratio has nothing below.

    Attributes:
        name: Name of the class.
        precision: Share of those predicted as this class that are of it.
        recall: Share of those of this class that are predicted as it.
        f1: Harmonic mean of the two.
        support: Samples of the class.
        iou: Intersection over union (Jaccard index) of those of this class and those predicted
            as it.
        auc: Area under the ROC curve of the class's probability; NaN where the split has no
            sample of the class, or no other.
        auc_standard_error: Of that area, over samples (see `auc`).
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    iou: float
    auc: float
    auc_standard_error: float


@dataclass(frozen=True)
class GroupScores:
    """Scores of some of the classes, when all classes could be predicted.

    Attributes:
        classes: Names of the classes.
        macro_f1: Mean of their F1, those where it is NaN left out.
        support: Samples of these classes.
    """

    classes: tuple[str, ...]
    macro_f1: float
    support: int


@dataclass(frozen=True)
class SplitScores:
    """Scores of a network on a split; means over classes leave those out where they are NaN.

    Attributes:
        loss: Mean over samples; for a weighted loss the ratio of sums (see `landscape.losses`).
        loss_standard_error: Of that mean, s / sqrt(N) with s of the samples' residuals; NaN for
            one sample.
        accuracy: Fraction of samples (of tokens, where a sample has several) whose largest output
            is the target, ignored targets left out; NaN for a regression.
        accuracy_standard_error: Binomial, sqrt(p (1 - p) / N), N the samples whose target counts;
            it is 0 where p is 0 or 1. Over tokens, which belong together in their samples, that
            of the samples' residuals, as for the loss.
        count: Samples N.
        not_finite: Samples with outputs that are not finite: wrong, and in no column of the
            confusion matrix.
        macro_f1: Mean of the classes' F1.
        mean_iou: Mean of the classes' IoU.
        macro_auc: Mean of the classes' AUC.
        confusion: Samples of class i predicted as class j in row i, column j; empty for a
            regression.
        classes: Scores of each class; empty for a regression.
        groups: Scores of groups of classes, where the data set names any.
    """

    loss: float
    loss_standard_error: float
    accuracy: float
    accuracy_standard_error: float
    count: int
    not_finite: int
    macro_f1: float = math.nan
    mean_iou: float = math.nan
    macro_auc: float = math.nan
    confusion: tuple[tuple[int, ...], ...] = ()
    classes: tuple[ClassScores, ...] = ()
    groups: tuple[GroupScores, ...] = ()


def score(
    predictions: Predictions,
    loss: PerSampleLoss,
    class_names: Sequence[str] | None = None,
    groups: Groups | None = None,
) -> SplitScores:
    """Compute all scores from predictions.

    Args:
        predictions: From `predict`.
        loss: One value a sample.
        class_names: A name for each output; the indices where None.
        groups: Names of classes over which macro F1 is wanted beside that over all.

    Returns:
        The scores.

    Raises:
        ScoresError: If the names do not fit the outputs, or a group names no class.
    """
    outputs, targets = predictions.outputs, predictions.targets
    count = len(targets)
    mean, _, deviation = ratio(*loss(outputs, targets))
    spread = deviation / math.sqrt(count - 1) if count > 1 else math.nan
    not_finite = int((~outputs.reshape(count, -1).isfinite().all(1)).sum())
    accuracy, counted, deviation = ratio(*top1(outputs, targets, loss.layout))
    if not predictions.classes:
        error = deviation / math.sqrt(count - 1) if count > 1 else math.nan
        return SplitScores(mean, spread, accuracy, error, count, not_finite)
    names = class_labels(outputs.shape[1], class_names)
    counts = confusion_matrix(targets, predictions.guesses(), labels=range(len(names)))
    classes = _class_scores(predictions, names, counts)
    return SplitScores(
        loss=mean,
        loss_standard_error=spread,
        accuracy=accuracy,
        accuracy_standard_error=math.sqrt(accuracy * (1 - accuracy) / counted),
        count=count,
        not_finite=not_finite,
        macro_f1=_mean([c.f1 for c in classes]),
        mean_iou=_mean([c.iou for c in classes]),
        macro_auc=_mean([c.auc for c in classes]),
        confusion=tuple(tuple(map(int, row)) for row in counts),
        classes=classes,
        groups=tuple(_group(members, classes) for members in groups or ()),
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
) -> SplitScores:
    """Return all scores of a network on a split: `predict`, then `score`.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: One value a sample.
        split: The samples.
        class_names: A name for each output; the indices where None.
        groups: Groups of classes, as in `score`.
        batch_size: Samples of one forward pass; does not change what is computed.
        channels_last: Whether images are laid out channels last.

    Returns:
        The scores.
    """
    predictions = predict(model, split, batch_size=batch_size, channels_last=channels_last)
    return score(predictions, loss, class_names, groups)


def _class_scores(
    predictions: Predictions, names: Sequence[str], counts: np.ndarray
) -> tuple[ClassScores, ...]:
    """Scores of each class; `counts` is the confusion matrix."""
    truth, odds = predictions.targets.numpy(), log_odds(predictions.outputs).numpy()
    ratios = precision_recall_fscore_support(
        truth, predictions.guesses().numpy(), labels=range(len(names)), zero_division=np.nan
    )
    classes = []
    for k, (name, precision, recall, f1, support) in enumerate(zip(names, *ratios, strict=True)):
        hits = int(counts[k, k])
        union = int(support) + int(counts[:, k].sum()) - hits
        area, error = auc(truth == k, odds[:, k])
        classes.append(
            ClassScores(
                name,
                float(precision),
                float(recall),
                float(f1),
                int(support),
                hits / union if union else math.nan,
                area,
                error,
            )
        )
    return tuple(classes)


def _group(members: Sequence[str], classes: Sequence[ClassScores]) -> GroupScores:
    by_name = {scores.name: scores for scores in classes}
    unknown = [member for member in members if member not in by_name]
    if unknown or not members:
        raise ScoresError(
            f"expected a group of classes among {', '.join(by_name)}, "
            f"got {', '.join(unknown) or 'none'}"
        )
    chosen = [by_name[member] for member in members]
    return GroupScores(
        tuple(members), _mean([c.f1 for c in chosen]), sum(c.support for c in chosen)
    )


def _mean(values: Sequence[float]) -> float:
    """Mean of those that are not NaN; NaN where there are none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
