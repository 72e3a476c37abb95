from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from isoloss.datasets import DataError, TensorSplit
from isoloss.datasets.conversion import convert

X = torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Pairs(Dataset):
    def __init__(self, inputs: Any, targets: Any) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.inputs[index], self.targets[index]


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X, Y.to(torch.uint8)),
        (X.numpy(), Y.numpy()),
        (X.flip(0).numpy()[::-1], Y.numpy().astype(np.int16)),
        TensorSplit(X, Y),
        TensorDataset(X, Y),
        Pairs(X, Y.tolist()),
        Pairs(X.numpy(), Y.numpy()),
        list(zip(X, Y, strict=True)),
    ],
    ids=["tensors", "uint8", "arrays", "strided", "split", "TensorDataset", "int", "numpy", "list"],
)
def test_all_kinds_become_the_same_split(data: Any) -> None:
    splits, info = convert({"train": data, "test": (X, Y), "val": None}, "data")
    assert list(splits) == ["train", "test"]
    assert (splits["train"].inputs.dtype, splits["train"].targets.dtype) == (
        torch.float32,
        torch.int64,
    )
    assert torch.equal(splits["train"].inputs, X.float())
    assert torch.equal(splits["train"].targets, Y)
    assert (info.input_shape, info.num_classes, info.num_features) == ((1, 4, 4), 3, 16)
    assert (info.in_channels, info.class_names, info.task) == (1, ("0", "1", "2"), "classification")


@pytest.mark.parametrize(("mode", "shape"), [("L", (1, 2, 3)), ("RGB", (3, 2, 3))])
def test_images_become_channels_first_in_unit_range(mode: str, shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(2, 3, shape[0]) * 10
    image = Image.fromarray(pixels.squeeze())
    splits, _ = convert({"train": Pairs([image], [0]), "test": Pairs([image], [0])}, "data")
    expected = torch.tensor(pixels).permute(2, 0, 1) / 255
    assert image.mode == mode
    assert torch.equal(splits["train"].inputs[0], expected)


def test_tokens_stay_integer_and_regression_is_inferred() -> None:
    tokens = torch.arange(30).view(6, 5)
    splits, info = convert({"train": (tokens, Y), "test": (tokens, Y)}, "data")
    assert splits["train"].inputs.dtype == torch.int64
    values = Y.double()[:, None] / 2
    splits, info = convert({"train": (X, values), "test": (X, values)}, "data")
    assert splits["train"].targets.dtype == torch.float32
    assert (info.task, info.num_classes, info.class_names) == ("regression", None, ())


def test_stated_facts_are_kept_and_the_others_inferred() -> None:
    stated = {
        "class_names": ["a", "b", "c", "d"],
        "normalisation": {"mean": [0.5], "std": [0.25], "source": "the paper"},
    }
    _, info = convert({"train": (X, Y), "test": (X, Y), "info": stated}, "data")
    assert (info.num_classes, info.class_names, info.input_shape) == (4, tuple("abcd"), (1, 4, 4))
    assert torch.equal(info.denormalise(X), X * 0.25 + 0.5)


HOLES = X.clone()
HOLES[2, 0, 1, 1], HOLES[4, 0, 0, 0] = torch.nan, torch.inf


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"train": (X, Y), "test": (X, Y), "dev": 1}, r"got also \['dev'\]"),
        ({"train": (X, Y[:5])}, r"train: expected as many targets as inputs, got .*\(6,.*\(5,"),
        ({"train": (X[:0], Y[:0])}, "train: expected at least one sample, got none"),
        ({"train": []}, "train: expected at least one sample, got none"),
        ({"train": (HOLES, Y)}, "2 of 6 samples hold NaN or inf in their inputs, .* index 2"),
        ({"train": (X, HOLES[:, 0, 1, 1])}, "1 of 6 .* in their targets, the first at index 2"),
        ({"train": (X, Y - 1), "info": {"num_classes": 3}}, "from 0 to 2, got -1 at index 0"),
        ({"train": (X, Y), "info": {"num_classes": 2}}, "from 0 to 1, got 2 at index 2"),
        ({"train": (X, Y + 2**62)}, "at most 1,000,000 classes, got 4,611,686,0"),
        ({"train": (X, Y), "info": {"num_classes": 9 * 10**9}}, "at most 1,000,000 classes, got"),
        ({"train": (X, Y - 3)}, "labels from 0 to 2, got -3 at index 0"),
        ({"train": (X, Y.float()), "info": {"num_classes": 3}}, "integer class labels, got torch"),
        ({"train": ((X * 255).to(torch.uint8), Y)}, "got uint8; scale them"),
        ({"train": (X[:, :, :3], Y)}, r"test: expected samples of shape \(1, 3, 4\), got"),
        ({"train": (["a"], ["b"])}, "expected a tensor, array, image or number, got list"),
        ({"train": (np.array(["a"] * 6), Y)}, "expected numbers, got an array of <U1"),
        ({"train": 3}, "expected a pair .* a map-style dataset or a list of graphs, got int"),
        ({"train": [3, 4]}, "expected sample 0 to be a pair .*, got int"),
        ({"train": [(X[0], 1), (X[1, 0], 1)]}, r"of one shape, got \(1, 4, 4\) at 0 .* at 1; pad"),
        ({"train": [(Image.new("P", (2, 2)), 1)]}, r"mode L or RGB, got P; convert"),
        ({"train": (X, Y), "info": {"classes": 3}}, "info has no field classes; valid: class_gr"),
        ({"train": (X, Y), "info": {"class_names": 3}}, "info does not fit"),
        ({"train": (X, Y), "info": {"num_classes": 3, "class_names": ["a"]}}, "one class name for"),
    ],
)
def test_what_does_not_fit_is_refused(returned: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        convert({"test": (X, Y), **returned}, "data set 'x'")
    assert str(caught.value).startswith("data set 'x'")


@pytest.mark.parametrize(
    ("returned", "got"), [([X, Y], "list"), ({"train": (X, Y)}, r"\['train'\]")]
)
def test_train_and_test_are_needed(returned: Any, got: str) -> None:
    with pytest.raises(DataError, match=f"expected a dict with 'train' and 'test', got {got}"):
        convert(returned, "data set 'x'")
