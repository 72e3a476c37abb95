"""Scores of a network on a split, each with its uncertainty where something is averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

import numpy as np

from isoloss.evaluation.predictions import Predictions, ScoresError, class_labels
from isoloss.evaluation.roc import auc, log_odds
from isoloss.evaluation.uncertainty import (
    UNKNOWN,
    Interval,
    bootstrap_interval,
    cluster_sums,
    clustered_share_interval,
    half_carriers,
    ratio,
    share_interval,
    t_interval,
    wilson_interval,
)
from isoloss.records.tables import aligned

Groups = Sequence[Sequence[str]]
# Few samples carry the loss where the largest has more than this share of it, and more than this
# many times an equal share: the error of a mean is then too small, being of those that were met.
LARGE_SHARE = 0.05
MANY_TIMES = 10
LISTED = 10


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
        loss_standard_error: Of that mean, over samples, or over clusters where samples have groups
            (see `uncertainty.ratio`); NaN for one sample or cluster.
        accuracy: Fraction of samples (of tokens, where a sample has several) whose largest output
            is the target, ignored targets left out; NaN for a regression.
        accuracy_standard_error: Binomial, sqrt(p (1 - p) / N), N the samples whose target counts;
            over clusters where samples have groups, and over samples of several tokens, which
            belong together, as for the loss. It is 0 where p is 0 or 1.
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
        clusters: Groups of samples; None where samples are independent.
        accuracy_binomial_error: sqrt(p (1 - p) / N) in any case.
        accuracy_interval: 95 %, Wilson's; see `uncertainty.share_interval` for tokens, and
            `uncertainty.clustered_share_interval` for clusters.
        loss_interval: 95 %, mean -+ t error; by the bootstrap where few samples carry the loss.
        loss_interval_method: "t" or "bootstrap-t".
        half_loss_samples: The fewest samples that have half of the loss; 0 where a loss is negative
            or not finite, or none is above 0.
        heaviest_samples: Indices of up to ten of these, the largest loss first, where few carry
            the loss.
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
    clusters: int | None = None
    accuracy_binomial_error: float = math.nan
    accuracy_interval: Interval = UNKNOWN
    loss_interval: Interval = UNKNOWN
    loss_interval_method: str = "t"
    half_loss_samples: int = 0
    heaviest_samples: tuple[int, ...] = ()


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

    def __repr__(self) -> str:
        rows = [
            {
                "split": name,
                "loss": f"{s.loss:.5g} ± {s.loss_standard_error:.2g}",
                "accuracy": f"{s.accuracy:.5g} ± {s.accuracy_standard_error:.2g}",
                "samples": f"{s.count:,}",
            }
            for name, s in self.splits.items()
        ]
        return aligned(rows) if rows else "NetworkScores(no split)"


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

    def by_group(self, groups: np.ndarray | None) -> SampleTerms:
        """Return the sums over the samples of each group; the terms themselves without groups."""
        if groups is None:
            return self
        return SampleTerms(*(cluster_sums(part, groups) for part in astuple(self)))


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
    scores = _means(predictions, terms)
    if not predictions.classes:
        return scores
    names = class_labels(predictions.outputs.shape[1], class_names)
    predictions = predictions.labelled()
    if not len(predictions.targets):
        return scores
    from sklearn.metrics import confusion_matrix  # scikit-learn takes two seconds to import

    counts = confusion_matrix(predictions.targets, predictions.guesses(), labels=range(len(names)))
    classes = _class_scores(predictions, names, counts)
    return replace(
        scores,
        macro_f1=_mean([c.f1 for c in classes]),
        mean_iou=_mean([c.iou for c in classes]),
        macro_auc=_mean([c.auc for c in classes]),
        confusion=tuple(tuple(map(int, row)) for row in counts),
        classes=classes,
        groups=tuple(_group(members, classes) for members in groups or ()),
    )


def _means(predictions: Predictions, terms: SampleTerms) -> Scores:
    """Return mean loss and accuracy with all that is known of their errors."""
    parts = terms.by_group(predictions.groups)
    number = len(parts.losses)
    loss, spread = ratio(parts.losses, parts.weights)
    accuracy, error = ratio(parts.hits, parts.counted)
    counted = float(terms.counted.sum())
    binomial = math.sqrt(accuracy * (1 - accuracy) / counted) if counted else math.nan
    if predictions.classes and predictions.groups is None:
        error, interval = binomial, wilson_interval(accuracy, counted)
    elif predictions.groups is not None:
        interval = clustered_share_interval(parts.hits, parts.counted)
    else:
        interval = share_interval(accuracy, error, counted, number)
    heaviest = half_carriers(terms.losses)
    few = _few_carry(terms.losses, heaviest)
    return Scores(
        loss,
        spread,
        accuracy,
        error,
        count=len(predictions.targets),
        not_finite=int((~predictions.finite()).sum()),
        clusters=None if predictions.groups is None else number,
        accuracy_binomial_error=binomial,
        accuracy_interval=interval,
        loss_interval=bootstrap_interval(parts.losses, parts.weights)
        if few
        else t_interval(loss, spread, number),
        loss_interval_method="bootstrap-t" if few else "t",
        half_loss_samples=len(heaviest),
        heaviest_samples=tuple(map(int, heaviest[:LISTED])) if few else (),
    )


def _few_carry(losses: np.ndarray, heaviest: np.ndarray) -> bool:
    """Return whether one sample has much of the loss, by itself and beside an equal share."""
    if not len(heaviest):
        return False
    share = losses[heaviest[0]] / losses.sum()
    return bool(share > max(LARGE_SHARE, MANY_TIMES / len(losses)))


def _class_scores(
    predictions: Predictions, names: Sequence[str], counts: np.ndarray
) -> tuple[ClassScores, ...]:
    """Return the scores of each class; `counts` is the confusion matrix."""
    from sklearn.metrics import precision_recall_fscore_support

    truth, odds = predictions.targets, log_odds(predictions.outputs)
    ratios = precision_recall_fscore_support(
        truth, predictions.guesses(), labels=range(len(names)), zero_division=np.nan
    )
    classes = []
    for k, (name, precision, recall, f1, support) in enumerate(zip(names, *ratios, strict=True)):
        hits = int(counts[k, k])
        union = int(support) + int(counts[:, k].sum()) - hits
        area, error = auc(truth == k, odds[:, k], predictions.groups)
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
