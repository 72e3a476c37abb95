"""Groups: carried along with their samples, never torn apart by a validation split."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isoloss.datasets import DataError, TensorSplit, load_data
from isoloss.datasets.conversion import convert
from isoloss.datasets.graphs import GraphSplit
from isoloss.datasets.grouping import grouped_indices

PLUGIN = """
import torch

def make(data_dir, per_group=5, groups=True, mixed=False):
    inputs = torch.arange(200.0)[:, None]
    targets = torch.arange(200) % 3
    patients = torch.arange(200) // per_group
    data = {"train": (inputs, targets), "test": (inputs + 200, targets)}
    if groups:
        data["groups"] = {"train": patients, "test": patients if mixed else patients + 1000}
    return data
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "data.py").write_text(PLUGIN)
    return f"{tmp_path / 'data.py'}:make"


def distance(targets: Tensor, aside: Tensor, fraction: float) -> float:
    """The statistic of the docstring, written out."""
    total = (len(aside) - fraction * len(targets)) ** 2 / len(targets)
    for label in targets.unique():
        expected = fraction * int((targets == label).sum())
        total += (int((targets[aside] == label).sum()) - expected) ** 2 / (expected / fraction)
    return total


def test_whole_groups_are_set_aside_as_close_to_the_shares_as_any_choice() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(5, 40, (10,), generator=generator)
    groups = torch.arange(10).repeat_interleave(sizes) * 7 + 100
    # The share of class 1 differs from group to group.
    chances = torch.rand(10, generator=generator).repeat_interleave(sizes)
    targets = (torch.rand(len(groups), generator=generator) < chances).long()
    for fraction in (0.1, 0.25, 0.4):
        aside, rest = grouped_indices(targets, groups, fraction, seed=0)
        assert torch.equal(torch.cat([aside, rest]).sort().values, torch.arange(len(groups)))
        assert not torch.isin(groups[aside], groups[rest]).any()
        every = (
            torch.isin(groups, 7 * torch.tensor(chosen) + 100).nonzero().flatten()
            for count in range(1, 10)
            for chosen in itertools.combinations(range(10), count)
        )
        best = min(distance(targets, chosen, fraction) for chosen in every)
        assert distance(targets, aside, fraction) <= 1.5 * best + 0.1  # a search, not a proof


def test_many_small_groups_meet_every_share() -> None:
    generator = torch.Generator().manual_seed(1)
    groups = torch.randint(0, 500, (3000,), generator=generator)
    targets = torch.randint(0, 4, (3000,), generator=generator)
    aside, _ = grouped_indices(targets, groups, 0.1, seed=3)
    assert abs(len(aside) - 300) <= 2
    assert ((targets[aside].bincount() - 0.1 * targets.bincount()).abs() <= 2).all()
    again, _ = grouped_indices(targets, groups, 0.1, seed=3)
    other, _ = grouped_indices(targets, groups, 0.1, seed=4)
    assert torch.equal(aside, again)
    assert not torch.equal(aside, other)


@pytest.mark.parametrize(
    ("targets", "groups", "fraction", "count"),
    [
        (torch.zeros(10, dtype=torch.int64), torch.zeros(10, dtype=torch.int64), 0.5, 0),
        (torch.zeros(10, dtype=torch.int64), torch.arange(10) // 5, 0.1, 5),  # no smaller one
        (torch.zeros(10, dtype=torch.int64), torch.arange(10) // 5, 0.0, 0),
        (torch.zeros(10, dtype=torch.int64), torch.arange(10) // 8, 0.9, 8),  # never all
        (torch.rand(10, 3), torch.arange(10) // 2, 0.4, 4),  # no labels
    ],
)
def test_edges_of_what_is_set_aside(targets: Any, groups: Any, fraction: float, count: int) -> None:
    aside, rest = grouped_indices(targets, groups, fraction, seed=0)
    assert (len(aside), len(rest)) == (count, 10 - count)


def test_validation_takes_whole_groups(spec: str) -> None:
    data = load_data(spec, val_fraction=0.2)
    train, val = data.train.groups, data.val.groups
    assert train is not None
    assert val is not None
    assert not torch.isin(val, train).any()
    assert (len(data.train), len(data.val)) == (160, 40)
    # A group is the quotient of the one input, however samples are moved about.
    assert torch.equal(train, data.train.inputs[:, 0].long() // 5)
    assert data.provenance["groups"] == {"test": 40, "train": 32, "val": 8}
    half = load_data(spec, val_fraction=0.2, fraction=0.5)
    assert torch.equal(half.train.groups, half.train.inputs[:, 0].long() // 5)


def test_validation_asks_what_the_test_split_asks(spec: str) -> None:
    # Where the test split has the groups of the train split, drawing is as it is without groups.
    mixed, none = load_data(spec, {"mixed": True}), load_data(spec, {"groups": False})
    assert mixed.info.digest == none.info.digest
    assert none.train.groups is None
    assert none.provenance["groups"] == {}
    assert load_data(spec).info.digest != none.info.digest


def test_subsets_keep_each_sample_with_its_group() -> None:
    from torch_geometric.data import Data

    groups = torch.tensor([4, 4, 9, 9])
    graphs = [
        Data(x=torch.full((2, 1), float(i)), edge_index=torch.tensor([[0], [1]]), y=i % 2)
        for i in range(4)
    ]
    splits, _ = convert(
        {"train": graphs, "test": graphs, "groups": {"train": groups.tolist()}}, "data"
    )
    graph_split = splits["train"]
    assert isinstance(graph_split, GraphSplit)
    for split in (TensorSplit(torch.arange(4.0), torch.arange(4) % 2, groups), graph_split):
        assert split.subset([2, 0]).groups.tolist() == [9, 4]
        assert sorted(split.balanced(2, 0).groups.tolist()) in ([4, 4], [4, 9], [9, 9])
    assert splits["test"].groups is None
    assert graph_split.digest() == splits["test"].digest()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"train": [1, 2]},
            r"data, train: expected groups as 3 integers, got int64 of shape \(2,\)",
        ),
        ({"train": ["a", "b", "c"]}, r"np.unique\(names, return_inverse=True\)"),
        ({"train": [1.0, 2.0, 3.0]}, "expected groups as 3 integers, got float64"),
        ({"val": [1, 2, 3]}, r"expected groups for any of train, test, got \['val'\]"),
        ([1, 2, 3], "expected groups for any of train, test, got list"),
    ],
)
def test_groups_that_do_not_fit(groups: Any, message: str) -> None:
    pair = (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match=message):
        convert({"train": pair, "test": pair, "groups": groups}, "data")


def test_groups_of_an_archive(tmp_path: Path) -> None:
    x, y = np.zeros((6, 2)), np.arange(6) % 2
    file = tmp_path / "mine.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y, groups_test=np.arange(6) // 3)
    data = load_data(f"npz:{file}", val_fraction=0)
    assert data.train.groups is None
    assert data.test.groups.tolist() == [0, 0, 0, 1, 1, 1]
