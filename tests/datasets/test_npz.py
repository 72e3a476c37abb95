from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoloss.datasets import DataError, DataMissingError, TensorSplit, load_data

RANDOM = np.random.default_rng(3)
PIXELS = RANDOM.integers(0, 200, (20, 4, 5, 3), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 4


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "mine.npz"
    save(file)
    return file


def save(file: Path, **changes: Any) -> None:
    arrays = {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[::-1], "y_test": LABELS}
    arrays.update(changes)
    np.savez(file, **{name: value for name, value in arrays.items() if value is not None})


def test_images_are_normalised_by_the_train_split(archive: Path) -> None:
    data = load_data(f"npz:{archive}", val_fraction=0)
    assert isinstance(data.train, TensorSplit)
    assert isinstance(data.test, TensorSplit)
    assert data.info.input_shape == (3, 4, 5)
    raw = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
    # float32: normalised values are of order 1
    mean, std = data.train.inputs.double().mean((0, 2, 3)), data.train.inputs.double()
    torch.testing.assert_close(mean, torch.zeros(3).double(), rtol=0, atol=1e-6)
    spread = std.std((0, 2, 3), correction=0)
    torch.testing.assert_close(spread, torch.ones(3).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(data.info.denormalise(data.test.inputs), raw.flip(0))
    assert data.provenance["source"]["file"] == str(archive)


@pytest.mark.parametrize(
    ("changes", "shape", "names"),
    [
        ({"x_train": PIXELS[..., 0], "x_test": PIXELS[..., 0]}, (1, 4, 5), "0123"),
        ({"y_train": LABELS[:, None], "y_test": LABELS[:, None]}, (3, 4, 5), "0123"),
        ({"class_names": np.array(["a", "b", "c", "d"])}, (3, 4, 5), "abcd"),
        ({"x_val": PIXELS[:2], "y_val": LABELS[:2]}, (3, 4, 5), "0123"),
    ],
    ids=["grey", "columns", "names", "val"],
)
def test_layouts(archive: Path, changes: Any, shape: tuple[int, ...], names: str) -> None:
    save(archive, **changes)
    data = load_data(f"npz:{archive}")
    assert (data.info.input_shape, data.info.class_names) == (shape, tuple(names))
    assert (len(data.val), data.provenance["val_from"]) == (
        2,
        "source" if "x_val" in changes else "train",
    )


def test_other_arrays_are_used_as_they_are(archive: Path) -> None:
    values = RANDOM.normal(size=(20, 6))
    save(archive, x_train=values, x_test=values)
    data = load_data(f"npz:{archive}", val_fraction=0)
    assert isinstance(data.train, TensorSplit)
    assert torch.equal(data.train.inputs, torch.from_numpy(values).float())
    assert data.info.normalisation is None


def test_a_constant_channel_is_only_centred(archive: Path) -> None:
    pixels = PIXELS.copy()
    pixels[..., 1] = 51
    save(archive, x_train=pixels, x_test=pixels)
    data = load_data(f"npz:{archive}", val_fraction=0)
    assert isinstance(data.train, TensorSplit)
    assert not data.train.inputs[:, 1].any()


def test_relative_paths_are_looked_for_in_the_data_folder_too(archive: Path) -> None:
    data = load_data("npz:mine.npz", data_dir=archive.parent)
    assert data.info.digest == load_data(f"npz:{archive}").info.digest
    with pytest.raises(DataMissingError, match=r"archive at other\.npz or .*other\.npz"):
        load_data("npz:other.npz", data_dir=archive.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "expected arrays x_train, .*, got x_train, y_train, x_test"),
        ({"x_val": PIXELS}, "expected both x_val and y_val or neither"),
        ({"x_train": PIXELS.transpose(0, 3, 1, 2)}, r"x_train as \(N, .*got \(20, 3, 4, 5\)"),
        ({"x_test": PIXELS / 255}, "expected x_test to hold uint8 images as x_train does"),
        ({"y_train": LABELS[:5]}, "train: expected as many targets as inputs"),
        ({"y_test": LABELS + 1, "class_names": np.array(list("abcd"))}, "labels from 0 to 3, got"),
        ({"x_train": np.full((20, 2), np.nan), "x_test": np.ones((20, 2))}, "20 of 20 samples"),
        ({"y_train": np.array([None] * 20)}, "expected a NumPy archive of plain arrays"),
    ],
)
def test_arrays_that_do_not_fit(archive: Path, changes: Any, message: str) -> None:
    save(archive, **changes)
    with pytest.raises(DataError, match=message):
        load_data(f"npz:{archive}")


@pytest.mark.parametrize("damage", [lambda c: c[:100], lambda c: b"", lambda c: b"text" * 30])
def test_damaged_archives(archive: Path, damage: Any) -> None:
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DataError, match=r"mine.npz: expected a NumPy archive of plain arrays"):
        load_data(f"npz:{archive}")


def test_a_lone_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", PIXELS)
    with pytest.raises(DataError, match="expected a NumPy archive"):
        load_data(f"npz:{tmp_path / 'x.npy'}")


def test_real_subset(data_dir: Path) -> None:
    file = data_dir / "cifar10-subset.npz"
    if not file.is_file():
        pytest.skip(f"needs cifar10-subset.npz in {data_dir}")
    data = load_data(f"npz:{file}", fraction=0.1)
    assert (len(data.train), len(data.val), len(data.test)) == (900, 100, 2000)
    assert data.train.targets.bincount().tolist() == [90] * 10
    assert data.info.normalisation is not None
    # of all 50,000 images: 0.4914, 0.4822, 0.4465; a fifth of them is within a few thousandths
    expected = torch.tensor([0.4914, 0.4822, 0.4465])
    assert (torch.tensor(data.info.normalisation.mean) - expected).abs().max() < 5e-3


def test_an_array_that_states_more_than_the_file_holds_is_not_allocated(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    file = tmp_path / "mine.npz"
    with zipfile.ZipFile(file, "w") as written:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
            written.writestr(f"{name}.npy", start + header + b"\0" * 64)
    with pytest.raises(DataError, match=r"expected x_train of \(1000000000000, 3\) float64, 24000"):
        load_data(f"npz:{file}")


def test_damage_within_a_compressed_member_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    arrays = {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS, "y_test": LABELS}
    np.savez_compressed(file, **arrays)
    content = file.read_bytes()
    for start in range(40, len(content), 97):
        file.write_bytes(content[:start] + bytes(b ^ 0xFF for b in content[start : start + 4])
                         + content[start + 4 :])  # fmt: skip
        with contextlib.suppress(DataError):  # nothing else is raised
            load_data(f"npz:{file}", val_fraction=0)
