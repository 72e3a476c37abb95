"""Which of the kinds of HDF5 files one is."""

from __future__ import annotations

import math
from pathlib import Path

from isoloss.records.hdf5 import open_hdf5
from isoloss.records.ll.directions import read_direction_file
from isoloss.records.ll.projection import read_projection
from isoloss.records.stored_group import StoredGroup

SURFACE, DIRECTIONS, PROJECTION, OTHER = "LL surface", "LL directions", "LL projection", "other"


def kind_of(path: Path | str) -> str:
    """Return what an HDF5 file holds.

    Returns:
        `"surface"` or `"hessian"` for files of ours; `"LL surface"`, `"LL directions"` (PCA
        directions, too) or `"LL projection"` (a trajectory's coordinates); `"other"`.

    Raises:
        FileError: If it is missing or no HDF5 file that can be read.
    """
    with open_hdf5(Path(path)) as file:
        return kind_in(file)


def kind_in(file: StoredGroup) -> str:
    """Return the same of an open file."""
    if (ours := file.text("isoloss")) is not None:
        return ours
    if "xcoordinates" in file:
        return SURFACE
    if "xdirection" in file or "ydirection" in file:
        return DIRECTIONS
    if "proj_xcoord" in file:
        return PROJECTION
    return OTHER


def described(path: Path | str) -> str:
    """Return in words what an HDF5 file holds, numbers that tell it from others included.

    Raises:
        FileError: If it is missing or damaged.
    """
    kind = kind_of(path)
    if kind == DIRECTIONS:
        found = read_direction_file(path)
        shapes = next(iter(found.shapes.values()))
        count = sum(math.prod(shape) for shape in shapes)
        explained = ""
        if found.explained is not None:
            shares = " and ".join(f"{100 * share:.3g} %" for share in found.explained)
            explained = f", principal components that explain {shares} of a trajectory's variance"
        return (
            f"a direction file of the loss-landscape code, {path}: {' and '.join(found.shapes)}, "
            f"{len(shapes)} arrays of {count:,} numbers{explained}"
        )
    if kind == PROJECTION:
        found_points = len(read_projection(path).x)
        return (
            f"a projection file of the loss-landscape code, {path}: the coordinates of "
            f"{found_points:,} checkpoints on a plane"
        )
    if kind == SURFACE:
        return f"a surface of the loss-landscape code, {path}"
    if kind == OTHER:
        with open_hdf5(Path(path)) as file:
            names = ", ".join(sorted(file.names())[:8])
        shown = names if names.isprintable() else ascii(names)
        return f"{path} with {shown[:200] or 'nothing in it'}"
    return f"a {kind} file of Isoloss, {path}"
