"""Intervals, errors and tests of scores, on samples whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.coverage.judgement import LEVEL, Row, of_errors
from isoloss.evaluation.paired import mcnemar, sign_flip
from isoloss.evaluation.roc import auc
from isoloss.evaluation.uncertainty import (
    Interval,
    bootstrap_interval,
    cluster_sums,
    clustered_share_interval,
    ratio,
    share_interval,
    t_interval,
    wilson_interval,
)

REPEATS = 2000
GROUPS = 20
PERCENTILE_RESAMPLES = 1000


def rows(repeats: int | None = None) -> Iterator[Row]:
    """Yield the rows of accuracies, areas under ROC curves, losses and paired tests."""
    count = repeats or REPEATS
    for accuracy in (0.88, 0.985):
        yield from independent_accuracy(accuracy, 400, count)
    for accuracy, spread in ((0.88, 0.08), (0.985, 0.03)):
        yield from clustered_accuracy(accuracy, spread, count)
    for groups in (300, 30):
        yield area(groups, count)
    for sigma, size in ((1.0, 300), (2.0, 300), (2.0, 1000)):
        yield from skewed_loss(sigma, size, count)
    yield from paired_tests(count)


def held(
    case: str, intervals: dict[str, list[Interval]], truth: float, asked: tuple[str, ...]
) -> Iterator[Row]:
    """Yield how often the 95 % intervals of each method hold the truth."""
    for method, bounds in intervals.items():
        share = np.mean([low <= truth <= high for low, high in bounds])
        yield Row(case, method, len(bounds), float(share), 0.95, asked=method in asked)


def independent_accuracy(accuracy: float, size: int, repeats: int) -> Iterator[Row]:
    """Yield Wilson's interval and the binomial error of independent samples."""
    shares = np.random.default_rng(0).binomial(size, accuracy, repeats) / size
    case = f"accuracy {100 * accuracy:.1f} %, {size} samples"
    intervals = {"Wilson": [wilson_interval(share, size) for share in shares]}
    yield from held(case, intervals, accuracy, ("Wilson",))
    errors = [ratio(_hits(share, size), np.ones(size))[1] for share in shares]
    yield of_errors(case, "binomial error", shares - accuracy, errors, freedom=size - 1)


def clustered_accuracy(accuracy: float, spread: float, repeats: int) -> Iterator[Row]:
    """Yield the intervals of 20 groups of 50 to 250 samples, each with an accuracy of its own.

    Accuracies of groups follow a beta distribution of this mean and standard deviation.
    """
    generator = np.random.default_rng(0)
    scale = accuracy * (1 - accuracy) / spread**2 - 1
    case = f"accuracy {100 * accuracy:.1f} ± {100 * spread:.0f} %, {GROUPS} groups"
    names = ("interval of groups", "Wilson of groups", "t", "Wilson of samples")
    intervals: dict[str, list[Interval]] = {name: [] for name in names}
    made, claimed = [], []
    for _ in range(repeats):
        sizes = generator.integers(50, 251, GROUPS).astype(float)
        chances = generator.beta(accuracy * scale, (1 - accuracy) * scale, GROUPS)
        hits = generator.binomial(sizes.astype(int), chances).astype(float)
        share, error = ratio(hits, sizes)
        total = float(sizes.sum())
        intervals["interval of groups"].append(clustered_share_interval(hits, sizes))
        intervals["t"].append(t_interval(share, error, GROUPS))
        intervals["Wilson of groups"].append(share_interval(share, error, total, GROUPS))
        intervals["Wilson of samples"].append(wilson_interval(share, total))
        made.append(share - accuracy)
        claimed.append(error)
    yield from held(case, intervals, accuracy, names[:1])
    yield of_errors(case, "clustered error", made, claimed, freedom=GROUPS - 1)


def area(groups: int, repeats: int) -> Row:
    """Return the error of an AUC over 300 samples in groups of the same size, each shifted.

    Two samples of a group share its shift N(0, 1), which then cancels; positives are 1 higher.
    """
    generator = np.random.default_rng(0)
    size = 300
    members = np.repeat(np.arange(groups), size // groups)
    own = (size // groups - 1) / (size - 1)  # chance that a pair is of one group
    truth = own * norm.cdf(1 / math.sqrt(2)) + (1 - own) * norm.cdf(1 / 2)
    found = []
    for _ in range(repeats):
        positive = generator.random(size) < 0.3
        scores = generator.normal(1.0 * positive) + generator.normal(0, 1, groups)[members]
        found.append(auc(positive, scores, members if groups < size else None))
    areas, errors = np.array(found).T
    which = f"{size} samples" if groups == size else f"{groups} groups of {size // groups}"
    return of_errors(
        f"AUC {truth:.2f}, {which}", "error", areas - truth, errors, freedom=groups - 1
    )


def skewed_loss(sigma: float, size: int, repeats: int) -> Iterator[Row]:
    """Yield the intervals of the mean of log-normal losses."""
    generator = np.random.default_rng(0)
    ones, truth = np.ones(size), math.exp(sigma**2 / 2)
    names = ("bootstrap-t", "t", "bootstrap percentiles")
    intervals: dict[str, list[Interval]] = {name: [] for name in names}
    for seed in range(repeats):
        losses = generator.lognormal(0, sigma, size)
        intervals["bootstrap-t"].append(bootstrap_interval(losses, ones, seed=seed))
        intervals["t"].append(t_interval(*ratio(losses, ones), size))
        draws = losses[generator.integers(0, size, (PERCENTILE_RESAMPLES, size))].mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        intervals["bootstrap percentiles"].append((float(low), float(high)))
    case = f"log-normal losses, sigma {sigma:g}, {size}"
    yield from held(case, intervals, truth, names[:1])


def paired_tests(repeats: int) -> Iterator[Row]:
    """Yield how often tests at 5 % reject where two networks are equally good."""
    generator = np.random.default_rng(0)
    p: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        # Both miss half of what is hard.
        hard = generator.random(400) < 0.3
        a, b = (~hard | (generator.random(400) < 0.5) for _ in range(2))
        only = int((a & ~b).sum()), int((b & ~a).sum())
        p.setdefault(("equal networks, 400 samples", "McNemar"), []).append(mcnemar(*only))
        # In each group one or the other happens to be better.
        members = np.repeat(np.arange(22), generator.integers(20, 80, 22))
        shift = generator.normal(0, 0.08, 22)[members]
        a, b = (generator.random(len(members)) < np.clip(0.8 + s, 0, 1) for s in (shift, -shift))
        only = int((a & ~b).sum()), int((b & ~a).sum())
        sums = cluster_sums(a.astype(float) - b, members).astype(np.int64)
        case = "equal networks, 22 groups"
        p.setdefault((case, "sign flip"), []).append(sign_flip(sums))
        p.setdefault((case, "McNemar"), []).append(mcnemar(*only))
    for (case, method), found in p.items():
        grouped = method == "McNemar" and "groups" in case
        share = float(np.mean(np.array(found) < LEVEL))
        yield Row(case, method, repeats, share, LEVEL, kind="test", asked=not grouped)


def _hits(share: float, size: int) -> NDArray[np.float64]:
    return (np.arange(size) < round(share * size)).astype(np.float64)
