"""Data sets of dictionaries, tuples and tensors alone: what is read, cut, drawn and refused."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from isoloss.datasets import DataError, StructureSplit, TensorSplit
from isoloss.datasets.conversion import convert
from isoloss.datasets.loading import load_data
from isoloss.structure import inputs_and_targets

X = torch.rand(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Z = torch.arange(24).view(12, 2)
Y = torch.arange(12) % 3
Row = namedtuple("Row", "label x")


@dataclass
class Fields:
    x: Any
    z: Any


class Formatted(Dataset):
    """As Hugging Face's data sets: lists of numbers unless a format is set."""

    def __init__(self, rows: list[dict[str, Any]], kind: str = "") -> None:
        self.rows, self.kind = rows, kind

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {k: torch.tensor(v) for k, v in row.items()} if self.kind == "torch" else row

    def with_format(self, kind: str) -> Formatted:
        return Formatted(self.rows, kind)


DICT = {"x": X, "z": Z, "labels": Y}
LISTS = [{"x": X[i].tolist(), "z": Z[i].tolist(), "labels": int(Y[i])} for i in range(12)]


def split(data: Any) -> Any:
    return convert({"train": data, "test": data}, "data set 'x'")[0]["train"]


@pytest.mark.parametrize(
    "data",
    [
        DICT,
        {name: part.numpy() for name, part in DICT.items()},
        {"x": X.tolist(), "z": Z.tolist(), "labels": Y.tolist()},
        [{name: part[i] for name, part in DICT.items()} for i in range(12)],
        LISTS,
        Formatted(LISTS),
    ],
    ids=["tensors", "arrays", "lists", "samples", "samples of lists", "formatted"],
)
def test_all_kinds_of_dictionaries_become_the_same_split(data: Any) -> None:
    made, expected = split(data), split(DICT)
    assert isinstance(made, StructureSplit)
    assert list(made.content) == ["x", "z", "labels"]
    for name, part in DICT.items():
        assert made.content[name].dtype == (torch.int64 if name != "x" else torch.float32)
        torch.testing.assert_close(made.content[name], part.to(made.content[name].dtype))
    assert torch.equal(made.targets, Y)
    assert made.digest() == expected.digest()
    assert (len(made), made.input_shape, made.num_features) == (12, (3,), 3)


@pytest.mark.parametrize(
    ("item", "inputs", "targets"),
    [
        ({"x": X, "y": Y}, {"x": X}, Y),
        ({"label": Z, "labels": Y, "x": X}, {"label": Z, "x": X}, Y),
        ((X, Y), X, Y),
        ([X, Y], X, Y),
        ((X, Z, Y), (X, Z), Y),
        (((X, Z), Y), (X, Z), Y),
        (({"a": X}, Y), {"a": X}, Y),
        (Row(Y, X), X, Y),
        (namedtuple("Pair", "a b")(X, Y), X, Y),
        (X, X, None),
        ((X,), (X,), None),
        ({"x": X}, {"x": X}, None),
        ({"labels": "text"}, {"labels": "text"}, None),
        ((X, {"a": Y}), (X, {"a": Y}), None),
    ],
)
def test_inputs_are_told_from_targets(item: Any, inputs: Any, targets: Any) -> None:
    found = inputs_and_targets(item)
    assert found.targets is targets
    if isinstance(inputs, tuple | dict):
        assert type(found.inputs) is type(inputs)
        assert str(found.inputs) == str(inputs)
    else:
        assert found.inputs is inputs


@pytest.mark.parametrize(
    ("data", "count"),
    [((X, Z, Y), 12), (Row(Y, X), 12), (((X, Z), Y), 12), (Fields(X, Z), 12), (X, 12),
     (TensorDataset(X), 12), ([Fields(X[i], Z[i]) for i in range(5)], 5),
     ({"x": X, "edge": torch.ones(2, 3)}, 12)],
    ids=["triple", "named", "nested", "dataclass", "alone", "row", "dataclasses", "shared"],
)  # fmt: skip
def test_structures_keep_their_kind_through_batches_and_choices(data: Any, count: int) -> None:
    made = split(data)
    assert len(made) == count
    sample = data[0] if isinstance(data, list | TensorDataset) else data
    batches = list(made.batches(4))
    assert {type(batch) for batch in batches} == {type(sample)}
    again = torch.cat([tensors(batch)[0] for batch in batches])
    assert torch.equal(again, tensors(made.content)[0])
    order = torch.tensor([3, 1, 4])
    (chosen,) = made.batches(3, order=order)
    picked = made.subset(order)
    for a, b, whole in zip(*map(tensors, (chosen, picked.content, made.content)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, whole[order] if len(whole) == count else whole)
    assert len(list(made.batches(5, drop_last=True))) == count // 5
    assert picked.digest() != made.digest()
    assert len(made.stratified(4, 0)) == 4


def tensors(content: Any) -> list[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        return [content]
    parts = content if isinstance(content, tuple | list) else [*vars_of(content)]
    return [tensor for part in parts for tensor in tensors(part)]


def vars_of(content: Any) -> Any:
    return (content if isinstance(content, dict) else vars(content)).values()


def test_classes_are_kept_in_proportion_and_groups_go_along(tmp_path: Any) -> None:
    groups = {"train": np.arange(12) // 4}
    made = convert({"train": DICT, "test": DICT, "groups": groups}, "x")[0]["train"]
    assert torch.equal(made.subset([11, 0]).groups, torch.tensor([2, 0]))
    for count in (3, 6):
        for chosen in (made.stratified(count, 1), made.balanced(count, 1)):
            assert chosen.targets.bincount().tolist() == [count // 3] * 3
            assert torch.equal(chosen.content["z"][:, 0] // 2 % 3, chosen.targets)
    file = tmp_path / "data.py"
    file.write_text(
        "import torch\n"
        "def load(data_dir):\n"
        "    x = torch.arange(40.0)[:, None]\n"
        "    rows = {'x': x, 'y': torch.arange(40) % 2}\n"
        "    return {'train': rows, 'test': rows, 'groups': {'train': torch.arange(40) // 4}}\n"
    )
    loaded = load_data(f"{file}:load", val_fraction=0.2)
    assert loaded.val is not None
    assert (len(loaded.train), len(loaded.val)) == (32, 8)
    assert not torch.isin(loaded.val.groups, loaded.train.groups).any()
    assert loaded.provenance["samples"] == {"test": 40, "train": 32, "val": 8}


def test_ignored_labels_are_no_class_and_rows_without_targets_no_regression() -> None:
    labels = torch.where(Y == 0, -100, Y)
    splits, info = convert({"train": (X, labels), "test": (X, Y)}, "x")
    assert isinstance(splits["train"], TensorSplit)
    assert info.num_classes == 3
    words = {"x": Z, "labels": torch.where(Z == 3, -100, Z % 4)}
    assert convert({"train": words, "test": words}, "x")[1].num_classes == 4
    with pytest.raises(
        DataError, match=r"from 0 to 1, got 2 .* set those .* to -100, or state info"
    ):
        convert({"train": (X, Y), "test": (X, Y), "info": {"num_classes": 2}}, "x")
    alone, info = convert({"train": X, "test": X}, "x")
    assert alone["train"].targets.shape == (12, 0)
    assert info.num_classes is None


HOLED = {"x": X.clone(), "labels": Y}
HOLED["x"][4, 1] = torch.nan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": X, "labels": Y[:5]}, r"as the 5 targets, got \(12, 3\) in data.x; give"),
        ((X, Z[:3], Y), r"the 12 targets, got \(3, 2\) in data.1; give each sample its row"),
        (HOLED, "1 of 12 samples hold NaN or inf in their data.x, the first at index 4; mend"),
        ({"x": X, "z": (X * 255).to(torch.uint8), "y": Y}, "uint8 in data.z; scale them"),
        ({"x": X[:0], "y": Y[:0]}, "at least one sample, got none; look"),
        ({"x": X, "text": ["a"] * 12, "y": Y}, "got list; turn it into numbers, or leave it out"),
        ([{"x": X[0], "text": "a", "y": 1}], "sample 0: expected a tensor, .* got str; .*leave it"),
        ([{"x": X[0], "y": 1}, {"x": X[1]}], "samples that are alike, got dict .* at 1; return"),
        ([{"x": X[0], "y": 1}, {"x": X[1, :2], "y": 1}], r"sample.x: .* \(2,\) at 1; pad"),
        (DataLoader(TensorDataset(X, Y)), "got DataLoader; of a loader give its dataset"),
        (iter([(X, Y)]), r"of an iterator list\(it\)"),
        (torch.tensor(3.0), "stack the samples along dimension 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_remedy(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        convert({"train": data, "test": data}, "data set 'x'")


def test_splits_must_be_alike() -> None:
    with pytest.raises(DataError, match=r"got train data\.x, data\.y; test data\.z, data\.y"):
        convert({"train": {"x": X, "y": Y}, "test": {"z": X, "y": Y}}, "x")
    with pytest.raises(DataError, match="train structures of tensors; test pairs of tensors; give"):
        convert({"train": {"x": X, "y": Y}, "test": (X, Y)}, "x")
    with pytest.raises(DataError, match="a validation split is called 'val'"):
        convert({"train": (X, Y), "test": (X, Y), "validation": (X, Y)}, "x")
