"""How sure a mean over samples or clusters is: standard errors and 95 % intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit  # the quantiles of scipy.stats, which takes a second

LEVEL = 0.95
RESAMPLES = 2000
CHUNK = 4_000_000  # draws held at a time
# A mean of n values of skewness g is normal enough for a 95 % interval (which then errs in 6 of 100
# cases at most) where n > 25 g^2: Cochran 1977, section 2.15.
COCHRAN = 25
Interval = tuple[float, float]
UNKNOWN: Interval = (math.nan, math.nan)


def cluster_sums(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sums (clusters,) of values (count,) over samples of one group, by group."""
    _, members = np.unique(groups, return_inverse=True)
    return np.bincount(members, weights=values).astype(np.float64)


def ratio(sums: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Return a ratio of sums over independent parts and its standard error.

    With R = sum y_i / sum w_i and residuals e_i = y_i - R w_i over n samples the error is
    sqrt(n / (n - 1) sum e_i^2) / sum w_i (Cochran 1977, Sampling Techniques, section 6.3): for
    weights of 1 that of a mean. With the sums of G clusters instead of samples it is the
    cluster-robust error with the correction G / (G - 1) (Cameron & Miller 2015, J. Human Resources
    50, section II.C; its other factor, (N - 1) / (N - K), is 1 for a mean).

    Args:
        sums: (n,) y of each sample, or their sum in each cluster.
        weights: (n,) w, likewise.

    Returns:
        Ratio and error; NaN where nothing has weight, the error also where there is one part or a
        value is not finite.
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


def t_interval(value: float, error: float, parts: int) -> Interval:
    """Return value -+ t error, t the quantile for `parts` - 1 degrees of freedom.

    That is what Cameron & Miller 2015, section VI.D, take for few clusters.
    """
    if parts < 2:
        return UNKNOWN
    reach = float(stdtrit(parts - 1, (1 + LEVEL) / 2)) * error
    return value - reach, value + reach


def wilson_interval(share: float, count: float) -> Interval:
    """Return Wilson's score interval of a binomial share, of which 0 and 1 have one, too.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)  (Wilson 1927, JASA 22).

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(1.0, 360)]
        [0.9894, 1.0]
    """
    if not count > 0 or math.isnan(share):
        return UNKNOWN
    z = float(ndtri((1 + LEVEL) / 2))
    middle = share + z**2 / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((middle + sign * reach) / (1 + z**2 / count) for sign in (-1, 1))
    return 0.0 if share == 0 else low, 1.0 if share == 1 else high


def share_interval(share: float, error: float, count: float, parts: int) -> Interval:
    """Return Wilson's interval of a share over clusters.

    Its count is that of independent samples with the same error, by t instead of z (Korn &
    Graubard 1998, Survey Methodology 24): n* = p (1 - p) / error^2 (z / t)^2 with `parts` - 1
    degrees of freedom, at most `count`. Far from 0 and 1 the interval is p -+ t error. A share of
    0 or 1 does not show how alike the samples of a cluster are: each cluster then counts once.

    Args:
        share: p.
        error: Its clustered standard error.
        count: Samples.
        parts: Clusters.
    """
    if share in (0, 1):
        return wilson_interval(share, parts)
    if parts < 2 or math.isnan(error):
        return UNKNOWN
    level = (1 + LEVEL) / 2
    quantiles = float(ndtri(level)) / float(stdtrit(parts - 1, level))
    alike = share * (1 - share) * quantiles**2
    return wilson_interval(share, alike / error**2 if alike < count * error**2 else count)


def bootstrap_interval(
    sums: NDArray[np.float64],
    weights: NDArray[np.float64],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the bootstrap-t interval of a ratio of sums, for parts of which few carry it.

    Of samples (or clusters) drawn with replacement, t* = (R* - R) / s* with s* the error by
    `ratio`; the interval is R - q s, q the upper and lower quantile of t* (Hall 1988, Annals of
    Statistics 16; Efron & Tibshirani 1993, section 12.5). Unlike percentiles of R* it sees that a
    mean that missed its largest values comes with an error that is too small.

    Args:
        sums: (n,), none negative, as in `ratio`.
        weights: (n,), likewise.
        resamples: How many.
        seed: Of a generator of its own.

    Returns:
        The bounds, the lower one not below 0; NaN where the error is.
    """
    value, error = ratio(sums, weights)
    count = len(sums)
    if not error > 0:
        return (value, value) if error == 0 else UNKNOWN
    generator = np.random.default_rng(seed)
    columns = np.stack([sums, weights, sums**2, sums * weights, weights**2], 1)
    totals = np.empty((resamples, 5))
    step = max(1, CHUNK // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        draws = generator.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count)
        totals[start : start + rows] = times @ columns
    y, w, yy, yw, ww = totals[totals[:, 1] > 0].T
    values = y / w
    squares = np.maximum(yy - 2 * values * yw + values**2 * ww, 0)
    errors = np.sqrt(squares * count / (count - 1)) / w
    with np.errstate(divide="ignore", invalid="ignore"):  # parts that are all alike have no error
        scaled = (values - value) / errors
    low, high = np.nanquantile(scaled, [(1 + LEVEL) / 2, (1 - LEVEL) / 2], method="inverted_cdf")
    return max(0.0, value - float(low) * error), value - float(high) * error


def clustered_share_interval(
    hits: NDArray[np.float64], counts: NDArray[np.float64], seed: int = 0
) -> Interval:
    """Return the interval of a share over clusters, of which few may have most of the misses.

    That of `share_interval` where the clusters' deviations hits - share counts are not too skewed
    for their number (Cochran's rule, 25 times the squared skewness). Otherwise those clusters that
    would move the share most may not have been met, and it is the bootstrap-t interval of the
    rarer outcome, hit or miss; but no wider than Wilson's of one sample a cluster, which it would
    be were all samples of a cluster alike.

    Args:
        hits: (G,) of each cluster.
        counts: (G,) samples of each.
        seed: Of the bootstrap.
    """
    share, error = ratio(hits, counts)
    parts = len(hits)
    deviations = hits - share * counts
    if share in (0, 1) or not error > 0 or parts > COCHRAN * _skewness(deviations) ** 2:
        return share_interval(share, error, float(counts.sum()), parts)
    low, high = bootstrap_interval(hits if share < 0.5 else counts - hits, counts, seed=seed)
    least, most = wilson_interval(min(share, 1 - share), parts)
    low, high = max(low, least), min(high, most)
    return (low, high) if share < 0.5 else (1 - high, 1 - low)


def half_carriers(losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the fewest samples that have half of the loss, the largest first.

    Args:
        losses: (count,) of samples.

    Returns:
        Indices; none where a loss is negative or not finite, or there is no loss at all.
    """
    total = float(losses.sum())
    if not 0 < total < math.inf or losses.min() < 0:
        return np.empty(0, np.int64)
    order = np.argsort(-losses, kind="stable")
    needed = int(np.searchsorted(np.cumsum(losses[order]), total / 2)) + 1
    return order[:needed]


def _skewness(deviations: NDArray[np.float64]) -> float:
    """Return Fisher's coefficient of values of mean 0: the third moment over s^3."""
    return float(np.mean(deviations**3) / np.mean(deviations**2) ** 1.5)
