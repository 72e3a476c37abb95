"""ROC curves and areas: closed forms, the sum over pairs, scikit-learn, and the error by trial."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import auc as area_under
from sklearn.metrics import roc_auc_score

from isoloss.evaluation.predictions import Predictions, ScoresError
from isoloss.evaluation.roc import auc, log_odds, read_roc, roc_curves, write_roc


def normals(generator, m=60, n=140, shift=1.0, digits=None):
    """Scores of m positives and n negatives, `shift` apart; rounded so that some are equal."""
    scores = np.r_[generator.normal(shift, size=m), generator.normal(size=n)]
    return np.arange(m + n) < m, scores if digits is None else scores.round(digits)


@pytest.mark.parametrize("digits", [None, 1])
def test_the_definition_over_all_pairs(digits):
    positive, scores = normals(np.random.default_rng(0), digits=digits)
    above, below = scores[positive][:, None], scores[~positive][None]
    kernel = (above > below) + 0.5 * (above == below)
    # DeLong's structural components are the means of the kernel over one index.
    variance = kernel.mean(1).var(ddof=1) / 60 + kernel.mean(0).var(ddof=1) / 140
    area, error = auc(positive, scores)
    assert area == pytest.approx(kernel.mean(), rel=1e-13)
    assert error == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert area == pytest.approx(roc_auc_score(positive, scores), rel=1e-13)


def test_the_error_is_the_spread_of_repetitions():
    generator = np.random.default_rng(1)
    draws = np.array([auc(*normals(generator)) for _ in range(400)])
    # Two normals a distance 1 apart: Phi(1 / sqrt 2). 4 standard errors of a mean of 400.
    expected = norm.cdf(1 / math.sqrt(2))
    assert abs(draws[:, 0].mean() - expected) < 4 * draws[:, 0].std() / math.sqrt(400)
    # A standard deviation from 400 draws is known to 1 / sqrt(800) = 3.5 %; 4 times that.
    assert draws[:, 1].mean() == pytest.approx(draws[:, 0].std(ddof=1), rel=0.15)


@pytest.mark.parametrize(
    ("positive", "scores", "area", "error"),
    [
        ([1, 1, 0, 0], [4, 3, 2, 1], 1.0, 0.0),
        ([1, 1, 0, 0], [1, 2, 3, 4], 0.0, 0.0),
        ([1, 1, 0, 0], [1, 1, 1, 1], 0.5, 0.0),
        ([1, 0, 0, 0], [2, 1, 3, 1], 2 / 3, math.nan),
        ([0, 0], [1, 2], math.nan, math.nan),
        ([1, 1], [1, 2], math.nan, math.nan),
        ([1, 1, 0, 0], [1, math.nan, 2, 3], math.nan, math.nan),
        ([1, 1, 0, 0], [math.inf, 1, 0, -math.inf], 1.0, 0.0),
    ],
)
def test_small_cases(positive, scores, area, error):
    got = auc(np.array(positive, bool), np.array(scores, float))
    assert got == pytest.approx((area, error), abs=1e-15, nan_ok=True)


def test_log_odds_keep_their_digits_where_probabilities_are_one():
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.0, 60.0, 1.0], [0.0, 61.0, 1.0]])
    odds = log_odds(logits.numpy())
    p = logits.double().softmax(1).numpy()
    # Away from 1 the textbook form has its digits.
    np.testing.assert_allclose(odds[0], np.log(p[0] / (1 - p[0])), rtol=1e-12, atol=1e-12)
    # Two roundings of numbers of order 60.
    np.testing.assert_allclose(odds[1:, 1], np.array([60, 61]) - math.log(1 + math.e), rtol=1e-15)
    assert p[1, 1] == p[2, 1] == 1.0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([math.nan, 1.0, 2.0], [math.nan] * 3),
        ([math.inf, 1.0, 2.0], [math.nan] * 3),
        # A class that cannot be: the others are what they are without it.
        ([-math.inf, 1.0, 3.0], [-math.inf, -2.0, 2.0]),
    ],
)
def test_log_odds_of_outputs_that_are_not_finite(row, expected):
    found = log_odds(np.array([row, [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found[0], expected, rtol=1e-15)
    np.testing.assert_allclose(found[1], [-math.log(2)] * 3, rtol=1e-14)


def test_curves_have_the_area_and_survive_their_file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (300,), generator=generator)
    outputs = torch.randn(300, 4, generator=generator)
    outputs[range(300), targets] += 1
    curves = roc_curves(Predictions(outputs.numpy(), targets.numpy()), ["a", "b, c", "d", "absent"])
    assert [curve.name for curve in curves] == ["a", "b, c", "d"]
    odds = log_odds(outputs.numpy())
    for k, curve in enumerate(curves):
        area = area_under(curve.false_positive_rate, curve.true_positive_rate)
        assert area == pytest.approx(auc(targets.numpy() == k, odds[:, k])[0], rel=1e-12)
        assert curve.thresholds[0] == math.inf
        assert 0 < curve.thresholds[-1] < curve.thresholds[1] < 1
        # The rates at a threshold are those of the probabilities.
        p = outputs.double().softmax(1)[:, k].numpy()
        chosen = p >= curve.thresholds[5] * (1 - 1e-12)
        of_class = targets.numpy() == k
        assert curve.true_positive_rate[5] == pytest.approx(chosen[of_class].mean(), rel=1e-12)
        assert curve.false_positive_rate[5] == pytest.approx(chosen[~of_class].mean(), rel=1e-12)
    write_roc(tmp_path / "roc.csv", curves)
    for before, after in zip(curves, read_roc(tmp_path / "roc.csv"), strict=True):
        assert after.name == before.name
        for field in ("thresholds", "false_positive_rate", "true_positive_rate"):
            # Nine digits are written.
            np.testing.assert_allclose(getattr(after, field), getattr(before, field), rtol=1e-8)


HEAD = b"class,threshold,false_positive_rate,true_positive_rate\n"
BAD_CURVES = {
    "nothing": (1, b""),
    "other columns": (1, b"a,b\n1,2\n"),
    "no text": (1, b"\xff\xfe"),
    "an empty line": (3, HEAD + b"a,inf,0,0\n\n"),
    "a short line": (2, HEAD + b"a,inf,0\n"),
    "a long line": (2, HEAD + b"a,inf,0,0,0\n"),
    "no number": (3, HEAD + b"a,inf,0,0\na,0.5,x,1\n"),
    "no rate": (2, HEAD + b"a,inf,nan,0\n"),
    "a rate above 1": (2, HEAD + b"a,inf,0,1.5\n"),
}


@pytest.mark.parametrize(("line", "content"), BAD_CURVES.values(), ids=list(BAD_CURVES))
def test_a_damaged_file_of_curves_is_refused(tmp_path, line, content):
    (tmp_path / "roc.csv").write_bytes(content)
    with pytest.raises(ScoresError, match=rf"roc\.csv, line {line}: expected a class"):
        read_roc(tmp_path / "roc.csv")
