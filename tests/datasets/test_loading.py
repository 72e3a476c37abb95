from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from isoloss import datasets
from isoloss.datasets import DATASETS, Data, DataError, default_model, load_data
from isoloss.models import MODELS
from isoloss.registry import ArgumentError, UnknownNameError

PLUGIN = """
import torch

def make(data_dir, count=100, with_val=False):
    # the first feature tells a sample apart
    inputs = torch.stack([torch.arange(float(count)), torch.zeros(count)], 1)
    targets = torch.arange(count) % 4 // 2 * (torch.arange(count) % 3)
    data = {"train": (inputs, targets), "test": (inputs + count, targets)}
    if with_val:
        data["val"] = (inputs[:10] - count, targets[:10])
    return data
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "data.py").write_text(PLUGIN)
    return f"{tmp_path / 'data.py'}:make"


def members(split: Any) -> set[float]:
    return set(split.inputs[:, 0].tolist())


def test_sources_are_imported_where_they_are_used() -> None:
    heavy = ["torchvision", "torch_geometric", "wfdb", "pandas", "sklearn", "scipy.signal"]
    code = f"import sys, isoloss.datasets; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(datasets.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_every_data_set_names_its_default_model() -> None:
    for entry in DATASETS:
        assert default_model(entry.name) in MODELS
        assert entry.description
    assert default_model("anything.py:make") is None


def test_digits() -> None:
    data = load_data("digits")
    assert (len(data.train), len(data.val), len(data.test)) == (1294, 144, 359)  # of 1,797
    inputs = data.train.inputs
    assert (inputs.dtype, inputs.shape[1:], data.info.input_shape) == (
        torch.float32,
        (1, 28, 28),
        (1, 28, 28),
    )
    assert 0 == inputs.min() < inputs.max() <= 1
    assert data.info.class_names == tuple("0123456789")
    everything = torch.cat([split.targets for split in (data.train, data.val, data.test)])
    sizes = everything.bincount()
    # the test share is within 1 of 20 % of each class
    assert ((data.test.targets.bincount() - 0.2 * sizes).abs() < 1).all()
    assert load_data("digits", {"seed": 1}).test.digest() != data.test.digest()


def test_digits_as_they_are() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits", {"size": 8}, val_fraction=0.0)
    assert data.info.input_shape == (1, 8, 8)
    found = torch.cat([data.train.inputs, data.test.inputs]).flatten(1) * 16
    source = torch.from_numpy(load_digits().data).float()
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, source.tolist()))
    with pytest.raises(DataError, match=r"size 8 .* or more, got 7"):
        load_data("digits", {"size": 7})


def test_validation_is_set_aside_the_same_way_every_time(spec: str) -> None:
    data = load_data(spec, val_fraction=0.2)
    torch.manual_seed(77)
    assert load_data(spec, val_fraction=0.2).provenance == data.provenance
    assert members(data.train) | members(data.val) == set(range(100))
    assert not members(data.train) & members(data.val)
    assert members(data.test) == set(range(100, 200))
    exact = 0.2 * load_data(spec, val_fraction=0).train.targets.bincount()
    assert ((data.val.targets.bincount() - exact).abs() < 1).all()
    assert members(load_data(spec, val_fraction=0.2, split_seed=1).val) != members(data.val)


def test_fraction_keeps_a_balanced_share_of_the_same_splits(spec: str) -> None:
    whole = load_data(spec, val_fraction=0.2)
    previous = whole
    for fraction in (0.5, 0.2):
        part = load_data(spec, val_fraction=0.2, fraction=fraction)
        assert (len(part.train), len(part.val)) == (80 * fraction, 20 * fraction)
        assert members(part.train) < members(previous.train)
        assert members(part.val) < members(previous.val)
        assert part.test.digest() == whole.test.digest()
        previous = part
    counts = previous.train.targets.bincount()
    assert counts.max() - counts.min() <= 1
    assert whole.info.digest != previous.info.digest


def test_a_validation_split_of_the_source_is_used(spec: str) -> None:
    data = load_data(spec, {"with_val": True})
    assert (len(data.train), len(data.val), data.provenance["val_from"]) == (100, 10, "source")


def test_no_validation_split_when_none_is_asked_for(spec: str) -> None:
    data = load_data(spec, val_fraction=0)
    assert (data.val, len(data.train), data.provenance["val_from"]) == (None, 100, "none")


def test_provenance_says_what_was_loaded(spec: str) -> None:
    data: Data = load_data(spec, {"count": 50}, "somewhere", fraction=0.5, split_seed=3)
    stated = json.loads(json.dumps(data.provenance))
    assert stated["spec"] == spec
    assert stated["arguments"] == {"count": 50}
    assert (stated["fraction"], stated["val_fraction"], stated["split_seed"]) == (0.5, 0.1, 3)
    assert stated["samples"] == {"test": 50, "train": 22, "val": 2}
    assert stated["digests"]["train"] == data.train.digest()
    assert stated["plugin_sha256"] == hashlib.sha256(PLUGIN.encode()).hexdigest()
    assert stated["data_dir"] == str(Path("somewhere").resolve())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0}, "fraction above 0"),
        ({"fraction": 1.5}, "fraction above 0"),
        ({"val_fraction": 1}, "validation fraction"),
        ({"val_fraction": -0.1}, "validation fraction"),
    ],
)
def test_fractions_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data("digits", **options)


def test_misuse_names_what_is_valid(spec: str) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean mnist\? valid: .*digits, .*npz:FILE"):
        load_data("mnst")
    with pytest.raises(ArgumentError, match=r"no argument 'sead'; did you mean seed\?"):
        load_data("digits", {"sead": 1})
    with pytest.raises(ArgumentError, match=r"no argument 'data_dir'; valid: count=100"):
        load_data(spec, {"data_dir": "x"})
