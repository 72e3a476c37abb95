"""Single NumPy arrays (`.npy`), written by anybody: numbers are read, nothing is unpickled."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from isoloss.records.files import FileError

NUMBERS = "fiubc"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path | str) -> np.ndarray:
    """Return the array of numbers in a file.

    Raises:
        FileError: If the file is missing, no NumPy array, cut short, or holds anything else than
            numbers: Python objects would have to be unpickled, which runs code of their writer's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"expected a NumPy array, got no file at {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, columns_first, dtype = _HEADERS[version](file)
        except Exception as error:  # the header is Python's text, which may be anything
            raise FileError(
                f"expected a NumPy array (.npy), got {path} with another head"
            ) from error
        if dtype.hasobject:
            raise FileError(
                f"expected numbers in {path}, got Python objects, which would have to be "
                "unpickled: that runs code of whoever wrote them\n"
                "save them as numbers: numpy.save(file, numpy.asarray(values, dtype=float))"
            )
        if dtype.kind not in NUMBERS:
            raise FileError(f"expected numbers in {path}, got {dtype}")
        wanted, there = dtype.itemsize * math.prod(shape), size - file.tell()
        if wanted != there:
            raise FileError(
                f"expected {wanted} bytes of numbers of shape {shape} in {path}, got {there}: it "
                "is cut short or damaged"
            )
        array = np.frombuffer(file.read(), dtype)
    return array.reshape(shape, order="F" if columns_first else "C")


def npy_bytes(array: np.ndarray) -> bytes:
    """Return an array of numbers as such a file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
