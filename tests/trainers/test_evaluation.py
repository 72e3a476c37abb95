"""Scores against counts made by hand; predictions in order and without a trace on the network."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from trainers.evaluation import Predictions, evaluate_split, mean_scores, predict, score
from trainers.losses import build_loss
from trainers.runs import to_json

LOSS = build_loss("cross-entropy", {})

# Truth and guess of ten samples in four classes; class 3 occurs in neither.
TRUTH = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
GUESS = [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
CONFUSION = ((3, 1, 0, 0), (1, 2, 0, 0), (1, 2, 0, 0), (0, 0, 0, 0))
# (precision, recall, f1, support) by the definitions; class 2 is never predicted.
CLASSES = [
    (3 / 5, 3 / 4, 2 * 3 / (5 + 4), 4),
    (2 / 5, 2 / 3, 2 * 2 / (5 + 3), 3),
    (math.nan, 0.0, 0.0, 3),
    (math.nan, math.nan, math.nan, 0),
]


class Fixed:
    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size, order=None):
        for start in range(0, len(self), size):
            yield self.inputs[start : start + size], self.targets[start : start + size]


def table() -> tuple[torch.Tensor, torch.Tensor]:
    logits = 2.0 * torch.eye(4, dtype=torch.float64)[GUESS]
    return logits, torch.tensor(TRUTH)


def test_closed_forms():
    names = ["N", "S", "V", "F"]
    scores = score(Predictions(*table()), LOSS, names)
    # Right: log(e^2 + 3) - 2; wrong: log(e^2 + 3).
    right, wrong = math.log(math.e**2 + 3) - 2, math.log(math.e**2 + 3)
    assert scores.loss == pytest.approx((5 * right + 5 * wrong) / 10, rel=1e-14)
    # Ten values, half 1 below and half 1 above their mean: s^2 = 10/9.
    assert scores.loss_standard_error == pytest.approx(math.sqrt(10 / 9 / 10), rel=1e-14)
    assert scores.accuracy == 0.5
    assert scores.accuracy_standard_error == pytest.approx(math.sqrt(0.25 / 10), rel=1e-14)
    assert scores.count == 10
    assert scores.confusion == CONFUSION
    for got, name, expected in zip(scores.classes, names, CLASSES, strict=True):
        values = (got.precision, got.recall, got.f1, got.support)
        assert got.name == name
        assert values == pytest.approx(expected, rel=1e-14, nan_ok=True)
    assert scores.macro_f1 == pytest.approx((6 / 9 + 4 / 8 + 0) / 3, rel=1e-14)
    assert json.loads(json.dumps(to_json(scores)))["classes"][2]["precision"] is None


def test_nan_outputs_count_as_wrong_and_show():
    logits, targets = table()
    logits[0, 0] = math.nan
    scores = score(Predictions(logits, targets), LOSS)
    assert math.isnan(scores.loss)
    assert scores.accuracy == 0.4


def test_regression_has_a_loss_alone():
    outputs = torch.tensor([[1.0], [2.0], [4.0]])
    scores = score(Predictions(outputs, torch.zeros(3, 1)), build_loss("mse", {}))
    assert scores.loss == pytest.approx(7.0)
    assert math.isnan(scores.accuracy)
    assert scores.classes == scores.confusion == ()


def test_batches_change_nothing_and_the_network_keeps_its_modes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 2, 5, 5, dtype=torch.float64, generator=generator)
    y = torch.randint(0, 3, (11,), generator=generator)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(50, 3))
    model.double()[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    results = [evaluate_split(model, LOSS, Fixed(x, y), batch_size=size) for size in (4, 11)]
    # Eleven float64 terms, added in another order.
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-14)
    assert results[0].confusion == results[1].confusion
    assert mean_scores(model, LOSS, Fixed(x, y), batch_size=3) == pytest.approx(
        (results[0].loss, results[0].accuracy), rel=1e-14
    )
    assert [m.training for m in model.modules()] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    torch.testing.assert_close(predict(model, Fixed(x, y), batch_size=4).outputs, model(x).detach())
