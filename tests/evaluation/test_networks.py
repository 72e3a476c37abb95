"""Predictions in order, and without a trace on the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isoloss.evaluation.networks import evaluate_split, loss_sums, predict
from isoloss.trainers.losses import build_loss

LOSS = build_loss("cross-entropy", {})


class Fixed:
    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.inputs, self.targets, self.groups = inputs, targets, None

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size, order=None):
        for start in range(0, len(self), size):
            yield self.inputs[start : start + size], self.targets[start : start + size]


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
    sums = loss_sums(model, LOSS, Fixed(x, y), batch_size=3)
    assert (sums.mean_loss, sums.accuracy) == pytest.approx(
        (results[0].loss, results[0].accuracy), rel=1e-14
    )
    assert [m.training for m in model.modules()] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    outputs = torch.from_numpy(predict(model, Fixed(x, y), batch_size=4).outputs)
    torch.testing.assert_close(outputs, model(x).detach())


def test_outputs_in_bfloat16_are_kept_value_for_value():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    model = nn.Linear(4, 3).bfloat16()
    found = predict(model, Fixed(x, torch.zeros(5, dtype=torch.int64)), batch_size=5).outputs
    assert torch.equal(torch.from_numpy(found).bfloat16(), model(x).detach())
