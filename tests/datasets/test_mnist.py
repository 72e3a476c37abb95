from __future__ import annotations

import struct
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.datasets import FashionMNIST

from isoloss.datasets import DataError, DataMissingError, DownloadError, load_data

FILES = {
    "train-images-idx3-ubyte": (60, 28, 28),
    "train-labels-idx1-ubyte": (60,),
    "t10k-images-idx3-ubyte": (20, 28, 28),
    "t10k-labels-idx1-ubyte": (20,),
}


def idx(shape: tuple[int, ...]) -> bytes:
    count = int(torch.tensor(shape).prod())
    values = bytes(i % (251 if len(shape) > 1 else 10) for i in range(count))
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + values


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tiny MNIST in the official format."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, shape in FILES.items():
        (raw / name).write_bytes(idx(shape))
    return tmp_path


def test_small_files_are_read_and_normalised(small: Path) -> None:
    data = load_data("mnist", data_dir=small, val_fraction=0.5)
    assert (len(data.train), len(data.val), len(data.test)) == (30, 30, 20)
    raw = (torch.arange(20 * 784) % 251).view(20, 1, 28, 28)
    # one rounding each of / 255, - 0.1307, / 0.3081 and back, on values up to 3
    torch.testing.assert_close(data.info.denormalise(data.test.inputs) * 255, raw.float())
    assert data.info.normalisation is not None
    assert (data.info.normalisation.mean, data.info.normalisation.std) == ((0.1307,), (0.3081,))


def test_another_normalisation_is_applied_and_stated(small: Path) -> None:
    data = load_data("mnist", {"mean": 0.5, "std": 0.5}, small)
    raw = (torch.arange(20 * 784) % 251).view(20, 1, 28, 28)
    torch.testing.assert_close(data.test.inputs, raw / 127.5 - 1)
    stated = data.info.normalisation
    assert stated is not None
    assert (stated.mean, stated.std) == ((0.5,), (0.5,))
    assert "as given" in stated.source
    for wrong in ({"std": 0}, {"std": -0.5}, {"mean": float("nan")}):
        with pytest.raises(DataError, match="mnist: expected a finite mean and a std above 0"):
            load_data("mnist", wrong, small)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_missing_files_are_named_with_folder_and_address(
    tmp_path: Path, name: str, folder: str
) -> None:
    with pytest.raises(DataMissingError) as caught:
        load_data(name, data_dir=tmp_path)
    message = str(caught.value)
    expected = [*FILES, str(tmp_path / folder / "raw"), "`data_dir`", "`download`", "http"]
    assert all(text in message for text in expected)
    assert len(message.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


def test_a_single_missing_file_is_the_one_named(small: Path) -> None:
    (small / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataMissingError, match=r"expected t10k-labels-idx1-ubyte in"):
        load_data("mnist", data_dir=small)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "expected .* bytes for .*, got .*damaged"),
        (lambda content: content[:4] + b"\0\0\0\0" + content[8:], "expected samples, got .* 0"),
        (lambda content: content + b"x", "expected .* bytes for .*, got .*damaged"),
        (lambda content: content[:6], "expected an unpacked idx. file"),
        (lambda content: b"", "starts with nothing"),
        (lambda content: b"\x1f\x8b\x08\x08" + content[4:], "starts with 1f8b0808"),
    ],
    ids=["short", "no samples", "long", "header", "empty", "gzip"],
)
def test_damaged_files_are_named(small: Path, name: str, damage, message: str) -> None:
    file = small / "MNIST/raw" / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load_data("mnist", data_dir=small)
    assert str(file) in str(caught.value)


def test_labels_out_of_range_and_differing_lengths_are_refused(small: Path) -> None:
    file = small / "MNIST/raw/train-labels-idx1-ubyte"
    file.write_bytes(idx((60,))[:-1] + b"\x0a")
    with pytest.raises(DataError, match="train: expected labels from 0 to 9, got 10 at index 59"):
        load_data("mnist", data_dir=small)
    file.write_bytes(idx((59,)))
    with pytest.raises(DataError, match="train: expected as many targets as inputs"):
        load_data("mnist", data_dir=small)


@pytest.mark.parametrize("existing", [True, False])
def test_failed_download_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    folder = tmp_path if existing else tmp_path / "new" / "data"

    def half(url: str, download_root: str, filename: str, md5: str) -> None:
        (Path(download_root) / filename).write_bytes(b"half")
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", half)
    with pytest.raises(DownloadError, match="no route to host") as caught:
        load_data("fashion-mnist", data_dir=folder, download=True)
    assert len(str(caught.value).splitlines()) <= 3
    assert str(folder / "FashionMNIST" / "raw") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_download_fills_the_folder_and_is_not_repeated(
    small: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("target") / "data"
    calls = []

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        calls.append(filename)
        file = filename.removesuffix(".gz")
        (Path(download_root) / file).write_bytes((small / "MNIST/raw" / file).read_bytes())

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    for _ in range(2):
        data = load_data("mnist", data_dir=folder, download=True)
    assert data.info.digest == load_data("mnist", data_dir=small).info.digest
    assert len(calls) == 4
    assert sorted(path.name for path in folder.rglob("*ubyte")) == sorted(FILES)
    assert [path.name for path in folder.iterdir()] == ["MNIST"]


@pytest.mark.parametrize(
    ("name", "class_names"),
    [("mnist", tuple("0123456789")), ("fashion-mnist", tuple(FashionMNIST.classes))],
)
def test_real_data(data_dir: Path, name: str, class_names: tuple[str, ...]) -> None:
    folder = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    if not (data_dir / folder).is_dir():
        pytest.skip(f"needs {folder}/raw in {data_dir}; point ISOLOSS_DATA at a folder with it")
    data = load_data(name, data_dir=data_dir)
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.info.class_names == class_names
    inputs = torch.cat([split.inputs for split in (data.train, data.val)])
    # the stated values have four digits: 5e-5 / 0.3 each in mean and standard deviation
    assert inputs.mean().abs() < 5e-4
    assert (inputs.std() - 1).abs() < 5e-4
    # official counts of a class: 1,000 in Fashion-MNIST's test split, 980 zeros in MNIST's
    assert data.test.targets.bincount()[0] == (980 if name == "mnist" else 1000)
