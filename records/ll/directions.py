"""Directions as arrays, of direction files of the loss-landscape code and of surface files of ours.

Layout of both: groups `xdirection` and `ydirection`, in each the datasets `0` to `n-1`, an array
for each parameter (`dir_type` weights) or each entry of the state dictionary (states, which have
entries without dimensions) in the order of the network. HDF5 lists names as text, 10 before 2:
they are read by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5
from isoloss.records.stored_group import StoredGroup

AXES = ("x", "y")
EXPLAINED = "explained_variance_ratio_"


@dataclass(frozen=True)
class DirectionFile:
    """What a direction file holds.

    Attributes:
        shapes: By axis, the shape of each array.
        explained: Share of the variance of a trajectory along each axis, for PCA directions.
    """

    shapes: Mapping[str, Sequence[tuple[int, ...]]]
    explained: np.ndarray | None


def read_direction(path: Path | str, axis: str = "x") -> list[np.ndarray]:
    """Return a stored direction, in the network's order.

    Args:
        path: A direction file of the loss-landscape code, or a surface file of ours.
        axis: `"x"` or `"y"`.

    Raises:
        FileError: If the file has no such direction, keeps its recipe only (ours, when large), or
            is damaged.
    """
    with open_hdf5(Path(path)) as file:
        return direction_in(file, axis)


def direction_in(file: StoredGroup, axis: str) -> list[np.ndarray]:
    """Return the same of an open file."""
    name = f"{axis}direction"
    if axis not in AXES or name not in file:
        there = [f"{one}direction" for one in AXES if f"{one}direction" in file]
        found = ", ".join(there or sorted(file.names())[:8]) or "nothing"
        raise FileError(f"expected a direction `{name}` in {file.path}, got {found}")
    group = file.group(name)
    names = group.names()
    if not names and group.text("recipe") is not None:
        raise FileError(
            f"expected the arrays of `{name}` in {file.path}, got its recipe and digest: it is too "
            "large to be stored\nmake it again from its seed, with the settings of that file"
        )
    if not names or set(names) != {str(number) for number in range(len(names))}:
        shown = ", ".join(sorted(names)[:8]) or "nothing"
        raise FileError(
            f"expected arrays named 0 to {max(len(names) - 1, 0)} in `{name}` of {file.path}, got "
            f"{shown if shown.isprintable() else ascii(shown)}"
        )
    arrays = [group.array(str(number)) for number in range(len(names))]
    if not all(np.isfinite(array).all() for array in arrays):
        number = next(i for i, array in enumerate(arrays) if not np.isfinite(array).all())
        raise FileError(
            f"expected finite numbers in `{name}/{number}` of {file.path}, got NaN or infinity"
        )
    return arrays


def read_direction_file(path: Path | str) -> DirectionFile:
    """Return what a direction file of the loss-landscape code holds.

    Raises:
        FileError: As `read_direction`, and for explained variances that are not one for each axis.
    """
    with open_hdf5(Path(path)) as file:
        there = [axis for axis in AXES if f"{axis}direction" in file]
        shapes = {axis: [a.shape for a in direction_in(file, axis)] for axis in there or ["x"]}
        explained = file.array(EXPLAINED, (len(shapes),)) if EXPLAINED in file else None
        return DirectionFile(shapes, explained)
