"""ROC curves of a classifier, one class against the rest, and the areas under them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import log_softmax, logsumexp

from isoloss.evaluation.predictions import Predictions, ScoresError, class_labels
from isoloss.evaluation.uncertainty import cluster_sums
from isoloss.records.files import write_csv

COLUMNS = ["class", "threshold", "false_positive_rate", "true_positive_rate"]


@dataclass(frozen=True)
class RocCurve:
    """The receiver operating characteristic of one class against the rest.

    Attributes:
        name: Name of the class.
        thresholds: (points,) on the class's probability, descending; the first is inf.
        false_positive_rate: (points,) share of the other classes' samples at or above it.
        true_positive_rate: (points,) share of the class's samples at or above it.
    """

    name: str
    thresholds: np.ndarray
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray


def log_odds(outputs: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of each class's softmax probability p.

    It orders samples as p does, also where p is too close to 1 to be told from it.

    Args:
        outputs: Logits (count, K).

    Returns:
        (count, K), float64; NaN in rows with an output that is NaN or inf.
    """
    logits = outputs.astype(np.float64)
    largest = logits.argmax(1)[:, None]
    others = logits.copy()
    np.put_along_axis(others, largest, -np.inf, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = log_softmax(logits, axis=1)
        odds = logs - np.log1p(-np.exp(logs))
        # 1 - p loses its digits for the largest logit of a row only: there, sum the others.
        top = np.take_along_axis(logits, largest, 1) - logsumexp(others, axis=1, keepdims=True)
    np.put_along_axis(odds, largest, top, 1)
    odds[~(logits < np.inf).all(1)] = np.nan
    return odds


def auc(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the area under the ROC curve and its standard error.

    The area is the share of pairs of a positive and a negative sample that the scores put in
    order, ties counting one half. Its variance is estimated without a model of the scores: with
    V_i the share of negatives below positive i, W_j the share of positives above negative j,
    var = var(V) / m + var(W) / n (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, eq. 5),
    the shares from midranks (Sun & Xu 2014, IEEE Signal Processing Letters 21). Of G groups of
    samples it is G / (G - 1) times the sum over groups of the squares of
    sum_i (V_i - A) / m + sum_j (W_j - A) / n (after Obuchowski 1997, Biometrics 53).

    Example:
        >>> area, error = auc(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.6, 0.1]))
        >>> area, round(error, 4)  # three of four pairs are in order
        (0.75, 0.3536)

    Args:
        positive: (count,) booleans.
        scores: (count,), larger where more likely positive.
        groups: (count,), what each sample belongs to; None where samples are independent.

    Returns:
        Area and standard error: both NaN where there is no positive, no negative, or a score that
        is NaN; the error NaN where there is but one of a kind, or one group. It is 0 for scores
        that separate the two, where it says nothing of the next sample.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0 or np.isnan(scores).any():
        return math.nan, math.nan
    from scipy.stats import rankdata  # which takes a second to import

    ranks = rankdata(scores)
    below = (ranks[positive] - rankdata(scores[positive])) / n
    above = 1 - (ranks[~positive] - rankdata(scores[~positive])) / m
    area = float(below.mean())
    if m == 1 or n == 1:
        return area, math.nan
    if groups is not None:
        influence = np.empty(len(positive))
        influence[positive], influence[~positive] = (below - area) / m, (above - area) / n
        parts = cluster_sums(influence, groups)
        count = len(parts)
        squares = float(np.square(parts).sum())
        return area, math.sqrt(squares * count / (count - 1)) if count > 1 else math.nan
    return area, math.sqrt(below.var(ddof=1) / m + above.var(ddof=1) / n)


def roc_curves(
    predictions: Predictions, class_names: Sequence[str] | None = None
) -> list[RocCurve]:
    """Return the ROC curve of each class against the rest, corners only.

    Args:
        predictions: Of a classifier.
        class_names: A name for each output; the indices where None.

    Returns:
        A curve for each class that has samples, where some others have, too; none where an output
        is not finite.
    """
    from sklearn.metrics import roc_curve  # scikit-learn takes a second to import

    predictions = predictions.labelled()
    odds, targets = log_odds(predictions.outputs), predictions.targets
    curves = []
    for k, name in enumerate(class_labels(odds.shape[1], class_names)):
        positive = targets == k
        if positive.all() or not positive.any() or np.isnan(odds[:, k]).any():
            continue
        false, true, thresholds = roc_curve(positive, odds[:, k])
        with np.errstate(over="ignore"):
            probabilities = 1 / (1 + np.exp(-thresholds))
        curves.append(RocCurve(name, np.r_[np.inf, probabilities[1:]], false, true))
    return curves


def write_roc(path: Path, curves: Iterable[RocCurve]) -> None:
    """Write ROC curves, one corner a line; the first threshold of each is inf."""
    rows = (
        [curve.name, *(f"{value:.9g}" for value in corner)]
        for curve in curves
        for corner in zip(
            curve.thresholds, curve.false_positive_rate, curve.true_positive_rate, strict=True
        )
    )
    write_csv(path, COLUMNS, rows)


def read_roc(path: Path) -> list[RocCurve]:
    """Read what `write_roc` wrote.

    Raises:
        ScoresError: If it is something else; names the line.
        OSError: If it cannot be read.
    """
    corners: dict[str, list[list[float]]] = {}
    line = 1
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if next(rows, None) != COLUMNS:
                raise ValueError(f"other columns than {', '.join(COLUMNS)}")
            line = 2
            for name, *cells in rows:
                threshold, false, true = map(float, cells)
                if not (0 <= false <= 1 and 0 <= true <= 1):
                    raise ValueError(f"rates {false:g} and {true:g}")
                corners.setdefault(name, []).append([threshold, false, true])
                line += 1
    except (ValueError, csv.Error) as error:
        raise ScoresError(
            f"{path}, line {line}: expected a class, a threshold and two rates from 0 to 1, "
            f"got {error}\nthe file is damaged: evaluate the run again"
        ) from error
    return [RocCurve(name, *np.array(points).T) for name, points in corners.items()]
