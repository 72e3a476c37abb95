from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from isoloss.datasets import DataError, DataMissingError, DownloadError, TensorSplit, load_data

CASES = [("cifar10", "CIFAR10", 10), ("cifar100", "CIFAR100", 100)]
COUNT = 200  # images in a file


@pytest.fixture(params=CASES, ids=[case[0] for case in CASES])
def small(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path, Any]:
    """Tiny files in the official layout, and torchvision's class told their checksums."""
    name, kind, classes = request.param
    source = getattr(torchvision.datasets, kind)
    folder = tmp_path / source.base_folder
    folder.mkdir()
    label = "labels" if classes == 10 else "fine_labels"
    pixels = np.arange(COUNT * 3072, dtype=np.int64).reshape(COUNT, 3072) % 251

    def write(file: str, content: Any) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    for part in ("train_list", "test_list"):
        batch = {"data": pixels.astype(np.uint8), label: [i % classes for i in range(COUNT)]}
        files = [[file, write(file, batch)] for file, _ in getattr(source, part)]
        monkeypatch.setattr(source, part, files)
    names = {source.meta["key"]: [f"class {i}" for i in range(classes)]}
    md5 = write(source.meta["filename"], names)
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5})
    return name, tmp_path, source


def test_small_files_are_read_and_normalised(small: tuple[str, Path, Any]) -> None:
    name, folder, source = small
    data = load_data(name, data_dir=folder, val_fraction=0)
    assert isinstance(data.test, TensorSplit)
    assert (len(data.train), len(data.test)) == (COUNT * len(source.train_list), COUNT)
    classes = 10 if name == "cifar10" else 100
    assert data.info.class_names == tuple(f"class {i}" for i in range(classes))
    assert torch.equal(data.test.targets, torch.arange(COUNT) % classes)
    raw = (torch.arange(COUNT * 3072) % 251).view(COUNT, 3, 32, 32)  # planes of red, green, blue
    torch.testing.assert_close(
        data.info.denormalise(data.test.inputs) * 255, raw.float(), rtol=0, atol=1e-3
    )


def test_missing_files_are_named_with_folder_and_address(small: tuple[str, Path, Any]) -> None:
    name, folder, source = small
    with pytest.raises(DataMissingError) as caught:
        load_data(name, data_dir=folder / "nowhere")
    files = [file for file, _ in source.train_list + source.test_list] + [source.meta["filename"]]
    expected = [*files, str(folder / "nowhere" / source.base_folder), "`download`", source.url]
    assert all(text in str(caught.value) for text in expected)
    assert len(str(caught.value).splitlines()) <= 3


def test_other_files_are_never_unpickled(small: tuple[str, Path, Any]) -> None:
    name, folder, source = small
    for file in (source.test_list[0][0], source.meta["filename"]):
        path = folder / source.base_folder / file
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(DataError, match="expected the official file with MD5") as caught:
            load_data(name, data_dir=folder)
        assert str(path) in str(caught.value)
        path.write_bytes(content)


def test_download(small: tuple[str, Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    name, folder, source = small
    files = {file.name: file.read_bytes() for file in (folder / source.base_folder).iterdir()}

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        assert (url, filename) == (source.url, source.filename)
        (Path(root) / source.base_folder).mkdir()
        for file, content in files.items():
            (Path(root) / source.base_folder / file).write_bytes(content)

    where = "torchvision.datasets.cifar.download_and_extract_archive"
    monkeypatch.setattr(where, fetch)
    data = load_data(name, data_dir=folder / "new", download=True)
    assert data.info.digest == load_data(name, data_dir=folder).info.digest
    assert [path.name for path in (folder / "new").iterdir()] == [source.base_folder]

    def fail(*args: Any, **keywords: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(where, fail)
    with pytest.raises(DownloadError, match=f"{source.filename}\nfrom {source.url}: no route"):
        load_data(name, data_dir=folder / "other", download=True)
    assert not (folder / "other").exists()
