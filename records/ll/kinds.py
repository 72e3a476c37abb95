"""Which of the kinds of HDF5 files one is."""

from __future__ import annotations

from pathlib import Path

from isoloss.records.hdf5 import open_hdf5
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
