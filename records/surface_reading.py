"""What a surface file says, ours or one of the loss-landscape code, checked as it is read."""

from __future__ import annotations

import numpy as np

from isoloss.records.files import FileError
from isoloss.records.ll.surface import columns_in
from isoloss.records.stored_group import StoredGroup
from isoloss.records.surface_data import Repeats, SurfaceData
from isoloss.records.trajectories import GROUP as TRAJECTORIES
from isoloss.records.trajectories import read_trajectories

# What a file of ours holds beside its columns.
NO_COLUMNS = (
    "xcoordinates", "ycoordinates", "done", "dir_file",
    "origin", "repeats", "xdirection", "ydirection", TRAJECTORIES,
)  # fmt: skip


def surface_in(file: StoredGroup) -> SurfaceData:
    """Return the surface in an open file.

    How files of the loss-landscape code differ from ours, `records.ll.surface` says.

    Raises:
        FileError: If it holds no surface, or a damaged one.
    """
    ours = file.text("isoloss")
    if "xcoordinates" not in file or ours not in (None, "surface"):
        found = ", ".join(sorted(file.names())[:8]) or "nothing in it"
        raise FileError(
            f"expected a surface file with `xcoordinates`, got {file.path} with {found}"
        )
    x = _axis(file, "xcoordinates")
    y = _axis(file, "ycoordinates") if "ycoordinates" in file else None
    shape = x.shape if y is None else (len(y), len(x))
    read = _read_values if ours else _read_foreign_values
    values, done = read(file, shape)
    if not values:
        raise FileError(f"expected values of shape {shape} in {file.path}, got none")
    repeats = None
    if ours and "repeats" in file:
        repeats = _read_repeats(file.group("repeats"), shape)
    if repeats is not None and repeats.values.keys() != values.keys():
        raise FileError(
            f"expected {', '.join(values)} in `repeats` of {file.path}, got "
            f"{', '.join(repeats.values) or 'none'}: the file is damaged\n"
            "delete it and run the command again"
        )
    origin = {}
    if "origin" in file:
        group = file.group("origin")
        origin = {name: group.number(name) for name in group.names()}
    return SurfaceData(
        x,
        y,
        values,
        done,
        origin,
        file.json("settings"),
        file.attribute("cosine"),
        repeats,
        read_trajectories(file) if ours and y is not None else {},
    )


def _axis(file: StoredGroup, name: str) -> np.ndarray:
    points = file.array(name, (None,))
    if not len(points) or not np.isfinite(points).all() or (np.diff(points) == 0).any():
        raise FileError(
            f"expected distinct finite coordinates in `{name}` of {file.path}, got "
            f"{np.array2string(points, threshold=6, edgeitems=3, precision=4)}\n"
            f"{file.remedy}"
        )
    return points


def _read_values(
    file: StoredGroup, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return columns and finished points of a file of ours."""
    values = {name: file.array(name, shape) for name in file.names() if name not in NO_COLUMNS}
    return values, file.array("done", shape).astype(bool)


def _read_foreign_values(
    file: StoredGroup, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the same of another program; a point is finished where all columns are."""
    columns = columns_in(file, shape)
    values = {name: column.values for name, column in columns.items()}
    return values, np.all([column.finished for column in columns.values()], axis=0)


def _read_repeats(group: StoredGroup, shape: tuple[int, ...]) -> Repeats:
    done = group.array("done", (None, *shape)).astype(bool)
    every = (len(done), *shape)
    names = [name for name in group.names() if group.is_array(name)]
    cosines = group.array("cosines", (len(done),)) if "cosines" in names else None
    values = {n: group.array(n, every) for n in names if n not in ("done", "cosines")}
    return Repeats(values, done, cosines)
