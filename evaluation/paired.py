"""Two networks on the same test samples: the difference of their accuracies, tested in pairs."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isoloss.evaluation.predictions import ScoresError
from isoloss.evaluation.uncertainty import cluster_sums, ratio

LEVEL = 0.05  # of a test


@dataclass(frozen=True, eq=False)
class Answers:
    """What `predictions.csv` of a classifier says.

    Attributes:
        truth: (count,) names of classes.
        right: (count,) whether the guess is the truth.
        groups: (count,) integers; None where samples are independent.
    """

    truth: NDArray[np.str_]
    right: NDArray[np.bool_]
    groups: NDArray[np.int64] | None


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two networks' accuracies on the same samples.

    Attributes:
        a: Name of one run.
        b: Name of the other.
        difference: Accuracy of a minus that of b, a fraction.
        standard_error: Of the mean of the samples' differences (-1, 0 or 1), over samples or, where
            they have groups, over clusters.
        p: Chance of a difference at least as large if none were.
        p_holm: Adjusted for the number of pairs; p for one pair.
        method: "mcnemar" or "sign-flip".
        count: Samples.
        clusters: Groups of samples; None where samples are independent.
        only_a: Samples that a alone gets right.
        only_b: Samples that b alone gets right.
    """

    a: str
    b: str
    difference: float
    standard_error: float
    p: float
    p_holm: float
    method: str
    count: int
    clusters: int | None
    only_a: int
    only_b: int

    def text(self) -> str:
        """Return difference and test in one line, in percentage points."""
        groups = "" if self.clusters is None else f" in {self.clusters:,} groups"
        error = 100 * self.standard_error
        size = f"{100 * self.difference:+.2f}" + ("" if math.isnan(error) else f" ± {error:.2f}")
        name = {"mcnemar": "McNemar", "sign-flip": "sign-flip"}[self.method]
        holm = "" if self.p_holm == self.p else f" (Holm {self.p_holm:.2g})"
        shown = "a difference is shown" if self.p_holm < LEVEL else "no difference shown"
        return (
            f"{self.a} - {self.b}: {size} points on {self.count:,} shared test samples{groups}, "
            f"{name} p = {self.p:.2g}{holm}: {shown}"
        )


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p of McNemar's exact test.

    Given the samples that one network alone gets right, each of the two is as likely to be that
    one if they do not differ: binomial with 1/2 (McNemar 1947, Psychometrika 12).

    Example:
        >>> mcnemar(1, 5)  # 2 (1 + 6) / 2^6
        0.21875
    """
    from scipy.stats import binomtest  # which takes a second to import

    count = only_a + only_b
    return float(binomtest(only_a, count, 0.5).pvalue) if count else 1.0


def sign_flip(differences: NDArray[np.int64]) -> float:
    """Return the two-sided p of the sign-flip test of clusters' differences, exactly.

    If the networks do not differ, the difference D_g in hits of each cluster is as likely to be
    -D_g, whatever its samples have in common. The distribution of |sum of s_g D_g| over all 2^G
    choices of signs s is found by adding one cluster after the other: D_g are whole numbers.
    Clusters of one sample each give McNemar's test.

    Example:
        >>> sign_flip(np.array([3, 1, 1]))  # 2 of 8 choices are as large as 5
        0.25

    Args:
        differences: (G,) hits of one network less those of the other.
    """
    sizes = np.abs(differences[differences != 0])
    total = int(sizes.sum())
    # chances[k] is of k = sum of the sizes whose sign is +; the sum of all is 2 k - total.
    chances = np.ones(1)
    for size in np.sort(sizes):
        longer = np.zeros(len(chances) + size)
        longer[: len(chances)] = chances
        longer[size:] += chances
        chances = longer / 2
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(chances[sums >= abs(int(differences.sum()))].sum()))


def holm(chances: Sequence[float]) -> list[float]:
    """Return p adjusted for several tests: Holm 1979, Scandinavian J. of Statistics 6.

    Example:
        >>> holm([0.04, 0.01, 0.03])
        [0.06, 0.03, 0.06]
    """
    adjusted, largest = [1.0] * len(chances), 0.0
    for rank, index in enumerate(np.argsort(chances, kind="stable")):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[index]))
        adjusted[index] = largest
    return adjusted


def paired_differences(runs: Sequence[tuple[str, Answers]]) -> list[PairedDifference]:
    """Compare all pairs of networks on samples they share, the later minus the earlier of each.

    Args:
        runs: Names and answers, of the same samples in the same order.

    Returns:
        One difference a pair, p adjusted by `holm` for their number.

    Raises:
        ScoresError: If the samples differ in number, truth or groups.
    """
    tested = [_test(*a, *b) for i, a in enumerate(runs) for b in runs[:i]]
    adjusted = holm([one.p for one in tested])
    return [replace(one, p_holm=p) for one, p in zip(tested, adjusted, strict=True)]


def read_answers(path: Path) -> Answers:
    """Read the `predictions.csv` of a classifier; a guess that is missing is wrong.

    Raises:
        ScoresError: If it is not a classifier's.
        OSError: If it cannot be read.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, found = list(reader), reader.fieldnames or ()
    except (ValueError, csv.Error) as error:  # no UTF-8; a cell without an end
        raise ScoresError(
            f"{path}: expected a table of guesses, cannot read it: {error}"
        ) from error
    names = {"truth", "guess", "confidence"}
    if not names <= set(found) or not rows:
        raise ScoresError(f"{path}: expected columns truth, guess, confidence and a line a sample")
    try:
        if any(row[name] is None for row in rows for name in names):
            raise ValueError("a line that is too short")
        rows = [row for row in rows if row["truth"]]  # else its target does not count
        if not rows:
            raise ValueError("no line has a class")
        truth, guess = (np.array([row[name] for row in rows], str) for name in ("truth", "guess"))
        groups = None
        if "group" in rows[0]:
            groups = np.array([int(row["group"]) for row in rows], np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ScoresError(f"{path}: expected a class and a group in each line: {error}") from error
    return Answers(truth, truth == guess, groups)


def same_samples(a: Answers, b: Answers) -> bool:
    """Return whether truth and groups are the same, sample by sample."""
    if a.groups is None or b.groups is None:
        return a.groups is b.groups and np.array_equal(a.truth, b.truth)
    return np.array_equal(a.truth, b.truth) and np.array_equal(a.groups, b.groups)


def _test(name_a: str, a: Answers, name_b: str, b: Answers) -> PairedDifference:
    if not same_samples(a, b):
        raise ScoresError(f"expected the same test samples of {name_a} and {name_b}, got others")
    differences = a.right.astype(np.float64) - b.right
    ones = np.ones(len(differences))
    only_a, only_b = int((differences > 0).sum()), int((differences < 0).sum())
    if a.groups is None:
        mean, error = ratio(differences, ones)
        method, p, clusters = "mcnemar", mcnemar(only_a, only_b), None
    else:
        sums = cluster_sums(differences, a.groups)
        mean, error = ratio(sums, cluster_sums(ones, a.groups))
        method, p, clusters = "sign-flip", sign_flip(sums.astype(np.int64)), len(sums)
    return PairedDifference(
        name_a, name_b, mean, error, p, p, method, len(differences), clusters, only_a, only_b
    )
