"""top1: hits, rows that are not finite, and what is no classification."""

from __future__ import annotations

import pytest
import torch

from isoloss.landscape.metrics import top1

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("row", "hit"),
    [([0.0, 2.0, 1.0], True), ([3.0, 2.0, 1.0], False), ([0.0, NAN, 1.0], False),
     ([0.0, INF, 1.0], False), ([-INF, 2.0, 1.0], False)],
)  # fmt: skip
def test_a_hit_is_the_largest_of_finite_outputs(row, hit):
    hits, counted = top1(torch.tensor([row]), torch.tensor([1]))
    assert (hits.tolist(), counted.tolist()) == ([hit], [1])


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3)),
        (torch.zeros(2, 3), torch.zeros(2)),
        (torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.long)),
        ({"logits": torch.zeros(2, 3)}, torch.zeros(2, dtype=torch.long)),
    ],
)
def test_anything_else_has_no_hits(outputs, targets):
    values = top1(outputs, targets).sums
    assert values.shape == (2,)
    assert values.isnan().all()
