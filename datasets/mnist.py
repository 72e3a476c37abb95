"""MNIST and Fashion-MNIST, read by torchvision from ``data_dir/MNIST/raw`` and the like."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

from torch import Tensor

from datasets.catalogue import DATASETS, DataError, DataMissingError
from datasets.downloads import download_files
from datasets.info import DataInfo, Normalisation


@DATASETS.register(
    "mnist", "70,000 handwritten digits, 28x28 (LeCun et al. 1998)", default_model="fashion-cnn"
)
def mnist(data_dir: Path, download: bool = False) -> dict[str, Any]:
    """Loads MNIST, (1, 28, 28), normalised by mean 0.1307 and standard deviation 0.3081.

    Raises:
        DataMissingError: names the files, the folder and where to get them.
        DataError: a truncated or foreign file.
        DownloadError: asked to fetch them and could not.
    """
    from torchvision.datasets import MNIST  # torchvision takes a second to import

    names = tuple(str(digit) for digit in range(10))
    return _load(MNIST, "mnist", data_dir, download, names, mean=0.1307, std=0.3081)


@DATASETS.register(
    "fashion-mnist",
    "70,000 articles of clothing, 28x28 (Xiao et al. 2017)",
    default_model="fashion-cnn",
)
def fashion_mnist(data_dir: Path, download: bool = False) -> dict[str, Any]:
    """Loads Fashion-MNIST, (1, 28, 28), normalised by mean 0.2860, standard deviation 0.3530.

    Raises:
        DataMissingError: names the files, the folder and where to get them.
        DataError: a truncated or foreign file.
        DownloadError: asked to fetch them and could not.
    """
    from torchvision.datasets import FashionMNIST

    names = tuple(FashionMNIST.classes)
    return _load(FashionMNIST, "fashion-mnist", data_dir, download, names, mean=0.2860, std=0.3530)


def _load(
    source: Any,
    name: str,
    data_dir: Path,
    download: bool,
    class_names: tuple[str, ...],
    mean: float,
    std: float,
) -> dict[str, Any]:
    folder = Path(data_dir) / source.__name__ / "raw"
    files = [folder / archive.removesuffix(".gz") for archive, _ in source.resources]
    missing = [file for file in files if not file.is_file()]
    if missing and download:
        _download(source, name, folder, files)
    elif missing:
        raise DataMissingError(
            f"{name}: expected {', '.join(file.name for file in missing)} in {folder}\n"
            f"point --data-dir at the folder that holds {source.__name__}/raw, or fetch them with "
            f"--download (from {source.mirrors[0]}, unpacked)"
        )
    for file in files:
        _check_idx(file)
    normalisation = Normalisation(
        (mean,), (std,), "pixels divided by 255; usual values of the train split"
    )

    def split(train: bool) -> tuple[Tensor, Tensor]:
        loaded = source(str(data_dir), train=train)
        return normalisation.apply(loaded.data[:, None].float() / 255), loaded.targets

    info = DataInfo(
        input_shape=(1, 28, 28),
        num_classes=len(class_names),
        class_names=class_names,
        num_features=28 * 28,
        normalisation=normalisation,
    )
    return {"train": split(True), "test": split(False), "info": info}


def _check_idx(file: Path) -> None:
    """Compares a file with what its own header announces.

    idx format: two zero bytes, 8 for uint8, the number of dimensions, each size as a big-endian
    uint32, then the bytes.
    """
    dimensions = 3 if "idx3" in file.name else 1
    with file.open("rb") as stream:
        header = stream.read(4 * (1 + dimensions))
    if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 * (1 + dimensions):
        raise DataError(
            f"{file}: expected an unpacked idx{dimensions} file of bytes, got one that starts "
            f"with {header[:4].hex() or 'nothing'}; fetch it again"
        )
    sizes = struct.unpack(f">{dimensions}I", header[4:])
    expected, got = len(header) + math.prod(sizes), file.stat().st_size
    if expected != got:
        raise DataError(
            f"{file}: expected {expected} bytes for {' x '.join(map(str, sizes))}, got {got}; "
            f"the file is damaged, fetch it again"
        )


def _download(source: Any, name: str, folder: Path, files: list[Path]) -> None:
    def fetch(temporary: Path) -> dict[Path, Path]:
        source(str(temporary), train=True, download=True)
        return {temporary / source.__name__ / "raw" / file.name: file for file in files}

    archives = ", ".join(archive for archive, _ in source.resources)
    download_files(name, fetch, folder, files=archives, address=source.mirrors[0])
