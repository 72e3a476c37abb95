"""Arrays of one's own in a NumPy archive."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoloss.datasets.catalogue import DATASETS, DataError, DataMissingError
from isoloss.datasets.info import Normalisation

NEEDED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val", "class_names", "groups_train", "groups_val", "groups_test")

LARGEST_RATIO = 1032  # of deflate, as zlib's documentation has it


@DATASETS.register(
    "npz:",
    "arrays x_train, y_train, x_test, y_test of a NumPy archive, as npz:data/mine.npz",
    default_model="resnet20",
    placeholder="FILE",
)
def npz(data_dir: Path, name: str) -> dict[str, Any]:
    """Load arrays, one row a sample; targets (N,) or (N, 1) are class labels if whole numbers.

    uint8 arrays (N, height, width, channels) or (N, height, width) are taken for images: they
    become (channels, height, width), divided by 255, and normalised channel by channel with mean
    and standard deviation of the train images. Anything else is used as it is. The archive may
    also hold x_val, y_val, class_names (strings, in the order of the labels), and integers
    groups_train, groups_val, groups_test (N,): what each sample belongs to.

    Args:
        data_dir: looked into for a relative path that does not exist.
        name: path of the archive.

    Raises:
        DataMissingError: no such file.
        DataError: not an archive, or arrays that are missing, of objects, or do not fit.
    """
    file = _find(Path(data_dir), name)
    arrays = _read(file)
    splits = ["train", "test", *(["val"] if "x_val" in arrays else [])]
    data: dict[str, Any] = {"info": {}, "facts": {"file": str(file.resolve())}}
    normalisation = None
    if arrays["x_train"].dtype == np.uint8 and arrays["x_train"].ndim in (3, 4):
        normalisation = _measure(_images(arrays["x_train"], file, "x_train"))
        data["info"]["normalisation"] = normalisation
    for split in splits:
        x: Any = arrays[f"x_{split}"]
        y = arrays[f"y_{split}"]
        if normalisation is not None:
            x = normalisation.apply(_images(x, file, f"x_{split}").float() / 255)
        data[split] = (x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)
    data["groups"] = {s: arrays[f"groups_{s}"] for s in splits if f"groups_{s}" in arrays}
    if "class_names" in arrays:
        data["info"]["class_names"] = tuple(map(str, arrays["class_names"].ravel()))
    return data


def _find(data_dir: Path, name: str) -> Path:
    try:
        candidates = [Path(name).expanduser(), data_dir / name]
    except RuntimeError as error:  # no such user
        raise DataMissingError(
            f"npz: expected the path of an archive, got {name}: {error}"
        ) from error
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        raise DataMissingError(
            f"npz: expected an archive at {' or '.join(str(file) for file in candidates)}, "
            f"got none; check the path"
        )
    return file


def _read(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            missing = [name for name in NEEDED if name not in archive]
            if missing:
                raise DataError(
                    f"{file}: expected arrays {', '.join(NEEDED)}, got {', '.join(archive.files)}"
                )
            if ("x_val" in archive) != ("y_val" in archive):
                raise DataError(f"{file}: expected both x_val and y_val or neither, got one")
            _check_sizes(archive, file)
            return {name: archive[name] for name in (*NEEDED, *OPTIONAL) if name in archive}
    except DataError:
        raise
    except Exception as error:  # a lone array is no context manager; zipfile raises all there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{file}: expected a NumPy archive of plain arrays (np.savez), cannot read it: {reason}"
        ) from error


def _check_sizes(archive: Any, file: Path) -> None:
    """Refuse arrays that state to be larger than their members, before any is allocated."""
    for name in (name for name in (*NEEDED, *OPTIONAL) if name in archive):
        member = next(m for m in archive.zip.infolist() if m.filename in (name, f"{name}.npy"))
        with archive.zip.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(stream)
        size = math.prod(shape) * dtype.itemsize
        if size > min(member.file_size, LARGEST_RATIO * member.compress_size):
            raise DataError(
                f"{file}: expected {name} of {shape} {dtype}, {size} bytes, got "
                f"{member.file_size} in {member.compress_size}; the file is damaged"
            )


def _images(array: NDArray[Any], file: Path, what: str) -> Tensor:
    """Return (N, channels, height, width) uint8."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise DataError(
            f"{file}: expected {what} to hold uint8 images as x_train does, "
            f"got {array.shape} of {array.dtype}"
        )
    pixels = torch.from_numpy(array)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.shape[-1] > 4:
        raise DataError(
            f"{file}: expected {what} as (N, height, width, channels) with up to 4 channels, "
            f"got {array.shape}; transpose it"
        )
    return pixels.permute(0, 3, 1, 2).contiguous()


def _measure(images: Tensor) -> Normalisation:
    """Return the mean and standard deviation of each channel of pixels divided by 255.

    From counts of the 256 values, which is exact and takes no floating copy of the images.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.unbind(1):
        shares = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float(shares @ values)
        deviation = float((shares @ (values - mean) ** 2).sqrt())
        means.append(mean)
        deviations.append(deviation or 1.0)  # a constant channel is only centred
    return Normalisation(
        tuple(means), tuple(deviations), "pixels divided by 255; computed on the train images"
    )
