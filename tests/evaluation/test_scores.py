"""Scores against counts made by hand and against scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import classification_report, f1_score, jaccard_score

from isoloss.evaluation.networks import sample_terms
from isoloss.evaluation.paired import read_answers
from isoloss.evaluation.predictions import Predictions, ScoresError
from isoloss.evaluation.reports import misclassified, report, write_predictions
from isoloss.evaluation.scores import SampleTerms, Scores
from isoloss.evaluation.scores import score as score_arrays
from isoloss.records.json_text import to_json
from isoloss.trainers.losses import build_loss

LOSS = build_loss("cross-entropy", {})

# Truth and guess of ten samples in four classes; class 3 occurs in neither.
TRUTH = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
GUESS = [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
CONFUSION = ((3, 1, 0, 0), (1, 2, 0, 0), (1, 2, 0, 0), (0, 0, 0, 0))
# (precision, recall, f1, iou, support) by the definitions; class 2 is never predicted.
CLASSES = [
    (3 / 5, 3 / 4, 2 * 3 / (5 + 4), 3 / (5 + 4 - 3), 4),
    (2 / 5, 2 / 3, 2 * 2 / (5 + 3), 2 / (5 + 3 - 2), 3),
    (math.nan, 0.0, 0.0, 0.0, 3),
    (math.nan, math.nan, math.nan, math.nan, 0),
]
NAMES = ["N", "S", "V", "F"]


def table() -> Predictions:
    return Predictions(2.0 * np.eye(4)[GUESS], np.array(TRUTH))


def score(predictions: Predictions, loss, *names) -> Scores:
    return score_arrays(predictions, sample_terms(predictions, loss), *names)


def random_predictions(classes=4, count=400, seed=0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (count,), generator=generator)
    outputs = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    outputs[range(count), targets] += 1.0
    return Predictions(outputs.numpy(), targets.numpy())


def test_closed_forms():
    scores = score(table(), LOSS, NAMES)
    # Right: log(e^2 + 3) - 2; wrong: log(e^2 + 3).
    right, wrong = math.log(math.e**2 + 3) - 2, math.log(math.e**2 + 3)
    assert scores.loss == pytest.approx((5 * right + 5 * wrong) / 10, rel=1e-14)
    # Ten values, half 1 below and half 1 above their mean: s^2 = 10/9.
    assert scores.loss_standard_error == pytest.approx(math.sqrt(10 / 9 / 10), rel=1e-14)
    assert scores.accuracy == 0.5
    assert scores.accuracy_standard_error == pytest.approx(math.sqrt(0.25 / 10), rel=1e-14)
    assert scores.count == 10
    assert scores.not_finite == 0
    assert scores.confusion == CONFUSION
    for got, name, expected in zip(scores.classes, NAMES, CLASSES, strict=True):
        values = (got.precision, got.recall, got.f1, got.iou, got.support)
        assert got.name == name
        assert values == pytest.approx(expected, rel=1e-14, nan_ok=True)
    assert scores.macro_f1 == pytest.approx((6 / 9 + 4 / 8 + 0) / 3, rel=1e-14)
    assert scores.mean_iou == pytest.approx((1 / 2 + 1 / 3 + 0) / 3, rel=1e-14)
    # Class 0's logit is 2 for 3 of its 4 and for 2 of the 6 others: pairs in order 3 * 4, ties
    # 3 * 2 + 1 * 4, of 24 pairs.
    assert scores.classes[0].auc == pytest.approx((12 + 5) / 24, rel=1e-14)
    stored = json.loads(json.dumps(to_json(scores)))["classes"]
    assert stored[2]["precision"] is None
    assert stored[3]["auc"] is None


def test_outputs_that_are_not_finite_are_wrong_and_no_guess():
    predictions = table()
    predictions.outputs[0, 0] = math.nan
    scores = score(predictions, LOSS)
    assert math.isnan(scores.loss)
    assert scores.accuracy == 0.4
    assert scores.not_finite == 1
    assert scores.confusion[0] == (2, 1, 0, 0)
    assert scores.classes[0].recall == 2 / 4
    assert scores.classes[0].iou == 2 / (4 + 4 - 2)
    assert math.isnan(scores.classes[0].auc)
    assert 0 not in misclassified(predictions, 10)


def test_regression_has_a_loss_alone(tmp_path):
    predictions = Predictions(np.array([[1.0], [2.0], [4.0]]), np.zeros((3, 1)))
    scores = score(predictions, build_loss("mse", {}))
    assert scores.loss == pytest.approx(7.0)
    assert math.isnan(scores.accuracy)
    assert scores.classes == scores.confusion == ()
    assert report(scores, "title").splitlines() == ["title", "loss 7 ± 4.6, 3 samples"]
    path = tmp_path / "predictions.csv"
    assert write_predictions(path, predictions)
    assert path.read_text().splitlines()[:2] == ["index,truth,guess", "0,0.0,1.0"]
    assert not write_predictions(path, Predictions(np.zeros((3, 17)), np.zeros((3, 17))))


def test_scikit_learn_says_the_same():
    predictions = random_predictions()
    truth, guess = predictions.targets, predictions.guesses()
    scores = score(predictions, LOSS, NAMES, [["N", "V"], ["F"]])
    expected = classification_report(truth, guess, target_names=NAMES, output_dict=True)
    for c in scores.classes:
        assert c.precision == pytest.approx(expected[c.name]["precision"], rel=1e-14)
        assert c.f1 == pytest.approx(expected[c.name]["f1-score"], rel=1e-14)
        assert c.support == expected[c.name]["support"]
    jaccard = jaccard_score(truth, guess, average=None)
    np.testing.assert_allclose([c.iou for c in scores.classes], jaccard, rtol=1e-14)
    for group, labels in zip(scores.groups, ([0, 2], [3]), strict=True):
        mean = f1_score(truth, guess, labels=labels, average="macro")
        assert group.macro_f1 == pytest.approx(mean, rel=1e-14)
        assert group.support == np.isin(truth, labels).sum()


def test_the_report_has_the_numbers():
    predictions = random_predictions()
    truth, guess = predictions.targets, predictions.guesses()
    expected = classification_report(truth, guess, output_dict=True)
    text = report(score(predictions, LOSS, NAMES, [["N", "S"]]), "run a", ["Leads differ."])
    lines = {line[:16].strip(): line[16:].split() for line in text.splitlines()}
    for name in ("macro", "weighted"):
        row = lines[f"{name} average"]
        keys = ("precision", "recall", "f1-score")
        assert row[:3] == [f"{expected[f'{name} avg'][key]:.4f}" for key in keys]
        assert row[-1] == "400"
    f1 = f1_score(truth, guess, labels=[0, 1], average="macro")
    assert f"macro F1 {f1:.4f} over N, S (" in text
    assert text.splitlines()[-1] == "Leads differ."
    # A class that is never predicted has no precision and does not enter the average.
    row = next(x for x in report(score(table(), LOSS, NAMES)).splitlines() if x.startswith("V "))
    assert row.split()[1] == "-"


def test_predictions_by_name_and_the_most_confident_errors(tmp_path):
    predictions = table()
    predictions.outputs[9] *= 2  # e^4 against e^2: the most confident error
    predictions.outputs[0, 3] = math.inf
    write_predictions(tmp_path / "p.csv", predictions, NAMES)
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "index,truth,guess,confidence"
    assert lines[1] == "0,N,,"
    confidence = math.e**2 / (math.e**2 + 3)
    assert lines[4] == f"3,N,S,{confidence:.6f}"
    assert misclassified(predictions, 3).tolist() == [9, 3, 6]
    assert misclassified(predictions, 99).tolist() == [9, 3, 6, 7, 8]


def test_probabilities_of_float32_outputs_are_computed_in_float64():
    outputs = random_predictions().outputs.astype(np.float32) * 10
    outputs[3, 1] = math.inf
    probabilities = Predictions(outputs, np.zeros(400, int)).probabilities()
    exact = np.exp(outputs.astype(np.float64)[:3])
    # Three roundings; in float32 they would be 1e-7.
    np.testing.assert_allclose(probabilities[:3], exact / exact.sum(1, keepdims=True), rtol=1e-14)
    assert np.isnan(probabilities[3]).all()


def test_names_that_do_not_fit():
    with pytest.raises(ScoresError, match="one output for each of 3 classes, got 4"):
        score(table(), LOSS, NAMES[:3])
    with pytest.raises(ScoresError, match="classes among N, S, V, F, got X"):
        score(table(), LOSS, NAMES, [["N", "X"]])
    with pytest.raises(ScoresError, match=r"terms of shape \(10,\), got \(1,\)"):
        score_arrays(table(), SampleTerms(*np.ones((4, 1))))


def test_samples_whose_target_does_not_count_are_in_no_score(tmp_path):
    whole = random_predictions()
    kept = np.arange(len(whole.targets)) % 3 > 0
    ignored = Predictions(whole.outputs, np.where(kept, whole.targets, -100))
    found = score(ignored, LOSS)
    expected = score(Predictions(whole.outputs[kept], whole.targets[kept]), LOSS)
    assert found.confusion == expected.confusion
    assert found.classes == expected.classes
    assert (found.accuracy, found.macro_f1) == (expected.accuracy, expected.macro_f1)
    assert found.accuracy_standard_error == pytest.approx(expected.accuracy_standard_error)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    assert kept[misclassified(ignored, 10)].all()
    assert write_predictions(tmp_path / "predictions.csv", ignored)
    answers = read_answers(tmp_path / "predictions.csv")
    assert len(answers.right) == kept.sum()
    assert answers.right.mean() == pytest.approx(expected.accuracy)
    nothing = score(Predictions(whole.outputs, np.full(len(kept), -100)), LOSS)
    assert nothing.classes == ()
    assert math.isnan(nothing.loss)
