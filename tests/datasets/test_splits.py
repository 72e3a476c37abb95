from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from isoloss.datasets import (
    TensorSplit,
    balanced_indices,
    proportional_indices,
    stratified_indices,
)


def labels(*sizes: int) -> Tensor:
    """Class c `sizes[c]` times, shuffled."""
    targets = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(5))]


def split(targets: Tensor) -> TensorSplit:
    return TensorSplit(torch.arange(len(targets), dtype=torch.float32)[:, None], targets)


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ((50, 50, 50), 30, [10, 10, 10]),
        ((50, 50, 50), 31, [10, 10, 11]),
        ((2, 50, 50), 22, [2, 10, 10]),
        ((2, 5, 50), 22, [2, 5, 15]),
        ((2, 5, 50), 57, [2, 5, 50]),
        ((9, 9, 9), 2, [0, 1, 1]),
    ],
)
def test_balanced_is_as_equal_as_can_be(
    sizes: tuple[int, ...], count: int, expected: list[int]
) -> None:
    targets = labels(*sizes)
    chosen = balanced_indices(targets, count, seed=1)
    assert len(chosen.unique()) == len(chosen) == count
    assert torch.equal(chosen, chosen.sort().values)
    assert sorted(targets[chosen].bincount(minlength=len(sizes)).tolist()) == expected


def test_balanced_depends_on_the_seed_alone_and_nests() -> None:
    targets = labels(7, 30, 40)
    torch.manual_seed(0)
    chosen = balanced_indices(targets, 33, seed=1)
    torch.manual_seed(1)
    assert torch.equal(chosen, balanced_indices(targets, 33, seed=1))
    assert not torch.equal(chosen, balanced_indices(targets, 33, seed=2))
    previous: set[int] = set()
    for count in range(1, len(targets) + 1):
        current = set(balanced_indices(targets, count, seed=1).tolist())
        assert previous < current
        previous = current


def test_targets_that_are_no_labels_are_chosen_at_random() -> None:
    values = torch.linspace(0, 1, 40)
    assert len(balanced_indices(values, 7, seed=0).unique()) == 7
    aside, rest = stratified_indices(values[:, None], 0.25, seed=0)
    assert (len(aside), len(rest)) == (10, 30)


@pytest.mark.parametrize("count", [0, -1, 6])
def test_balanced_count_out_of_range(count: int) -> None:
    with pytest.raises(ValueError, match="expected a count from 1 to 5"):
        balanced_indices(labels(2, 3), count, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.33, 0.5, 1.0])
def test_stratified_is_disjoint_complete_and_within_one_of_each_share(fraction: float) -> None:
    sizes = (3, 17, 101, 40)
    targets = labels(*sizes)
    aside, rest = stratified_indices(targets, fraction, seed=4)
    assert torch.equal(torch.cat([aside, rest]).sort().values, torch.arange(len(targets)))
    assert len(aside) == round(fraction * len(targets))
    shares = torch.tensor(sizes) * fraction
    assert ((targets[aside].bincount(minlength=4) - shares).abs() < 1).all()
    assert torch.equal(aside, stratified_indices(targets, fraction, seed=4)[0])


@pytest.mark.parametrize("count", [1, 7, 33, 160, 161])
def test_proportional_keeps_every_share_to_within_one(count: int) -> None:
    sizes = (3, 17, 101, 40)
    targets = labels(*sizes)
    chosen = proportional_indices(targets, count, seed=4)
    assert len(chosen.unique()) == len(chosen) == count
    assert torch.equal(chosen, chosen.sort().values)
    shares = torch.tensor(sizes) * count / 161
    assert ((targets[chosen].bincount(minlength=4) - shares).abs() < 1).all()
    assert torch.equal(chosen, proportional_indices(targets, count, seed=4))
    data = split(targets)
    assert data.stratified(161, seed=4) is data
    if count < 161:
        assert not torch.equal(chosen, proportional_indices(targets, count, seed=5))
        assert torch.equal(data.stratified(count, seed=4).targets, targets[chosen])
    with pytest.raises(ValueError, match="from 0 to 161 samples, got 162"):
        proportional_indices(targets, 162, seed=4)


def test_whole_split_is_returned_for_a_count_that_covers_it() -> None:
    whole = split(labels(2, 3))
    assert whole.balanced(5, seed=0) is whole


def test_batches_cut_in_order() -> None:
    data = split(labels(4, 6))
    for order in (None, [9, 0, 3, 3], torch.arange(9, -1, -1)):
        expected = data.inputs if order is None else data.inputs[torch.as_tensor(order)]
        batches = list(data.batches(3, order))
        assert torch.equal(torch.cat([x for x, _ in batches]), expected)
        assert [len(x) for x, _ in batches][:-1] == [3] * (len(batches) - 1)
    assert [len(y) for _, y in data.batches(4, drop_last=True)] == [4, 4]
    assert list(data.batches(11, drop_last=True)) == []
    with pytest.raises(ValueError, match="batch size of at least 1"):
        next(data.batches(0))


def test_digest_is_of_dtype_shape_and_bytes() -> None:
    data = split(labels(2, 3))
    sha = hashlib.sha256()
    for tensor in (data.inputs, data.targets):
        sha.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    assert data.digest() == sha.hexdigest()
    nudged = data.inputs.clone()
    nudged[3] = torch.nextafter(nudged[3], torch.tensor(9.0))
    for other in (
        TensorSplit(nudged, data.targets),
        TensorSplit(data.inputs.double(), data.targets),
        TensorSplit(data.inputs.T, data.targets),
        data.subset([1, 0, 2, 3, 4]),
    ):
        assert other.digest() != data.digest()
    strided = TensorSplit(torch.stack([data.inputs, data.inputs], 1)[:, 0], data.targets)
    assert strided.digest() == data.digest()  # how it lies in memory does not matter
