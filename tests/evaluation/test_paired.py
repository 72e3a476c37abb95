"""Paired differences: closed forms, all sign choices, and how often a test rejects what is true."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, ttest_rel

from isoloss.evaluation.paired import (
    Answers,
    holm,
    mcnemar,
    paired_differences,
    read_answers,
    sign_flip,
)
from isoloss.evaluation.predictions import Predictions, ScoresError
from isoloss.evaluation.reports import write_predictions

REPEATS = 2000
SHARES = {"x": 0.7, "y": 0.8, "z": 0.9}


def answers(right, groups=None) -> Answers:
    right = np.asarray(right, bool)
    return Answers(np.full(len(right), "N"), right, groups)


def test_mcnemar_is_the_binomial_sum():
    for a, b in [(0, 0), (0, 1), (3, 9), (9, 3), (20, 20), (0, 40)]:
        tail = sum(math.comb(a + b, k) for k in range(min(a, b) + 1)) / 2 ** (a + b)
        assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail), rel=1e-12)


def test_sign_flip_is_the_share_of_all_choices():
    generator = np.random.default_rng(0)
    for _ in range(20):
        differences = generator.integers(-9, 10, 10)
        signs = np.array(list(itertools.product([-1, 1], repeat=10)))
        expected = np.mean(np.abs(signs @ differences) >= abs(differences.sum()))
        assert sign_flip(differences) == pytest.approx(expected, rel=1e-12)
    assert sign_flip(np.zeros(3, np.int64)) == 1.0
    assert sign_flip(np.array([4, 0, 0])) == 1.0  # one cluster decides nothing


def test_clusters_of_one_sample_are_mcnemar():
    for a, b in [(3, 9), (12, 1), (40, 60), (5, 5)]:
        differences = np.r_[np.ones(a, int), -np.ones(b, int), np.zeros(7, int)]
        assert sign_flip(differences) == pytest.approx(mcnemar(a, b), rel=1e-10)


def test_many_clusters_are_normal():
    generator = np.random.default_rng(0)
    differences = generator.integers(-20, 21, 2000)
    z = (abs(differences.sum()) - 0.5) / math.sqrt((differences**2).sum())
    # The sum of 2,000 terms is normal to some 1 / 2,000.
    assert sign_flip(differences) == pytest.approx(math.erfc(z / math.sqrt(2)), abs=2e-3)


@pytest.mark.parametrize("clusters", [None, 22])
def test_five_of_a_hundred_are_rejected_where_nothing_differs(clusters):
    generator = np.random.default_rng(1)
    rejected = naive = 0
    for _ in range(REPEATS):
        if clusters is None:
            # Equally good networks that share most of what is hard.
            hard = generator.random(400) < 0.3
            a, b = (~hard | (generator.random(400) < 0.5) for _ in range(2))
            groups = None
        else:
            # In each cluster one or the other happens to be better.
            groups = np.repeat(np.arange(clusters), generator.integers(20, 80, clusters))
            shift = generator.normal(0, 0.08, clusters)[groups]
            a = generator.random(len(groups)) < np.clip(0.8 + shift, 0, 1)
            b = generator.random(len(groups)) < np.clip(0.8 - shift, 0, 1)
        (found,) = paired_differences([("b", answers(b, groups)), ("a", answers(a, groups))])
        rejected += found.p < 0.05
        naive += mcnemar(found.only_a, found.only_b) < 0.05
    assert rejected <= binom.ppf(0.99, REPEATS, 0.05)  # exact tests reject less, never more
    assert rejected >= 0.5 * 0.05 * REPEATS  # and not never
    if clusters:
        assert naive > 0.2 * REPEATS


def test_difference_and_error_are_those_of_paired_samples():
    generator = np.random.default_rng(0)
    a, b = generator.random(500) < 0.8, generator.random(500) < 0.7
    (found,) = paired_differences([("sgd", answers(b)), ("sam", answers(a))])
    assert (found.a, found.b, found.count, found.clusters) == ("sam", "sgd", 500, None)
    assert found.difference == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    expected = ttest_rel(a.astype(float), b.astype(float)).statistic
    assert found.difference / found.standard_error == pytest.approx(expected, rel=1e-12)
    assert (found.only_a, found.only_b) == ((a & ~b).sum(), (b & ~a).sum())
    assert found.p == found.p_holm == mcnemar(found.only_a, found.only_b)
    assert found.text().startswith("sam - sgd: +")
    assert found.text().endswith("a difference is shown")
    (same,) = paired_differences([("sgd", answers(b)), ("sam", answers(b))])
    assert same.text() == (
        "sam - sgd: +0.00 ± 0.00 points on 500 shared test samples, McNemar p = 1: "
        "no difference shown"
    )


def test_several_pairs_are_adjusted():
    # Sorted p times what is left, never falling: 0.01 * 4, 0.02 * 3, 0.021 * 2 -> 0.06, 0.9.
    assert holm([0.02, 0.9, 0.01, 0.021]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([]) == []
    generator = np.random.default_rng(0)
    runs = [(name, answers(generator.random(300) < p)) for name, p in SHARES.items()]
    found = paired_differences(runs)
    assert [(one.a, one.b) for one in found] == [("y", "x"), ("z", "x"), ("z", "y")]
    assert [one.p_holm for one in found] == holm([one.p for one in found])
    assert all("(Holm " in one.text() for one in found if one.p < one.p_holm)


def test_answers_come_from_the_stored_predictions(tmp_path):
    outputs = 3.0 * np.eye(3)[[0, 1, 1, 2]]
    outputs[3, 0] = math.nan  # no guess: wrong
    predictions = Predictions(outputs, np.array([0, 1, 2, 2]), np.array([7, 7, 9, 9]))
    write_predictions(tmp_path / "p.csv", predictions, ["a", "b", "c"])
    found = read_answers(tmp_path / "p.csv")
    assert found.right.tolist() == [True, True, False, False]
    assert found.truth.tolist() == ["a", "b", "c", "c"]
    assert found.groups.tolist() == [7, 7, 9, 9]
    with pytest.raises(ScoresError, match="expected the same test samples of b and a"):
        paired_differences([("a", found), ("b", answers([True] * 4, found.groups))])
    write_predictions(tmp_path / "r.csv", Predictions(np.zeros((3, 1)), np.zeros((3, 1))))
    with pytest.raises(ScoresError, match="expected columns truth, guess, confidence"):
        read_answers(tmp_path / "r.csv")


BAD_TABLES = {
    "nothing": b"",
    "no text": b"truth,guess,confidence\n\xff,b,1\n",
    "no end of a cell": b'truth,guess,confidence\n"' + b"a" * 200_000,
    "a short line": b"truth,guess,confidence\na,b,1\na\n",
    "a group that is no number": b"truth,guess,confidence,group\na,b,1,x\n",
    "a group without end": b"truth,guess,confidence,group\na,b,1," + b"9" * 30 + b"\n",
}


@pytest.mark.parametrize("content", BAD_TABLES.values(), ids=list(BAD_TABLES))
def test_a_damaged_table_of_answers_is_refused(tmp_path, content):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(ScoresError, match=r"p\.csv: expected"):
        read_answers(tmp_path / "p.csv")
