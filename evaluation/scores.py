"""Scores of a network on a split, each with its uncertainty where something is averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from isoloss.evaluation.predictions import Predictions, ScoresError, class_labels
from isoloss.evaluation.roc import auc, log_odds

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
class Scores:
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


@dataclass(frozen=True)
class NetworkScores:
    """Scores of a network on several splits, as `evaluation.json` holds them.

    Attributes:
        splits: Scores by the name of the split.
        facts: What else is known, JSON-able: of the loss, of the file of the weights.
        checkpoint: The weights, from the folder of the run.
    """

    splits: Mapping[str, Scores]
    facts: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = "checkpoints/last.pt"

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries, tuples and numbers; NaN is null once it is written."""
        splits = {name: asdict(scores) for name, scores in self.splits.items()}
        return {"checkpoint": self.checkpoint, "splits": splits, **self.facts}


@dataclass(frozen=True)
class SampleTerms:
    """What each sample adds to the mean loss and to the accuracy, (count,) each, float64.

    Attributes:
        losses: Sums of (weighted) losses.
        weights: What the mean loss is divided by.
        hits: Targets whose class has the largest output; NaN for a regression.
        counted: Targets that count.
    """

    losses: np.ndarray
    weights: np.ndarray
    hits: np.ndarray
    counted: np.ndarray


def score(
    predictions: Predictions,
    terms: SampleTerms,
    class_names: Sequence[str] | None = None,
    groups: Groups | None = None,
) -> Scores:
    """Compute all scores from predictions.

    Args:
        predictions: Outputs and targets.
        terms: What each sample adds to loss and accuracy.
        class_names: A name for each output; the indices where None.
        groups: Names of classes over which macro F1 is wanted beside that over all.

    Returns:
        The scores.

    Raises:
        ScoresError: If the terms do not fit the samples, the names do not fit the outputs, or a
            group names no class.
    """
    count = len(predictions.targets)
    if any(part.shape != (count,) for part in astuple(terms)):
        raise ScoresError(f"expected terms of shape ({count},), got {terms.losses.shape}")
    mean, spread = _ratio(terms.losses, terms.weights)
    accuracy, error = _ratio(terms.hits, terms.counted)
    not_finite = int((~predictions.finite()).sum())
    if not predictions.classes:
        return Scores(mean, spread, accuracy, error, count, not_finite)
    names = class_labels(predictions.outputs.shape[1], class_names)
    counted = float(terms.counted.sum())
    counts = confusion_matrix(predictions.targets, predictions.guesses(), labels=range(len(names)))
    classes = _class_scores(predictions, names, counts)
    return Scores(
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


def _class_scores(
    predictions: Predictions, names: Sequence[str], counts: np.ndarray
) -> tuple[ClassScores, ...]:
    """Return the scores of each class; `counts` is the confusion matrix."""
    truth, odds = predictions.targets, log_odds(predictions.outputs)
    ratios = precision_recall_fscore_support(
        truth, predictions.guesses(), labels=range(len(names)), zero_division=np.nan
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
    """Return the mean of those that are not NaN; NaN where there are none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _ratio(sums: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return a ratio of sums over samples and its standard error (Cochran 1977, section 6.3).

    With residuals e_i = y_i - R w_i it is sqrt(n / (n - 1) sum e_i^2) / sum w_i: for weights of 1
    that of a mean.
    """
    count, weight = len(sums), float(weights.sum())
    if weight == 0:
        return math.nan, math.nan
    with np.errstate(invalid="ignore"):  # inf - inf: the spread of infinite losses is NaN
        value = float(sums.sum()) / weight
        squares = float(np.square(sums - value * weights).sum())
    if count < 2 or not math.isfinite(squares):
        return value, math.nan
    return value, math.sqrt(squares * count / (count - 1)) / weight
