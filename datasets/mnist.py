"""MNIST and Fashion-MNIST, read by torchvision from ``data_dir/MNIST/raw`` and the like."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

from torch import Tensor

from isoloss.datasets.catalogue import DATASETS, DataError, DataMissingError
from isoloss.datasets.downloads import download_files
from isoloss.datasets.info import DataInfo, Normalisation

# Mean and standard deviation of all train pixels divided by 255.
DIGITS = (0.1307, 0.3081)
CLOTHES = (0.2860, 0.3530)


@DATASETS.register(
    "mnist", "70,000 handwritten digits, 28x28 (LeCun et al. 1998)", default_model="fashion-cnn"
)
def mnist(
    data_dir: Path, mean: float = DIGITS[0], std: float = DIGITS[1], download: bool = False
) -> dict[str, Any]:
    """Load MNIST, (1, 28, 28), normalised as (pixel / 255 - mean) / std.

    Args:
        data_dir: holds ``MNIST/raw``.
        mean: that of the train split unless given.
        std: likewise.
        download: whether missing files may be fetched.

    Raises:
        DataMissingError: names the files, the folder and where to get them.
        DataError: a truncated or foreign file, or a normalisation that is none.
        DownloadError: asked to fetch them and could not.
    """
    from torchvision.datasets import MNIST  # torchvision takes a second to import

    names = tuple(str(digit) for digit in range(10))
    return _load(
        MNIST, "mnist", data_dir, download, names, _normalisation("mnist", (mean, std), DIGITS)
    )


@DATASETS.register(
    "fashion-mnist",
    "70,000 articles of clothing, 28x28 (Xiao et al. 2017)",
    default_model="fashion-cnn",
)
def fashion_mnist(
    data_dir: Path, mean: float = CLOTHES[0], std: float = CLOTHES[1], download: bool = False
) -> dict[str, Any]:
    """Load Fashion-MNIST, (1, 28, 28), normalised as (pixel / 255 - mean) / std.

    Args:
        data_dir: holds ``FashionMNIST/raw``.
        mean: that of the train split unless given; 0.5 with std 0.5 makes pixels -1 to 1.
        std: likewise.
        download: whether missing files may be fetched.

    Raises:
        DataMissingError: names the files, the folder and where to get them.
        DataError: a truncated or foreign file, or a normalisation that is none.
        DownloadError: asked to fetch them and could not.
    """
    from torchvision.datasets import FashionMNIST

    names = tuple(FashionMNIST.classes)
    normalisation = _normalisation("fashion-mnist", (mean, std), CLOTHES)
    return _load(FashionMNIST, "fashion-mnist", data_dir, download, names, normalisation)


def _normalisation(
    name: str, chosen: tuple[float, float], usual: tuple[float, float]
) -> Normalisation:
    mean, std = chosen
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise DataError(f"{name}: expected a finite mean and a std above 0, got {mean} and {std}")
    whose = "usual values of the train split" if chosen == usual else "mean and std as given"
    return Normalisation((mean,), (std,), f"pixels divided by 255; {whose}")


def _load(
    source: Any,
    name: str,
    data_dir: Path,
    download: bool,
    class_names: tuple[str, ...],
    normalisation: Normalisation,
) -> dict[str, Any]:
    folder = Path(data_dir) / source.__name__ / "raw"
    files = [folder / archive.removesuffix(".gz") for archive, _ in source.resources]
    missing = [file for file in files if not file.is_file()]
    if missing and download:
        _download(source, name, folder, files)
    elif missing:
        raise DataMissingError(
            f"{name}: expected {', '.join(file.name for file in missing)} in {folder}\n"
            f"point `data_dir` at the folder that holds {source.__name__}/raw, or fetch them with "
            f"`download` (from {source.mirrors[0]}, unpacked)"
        )
    for file in files:
        _check_idx(file)

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
    """Compare a file with what its own header announces.

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
    if not all(sizes):
        raise DataError(
            f"{file}: expected samples, got a header of {' x '.join(map(str, sizes))}; "
            f"the file is damaged, fetch it again"
        )
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
