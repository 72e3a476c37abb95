"""Errors and intervals: closed forms, scipy, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm, t

from isoloss.evaluation.predictions import Predictions
from isoloss.evaluation.reports import report, summary_line, write_predictions
from isoloss.evaluation.roc import auc
from isoloss.evaluation.scores import SampleTerms, score
from isoloss.evaluation.uncertainty import (
    bootstrap_interval,
    cluster_sums,
    clustered_share_interval,
    half_carriers,
    ratio,
    share_interval,
    t_interval,
    wilson_interval,
)

REPEATS = 2000


def lowest_hits(coverage: float) -> int:
    """Return the fewest of `REPEATS` that an interval of this coverage holds, 99 times of 100."""
    return int(binom.ppf(0.01, REPEATS, coverage))


def logits(truth, right, losses=None) -> tuple[Predictions, SampleTerms]:
    """Two classes: each sample is right or wrong, with a loss of its own."""
    truth = np.asarray(truth)
    guess = np.where(right, truth, 1 - truth)
    ones = np.ones(len(truth))
    terms = SampleTerms(ones if losses is None else losses, ones, np.where(right, 1.0, 0.0), ones)
    return Predictions(4.0 * np.eye(2)[guess], truth), terms


def clustered(generator, clusters=20, spread=0.08):
    """Return hits and groups: clusters of 50 to 250 samples, each with an accuracy of its own."""
    sizes = generator.integers(50, 251, clusters)
    mean = 0.88
    scale = mean * (1 - mean) / spread**2 - 1
    chances = generator.beta(mean * scale, (1 - mean) * scale, clusters)
    groups = np.repeat(np.arange(clusters), sizes)
    return (generator.random(len(groups)) < chances[groups]).astype(float), groups


def test_wilson_is_scipys_and_has_the_edges():
    for hits, count in [(0, 5), (5, 5), (3, 7), (359, 360), (360, 360), (9000, 10000)]:
        expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
        found = wilson_interval(hits / count, count)
        assert found == pytest.approx((expected.low, expected.high), rel=1e-12, abs=1e-15)
    assert wilson_interval(1.0, 20)[0] == pytest.approx(20 / (20 + norm.ppf(0.975) ** 2))
    assert all(map(math.isnan, wilson_interval(math.nan, 20)))


def test_wilson_covers_where_the_plain_error_does_not():
    # Exact, over all outcomes: no sampling.
    for count, least in ((50, 0.945), (400, 0.948)):
        hits = np.arange(count + 1)
        bounds = np.array([wilson_interval(k / count, count) for k in hits])
        shares = np.linspace(0.8, 0.999, 200)[:, None]
        held = (bounds[:, 0] <= shares) & (shares <= bounds[:, 1])
        chance = binom.pmf(hits, count, shares)
        assert (chance * held).sum(1).mean() > least
        p = hits / count
        plain = np.abs(p - shares) <= norm.ppf(0.975) * np.sqrt(p * (1 - p) / count)
        assert (chance * plain).sum(1).min() < 0.4
        # Wilson's lowest is where p is some 0.2 / n from an edge (Brown, Cai & DasGupta 2001).
        assert (chance * held).sum(1).min() > 0.83


def test_the_clustered_error_is_the_sandwich():
    generator = np.random.default_rng(0)
    hits, groups = clustered(generator)
    weights = generator.random(len(hits))
    mean = (hits * weights).sum() / weights.sum()
    # Of the weighted least squares of hits on a constant: (X'WX)^-1 sum_g (X'We)^2 (X'WX)^-1.
    meat = sum((weights * (hits - mean))[groups == g].sum() ** 2 for g in range(20))
    expected = math.sqrt(20 / 19 * meat) / weights.sum()
    found = ratio(cluster_sums(hits * weights, groups), cluster_sums(weights, groups))
    assert found == pytest.approx((mean, expected), rel=1e-12)
    # Clusters of one sample each: the samples' own error.
    single = np.random.default_rng(1).permutation(len(hits))
    parts = cluster_sums(hits, single), cluster_sums(weights, single)
    assert ratio(*parts) == pytest.approx(ratio(hits, weights), rel=1e-12)


def test_clustered_intervals_of_twenty_clusters_hold_the_truth():
    generator = np.random.default_rng(0)
    held = {"t": 0, "share": 0, "binomial": 0}
    for _ in range(REPEATS):
        hits, groups = clustered(generator)
        sums, sizes = cluster_sums(hits, groups), cluster_sums(np.ones(len(hits)), groups)
        share, error = ratio(sums, sizes)
        intervals = {
            "t": t_interval(share, error, 20),
            "share": share_interval(share, error, len(hits), 20),
            "binomial": wilson_interval(share, len(hits)),
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= 0.88 <= high
    assert held["t"] >= lowest_hits(0.93), held
    assert held["share"] >= lowest_hits(0.93), held
    assert held["binomial"] < 0.7 * REPEATS  # what clustering is for


def test_a_share_over_clusters_is_t_in_the_middle_and_wilsons_at_the_edges():
    low, high = share_interval(0.5, 0.01, 1e6, 22)
    reach = t.ppf(0.975, 21) * 0.01
    # Wilson's bounds are nearer to 1/2 by z^2 / n* of their distance, n* some 2,200.
    assert (low, high) == pytest.approx((0.5 - reach, 0.5 + reach), abs=4 / 2200 * reach)
    assert share_interval(1.0, 0.0, 50_000, 22) == wilson_interval(1.0, 22)
    # Never more samples than there are.
    assert share_interval(0.5, 1e-9, 100, 22) == wilson_interval(0.5, 100)
    assert all(map(math.isnan, share_interval(0.5, math.nan, 100, 1)))


def test_the_bootstrap_holds_the_mean_of_a_skewed_loss_more_often():
    generator = np.random.default_rng(0)
    sigma, count = 2.0, 300
    held = {"bootstrap": 0, "plain": 0}
    for seed in range(REPEATS):
        losses = generator.lognormal(0, sigma, count)
        mean, error = ratio(losses, np.ones(count))
        low, high = bootstrap_interval(losses, np.ones(count), resamples=200, seed=seed)
        held["bootstrap"] += low <= math.exp(sigma**2 / 2) <= high
        held["plain"] += abs(mean - math.exp(sigma**2 / 2)) <= 1.96 * error
    assert held["bootstrap"] > held["plain"] + 0.03 * REPEATS, held
    assert held["bootstrap"] >= lowest_hits(0.87), held


def test_the_bootstrap_of_a_symmetric_mean_is_its_t_interval():
    values = np.random.default_rng(0).normal(10, 1, 500)
    mean, error = ratio(values, np.ones(500))
    found = bootstrap_interval(values, np.ones(500), resamples=20_000)
    # Quantiles of 20,000 resamples are known to 0.02 errors, of 500 values to some 0.05 more.
    assert found == pytest.approx(t_interval(mean, error, 500), abs=0.1 * error)
    assert found == bootstrap_interval(values, np.ones(500), resamples=20_000)
    assert bootstrap_interval(np.ones(5), np.ones(5)) == (1.0, 1.0)
    assert all(map(math.isnan, bootstrap_interval(np.ones(1), np.ones(1))))


def test_half_of_the_loss():
    assert half_carriers(np.array([1.0, 5.0, 1.0, 3.0])).tolist() == [1]
    assert half_carriers(np.array([1.0, 4.0, 2.0, 4.0])).tolist() == [1, 3]
    assert half_carriers(np.ones(10)).tolist() == [0, 1, 2, 3, 4]
    for none in ([0.0, 0.0], [-1.0, 2.0], [math.nan, 1.0], [math.inf, 1.0]):
        assert half_carriers(np.array(none)).tolist() == []


def test_all_right_is_not_without_doubt():
    scores = score(*logits(np.arange(360) % 2, np.ones(360, bool)))
    assert scores.accuracy_standard_error == 0
    assert scores.accuracy_interval == wilson_interval(1.0, 360)
    assert "accuracy 100.00 % (95 %: 98.94 to 100.00)" in summary_line(scores)
    assert "accuracy 100.00 %, 95 %: 98.94 to 100.00" in report(scores)
    rather = score(*logits(np.arange(360) % 2, np.arange(360) >= 90))
    assert summary_line(rather).startswith("accuracy 75.00 ± 2.28 %, loss")


def test_few_samples_that_carry_the_loss_are_named():
    losses = np.full(1000, 0.001)
    losses[[17, 500, 3]] = [8.0, 5.0, 2.0]
    scores = score(*logits(np.arange(1000) % 2, losses < 1, losses))
    assert scores.half_loss_samples == 1
    assert scores.heaviest_samples == (17,)
    assert scores.loss_interval_method == "bootstrap-t"
    assert scores.loss_interval == bootstrap_interval(losses, np.ones(1000))
    low, high = scores.loss_interval
    assert low < scores.loss < high
    assert high > scores.loss + 2 * scores.loss_standard_error
    assert "half of the loss is carried by 1 of 1,000 samples (index 17); 95 %:" in report(scores)
    assert "(95 %: " in summary_line(scores).split("loss")[1]
    even = score(*logits(np.arange(1000) % 2, losses < 1, np.linspace(0, 1, 1000)))
    assert even.heaviest_samples == ()
    assert even.loss_interval == t_interval(even.loss, even.loss_standard_error, 1000)
    # The sum of k of the largest is half of the total: k (2 * 999 - k + 1) / 2 = 999 * 1000 / 4.
    assert even.half_loss_samples == 293


def test_scores_of_groups(tmp_path):
    hits, groups = clustered(np.random.default_rng(3), clusters=22)
    predictions, terms = logits(np.arange(len(hits)) % 2, hits > 0)
    plain = score(predictions, terms)
    predictions = Predictions(predictions.outputs, predictions.targets, groups * 5 + 100)
    scores = score(predictions, terms)
    expected = ratio(cluster_sums(hits, groups), cluster_sums(np.ones(len(hits)), groups))
    assert (scores.accuracy, scores.accuracy_standard_error) == pytest.approx(expected, rel=1e-12)
    assert scores.accuracy_binomial_error == plain.accuracy_standard_error
    assert (scores.clusters, plain.clusters) == (22, None)
    assert scores.classes[0].auc == plain.classes[0].auc
    assert scores.classes[0].auc_standard_error > 2 * plain.classes[0].auc_standard_error
    assert "clustered over 22 groups" in report(scores)
    assert summary_line(scores).endswith("samples in 22 groups")
    write_predictions(tmp_path / "p.csv", predictions)
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert rows[0] == ["index", "truth", "guess", "confidence", "group"]
    assert [int(row[4]) for row in rows[1:]] == predictions.groups.tolist()


def test_the_error_of_an_area_over_groups_by_trial():
    generator = np.random.default_rng(0)
    areas, variances = [], []
    for _ in range(600):
        groups = np.repeat(np.arange(30), 10)
        positive = generator.random(300) < 0.3
        positive[:2] = True, False
        scores = generator.normal(1.0 * positive) + generator.normal(0, 1, 30)[groups]
        area, error = auc(positive, scores, groups)
        areas.append(area)
        variances.append(error**2)
    # The variance over 600 trials is known to 6 %.
    assert np.mean(variances) == pytest.approx(np.var(areas, ddof=1), rel=0.2)
    single = auc(positive, scores, np.arange(300))[1]
    assert single == pytest.approx(auc(positive, scores)[1], rel=0.02)  # 1 / n for 1 / (n - 1)
    assert math.isnan(auc(positive, scores, np.zeros(300, int))[1])


def test_few_clusters_that_have_most_misses_may_not_have_been_met():
    generator = np.random.default_rng(0)
    mean, spread, repeats = 0.985, 0.03, 400
    scale = mean * (1 - mean) / spread**2 - 1
    held = {"plain": 0, "clustered": 0}
    for _ in range(repeats):
        sizes = generator.integers(50, 251, 20).astype(float)
        chances = generator.beta(mean * scale, (1 - mean) * scale, 20)
        hits = generator.binomial(sizes.astype(int), chances).astype(float)
        share, error = ratio(hits, sizes)
        intervals = {
            "plain": share_interval(share, error, float(sizes.sum()), 20),
            "clustered": clustered_share_interval(hits, sizes),
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= mean <= high
        # Never less sure than by one sample a cluster.
        low, high = intervals["clustered"]
        least, most = wilson_interval(share, 20)
        assert least - 1e-12 <= low <= share <= high <= most + 1e-12
    assert held["plain"] < 0.91 * repeats
    assert held["clustered"] >= binom.ppf(0.01, repeats, 0.93), held


def test_the_interval_of_even_clusters_and_of_the_edges_is_that_of_the_share():
    hits, sizes = np.array([6.0, 7, 8, 9, 10] * 20), np.full(100, 16.0)
    plain = share_interval(*ratio(hits, sizes), 1600, 100)
    assert clustered_share_interval(hits, sizes) == plain  # no skewness
    assert clustered_share_interval(sizes, sizes) == wilson_interval(1.0, 100)
    assert all(map(math.isnan, clustered_share_interval(hits[:1], sizes[:1])))


def test_hits_and_misses_have_the_same_interval():
    generator = np.random.default_rng(0)
    sizes = generator.integers(50, 251, 20).astype(float)
    hits = sizes - generator.binomial(5, 0.2, 20)
    hits[3] -= 40
    low, high = clustered_share_interval(hits, sizes)
    assert clustered_share_interval(sizes - hits, sizes) == pytest.approx((1 - high, 1 - low))
    share, error = ratio(hits, sizes)
    assert share - low > t.ppf(0.975, 19) * error > high - share  # the longer side is the misses'
