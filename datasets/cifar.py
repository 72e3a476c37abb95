"""CIFAR-10 and CIFAR-100, read by torchvision (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isoloss.datasets.catalogue import DATASETS, DataError, DataMissingError
from isoloss.datasets.downloads import download_files
from isoloss.datasets.info import DataInfo, Normalisation


@DATASETS.register(
    "cifar10", "60,000 colour photographs, 32x32, 10 classes", default_model="resnet20"
)
def cifar10(data_dir: Path, download: bool = False) -> dict[str, Any]:
    """Load CIFAR-10, (3, 32, 32), from ``data_dir/cifar-10-batches-py``.

    Normalised by means 0.4914, 0.4822, 0.4465 and standard deviations 0.2470, 0.2435, 0.2616.

    Raises:
        DataMissingError: names the files, the folder and where to get them.
        DataError: a file that is not the official one.
        DownloadError: asked to fetch them and could not.
    """
    from torchvision.datasets import CIFAR10  # torchvision takes a second to import

    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return _load(CIFAR10, "cifar10", Path(data_dir), download, mean, std)


@DATASETS.register(
    "cifar100", "60,000 colour photographs, 32x32, 100 classes", default_model="resnet20"
)
def cifar100(data_dir: Path, download: bool = False) -> dict[str, Any]:
    """Load CIFAR-100 with its fine labels, (3, 32, 32), from ``data_dir/cifar-100-python``.

    Normalised by means 0.5071, 0.4865, 0.4409 and standard deviations 0.2673, 0.2564, 0.2762.

    Raises:
        DataMissingError: names the files, the folder and where to get them.
        DataError: a file that is not the official one.
        DownloadError: asked to fetch them and could not.
    """
    from torchvision.datasets import CIFAR100

    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return _load(CIFAR100, "cifar100", Path(data_dir), download, mean, std)


def _load(
    source: Any,
    name: str,
    data_dir: Path,
    download: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, Any]:
    folder = data_dir / source.base_folder
    checksums = {folder / file: md5 for file, md5 in source.train_list + source.test_list}
    checksums[folder / source.meta["filename"]] = source.meta["md5"]
    missing = [file for file in checksums if not file.is_file()]
    if missing and download:
        _download(source, name, folder, list(checksums))
    elif missing:
        raise DataMissingError(
            f"{name}: expected {', '.join(file.name for file in missing)} in {folder}\n"
            f"point `data_dir` at the folder that holds {source.base_folder}, or fetch them with "
            f"`download` (from {source.url}, unpacked)"
        )
    _check(checksums, source.url)
    normalisation = Normalisation(
        mean, std, "pixels divided by 255; usual values of the train split"
    )

    train, test = (source(str(data_dir), train=train) for train in (True, False))

    def split(loaded: Any) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(loaded.data).permute(0, 3, 1, 2).contiguous()
        return normalisation.apply(pixels.float() / 255), torch.tensor(loaded.targets)

    info = DataInfo(
        input_shape=(3, 32, 32),
        num_classes=len(train.classes),
        class_names=tuple(train.classes),
        num_features=3 * 32 * 32,
        normalisation=normalisation,
    )
    return {"train": split(train), "test": split(test), "info": info}


def _check(checksums: dict[Path, str], address: str) -> None:
    """Compare files with their official MD5: they are pickles, so nothing else is opened."""
    from torchvision.datasets.utils import check_integrity

    for file, md5 in checksums.items():
        if not check_integrity(str(file), md5):
            raise DataError(
                f"{file}: expected the official file with MD5 {md5}, got {file.stat().st_size} "
                f"bytes of another; fetch it again from {address}"
            )


def _download(source: Any, name: str, folder: Path, files: list[Path]) -> None:
    def fetch(temporary: Path) -> dict[Path, Path]:
        source(str(temporary), download=True)
        return {temporary / source.base_folder / file.name: file for file in files}

    download_files(name, fetch, folder, files=source.filename, address=source.url)
