"""Surface files of the loss-landscape code: read, continued and written.

Layout: `xcoordinates` (nx,), `ycoordinates` (ny,) of a plane, `dir_file`, and by column
(`train_loss`, `train_acc` in percent, ..) an array that is declared (nx, ny) but filled in the flat
order of (ny, nx), which is the same for squares only. Here arrays are (ny, nx), rows along y.

A point is pending where its value is -1. Eigenvalues come in a second pass, that begins with -1 in
`max_eig` and +1 in `min_eig` and goes by the first: a smallest eigenvalue may well be negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import h5py
import numpy as np

from isoloss.records.files import FileError
from isoloss.records.hdf5 import hdf5_image, open_hdf5
from isoloss.records.stored_group import StoredGroup
from isoloss.records.surface_data import SurfaceData

PENDING = -1.0
LARGEST_EIGENVALUE, SMALLEST_EIGENVALUE = "max_eig", "min_eig"
PENDING_SMALLEST_EIGENVALUE = 1.0
# Of the span of an axis: coordinates are float64 of the same formula, but for their last bits.
SAME_PLACE = 1e-9


@dataclass(frozen=True)
class Column:
    """One quantity at all points.

    Attributes:
        values: (ny, nx) or (nx,) float64, NaN where pending.
        finished: Which are not pending, same shape.
    """

    values: np.ndarray
    finished: np.ndarray


def columns_in(file: StoredGroup, shape: tuple[int, ...]) -> dict[str, Column]:
    """Return the columns of an open file.

    Any array of floating-point numbers with as many entries as there are points is one. Those of
    which no point is finished are left out where others have been begun, such as the eigenvalues
    before their pass.

    Args:
        file: The file.
        shape: (ny, nx), or (nx,) of a curve.

    Raises:
        FileError: If a column cannot be read.
    """
    held = {}
    for name in file.names():
        if name.endswith("coordinates") or not file.is_array(name):
            continue
        lengths = file.lengths(name)
        if lengths is not None and math.prod(lengths) == math.prod(shape):
            held[name] = file.array(name).reshape(shape).astype(np.float64)
    columns = {}
    for name, values in held.items():
        finished = ~_pending(name, held)
        columns[name] = Column(np.where(finished, values, np.nan), finished)
    return {n: c for n, c in columns.items() if c.finished.any()} or columns


def _pending(name: str, held: Mapping[str, np.ndarray]) -> np.ndarray:
    if name == SMALLEST_EIGENVALUE:
        if LARGEST_EIGENVALUE not in held:
            return np.zeros(held[name].shape, dtype=bool)
        name = LARGEST_EIGENVALUE
    return held[name] == PENDING


def finished_points(
    path: Path | str, x: np.ndarray, y: np.ndarray | None, columns: Sequence[str]
) -> dict[int, tuple[float, ...]]:
    """Return the finished points of a surface file, as a store of ours keeps them.

    Args:
        path: A surface file of the loss-landscape code.
        x: Coordinates that its first axis must have, (nx,).
        y: Those of its second, (ny,); None for a curve.
        columns: Names of a point's values.

    Returns:
        The values of `columns` by the point's number, iy nx + ix (see `SurfaceStore`), of each
        point that is finished in all of them.

    Raises:
        FileError: If the file is one of ours, lacks a column, has other axes, or is damaged.
    """
    with open_hdf5(Path(path)) as file:
        if file.ours:
            raise FileError(
                f"expected a surface of the loss-landscape code, got one of Isoloss: {path}\n"
                "the command that made it goes on with it"
            )
        for name, points in (("xcoordinates", x), ("ycoordinates", y)):
            _check_axis(file, name, points)
        held = columns_in(file, x.shape if y is None else (len(y), len(x)))
    if missing := [name for name in columns if name not in held]:
        raise FileError(
            f"expected {', '.join(missing)} in {path}, got {', '.join(held) or 'no column'}\n"
            "leave out what asks for more, or begin a surface of your own"
        )
    finished = np.all([held[name].finished for name in columns], axis=0).ravel()
    values = [held[name].values.ravel() for name in columns]
    return {
        int(point): tuple(float(column[point]) for column in values)
        for point in np.flatnonzero(finished)
    }


def _check_axis(file: StoredGroup, name: str, points: np.ndarray | None) -> None:
    found = file.array(name, (None,)) if name in file else None
    if points is None or found is None:
        if points is not found:
            raise FileError(
                f"expected a {'curve' if points is None else 'plane'}, got {file.path} "
                f"{'without' if found is None else 'with'} `{name}`"
            )
        return
    span = float(np.ptp(points)) or 1.0
    if found.shape != points.shape or not (np.abs(found - points) <= SAME_PLACE * span).all():
        raise FileError(
            f"expected {_shown(points)} as `{name}` of {file.path}, got {_shown(found)}\n"
            f"ask for those points, as min:max:count"
        )


def _shown(points: np.ndarray) -> str:
    if not len(points):
        return "no point"
    return f"{len(points)} points from {points[0]:g} to {points[-1]:g}"


def direction_file(path: Path | str) -> Path | None:
    """Return the direction file that a surface file names, None if it does not lie beside it."""
    path = Path(path)
    with open_hdf5(path) as file:
        named = file.words("dir_file") if "dir_file" in file else None
    if not named:
        return None
    beside = path.with_name(PureWindowsPath(named).name or path.name)
    try:
        return beside if beside != path and beside.is_file() else None
    except OSError:  # a name that is too long
        return None


def surface_image(data: SurfaceData, directions: str) -> bytes:
    """Return a surface as a file of the loss-landscape code.

    Of several planes the first. A point that is finished is written as it is, NaN too; one that is
    not, as pending.

    Args:
        data: The surface or curve.
        directions: Name of the direction file.
    """

    def fill(file: h5py.File) -> None:
        file["dir_file"] = directions
        file["xcoordinates"] = data.x.astype(np.float64)
        if data.y is not None:
            file["ycoordinates"] = data.y.astype(np.float64)
        for name, values in data.values.items():
            pending = PENDING_SMALLEST_EIGENVALUE if name == SMALLEST_EIGENVALUE else PENDING
            array = np.where(data.done, values.astype(np.float64), pending)
            file[name] = array if data.y is None else array.ravel().reshape(array.shape[::-1])

    return hdf5_image(fill)


def directions_image(directions: Mapping[str, Sequence[np.ndarray]]) -> bytes:
    """Return directions, arrays by axis, as a direction file of the loss-landscape code."""

    def fill(file: h5py.File) -> None:
        for axis, arrays in directions.items():
            group = file.create_group(f"{axis}direction")
            for number, array in enumerate(arrays):
                group[str(number)] = array

    return hdf5_image(fill)
