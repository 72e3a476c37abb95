"""The HDF5 file of a surface: written while points come in, resumed, read by everything that draws.

Layout (arrays are indexed `[iy, ix]`, shape (ny, nx), or (nx,) for a curve; pending values NaN):
`xcoordinates`, `ycoordinates`, `train_loss`, `train_acc` (percent), `test_loss`, `test_acc`,
`train_loss_se` (where the samples are a part of the split), `done`, `origin/<column>` (theta0),
`xdirection/<i>` and `ydirection/<i>` (tensors in the order of the parameters), `dir_file` (this
file's own name). The names are those of the loss-landscape code of Li et al. 2018, whose files
are read too.

A surface along K > 1 random directions or planes holds the first one under these names, where
those scripts find it, and all of them in `repeats/<column>` and `repeats/done`, (K, ny, nx) or
(K, nx), `repeats/cosines` (K,) and, but for the first, `repeats/xdirection/<k>/<i>`.

Paths of trainings on a plane are in `trajectories/<run>/` (`records.trajectories`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5, refuse_other_kind, write_hdf5
from isoloss.records.identity import FREE_SETTINGS, refuse_other_settings
from isoloss.records.journal import Journal, read_header
from isoloss.records.locks import locked_file
from isoloss.records.provenance import as_unicode
from isoloss.records.surface_data import Repeats, SurfaceData
from isoloss.records.surface_reading import surface_in
from isoloss.records.trajectories import Trajectory, write_trajectories

# Larger directions, and repeats whose directions are larger together, are stored as their recipe
# and digest: they can be drawn again.
LARGEST_STORED_DIRECTION = 64 * 2**20
WRITE_INTERVAL = 5.0  # seconds between rewrites of the .h5 while points come in


def read_surface(path: Path | str) -> SurfaceData:
    """Read a surface file, ours or one of the loss-landscape code.

    Raises:
        FileError: If the file is missing, truncated, or holds no surface.
    """
    with open_hdf5(Path(path)) as file:
        return surface_in(file)


@dataclass(frozen=True)
class StoredDirection:
    """A direction as a file keeps it.

    Attributes:
        recipe: What makes it again, JSON-able.
        tensors: One array for each parameter, in the network's order.
    """

    recipe: dict[str, Any]
    tensors: Sequence[np.ndarray]


@dataclass(frozen=True)
class StoredRepeat:
    """The directions of one repeat as a file keeps them.

    Attributes:
        directions: One for each axis; without tensors where all repeats together are too large.
        cosine: Cosine between the directions, for a pair.
    """

    directions: Sequence[StoredDirection]
    cosine: float | None


class SurfaceStore:
    """Finished points of one surface on disk: a journal beside an .h5 that is rewritten whole.

    Points are numbered row-major over the axes, repeat after repeat; the number `size`, that of
    all points of the grid along all directions, is theta0 itself.

    Args:
        path: The .h5 file; points are kept in memory only where None.
        x: Coordinates along the first direction, (nx,).
        y: Coordinates along the second, (ny,); None for a curve.
        columns: Names of a point's values.
        settings: Everything that identifies the computation.
        directions: One for each axis.
        cosine: Cosine between the directions, for a pair.
        repeats: Of the directions after the first, where there are several draws.
        fresh: Whether to start over. What is there is not read; it is as it was until the first
            write of finished points, which replaces it whole, `WRITE_INTERVAL` after the start
            or with the first point, whichever is later, or at the end. Points finished before
            that are lost to a kill: the old file then refuses to be continued with other settings.

    Attributes:
        trajectories: Paths on the plane, by run: those in the file, once it is loaded.
    """

    def __init__(
        self,
        path: Path | str | None,
        x: np.ndarray,
        y: np.ndarray | None,
        columns: Sequence[str],
        settings: dict[str, Any],
        directions: Sequence[StoredDirection] = (),
        cosine: float | None = None,
        repeats: Sequence[StoredRepeat] = (),
        *,
        fresh: bool = False,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.x, self.y, self.columns = x, y, list(columns)
        self.repeats = repeats
        # (K, ny, nx) or (K, nx)
        self.shape = (1 + len(repeats), *(x.shape if y is None else (len(y), len(x))))
        self.size = math.prod(self.shape)
        self.settings, self.directions, self.cosine = settings, directions, cosine
        self.records: dict[int, tuple[float, ...]] = {}
        self.trajectories: dict[str, Trajectory] = {}
        self.fresh = fresh
        self._journal: Journal | None = None
        self._next_write = 0.0
        self._lock = ExitStack()
        if self.path is not None:
            header = {key: value for key, value in settings.items() if key not in FREE_SETTINGS}
            self._journal = Journal(journal_path(self.path), header, len(self.columns))

    def load(self) -> dict[int, tuple[float, ...]]:
        """Return the points that are finished already, from the .h5 and the journal.

        Raises:
            SettingsDifferError: If the file holds another computation; the message says which
                settings differ.
            FileError: If the file is no surface of ours, also where it is to be replaced.
        """
        if self.path is None or self._journal is None:
            return self.records
        if self.fresh:
            refuse_other_kind(self.path, "surface")
            read_header(self._journal.path)  # raises where it is something else
            return self.records
        if self.path.exists():
            self.records = self._read_file(self.path)
        elif (header := read_header(self._journal.path)) is not None:
            refuse_other_settings(self.path, header, self.settings)
        self.records.update(self._journal.read())
        return self.records

    @property
    def complete(self) -> bool:
        """Whether every point of the grid, along all directions, and theta0 are finished."""
        return len(self.records) == self.size + 1

    def start(self) -> None:
        """Lock the file and open the journal for new points.

        Raises:
            LockedError: If another process writes the file, or trains the run it is of.
            FileError: As `load`, of what is there by now.
        """
        if self.path is not None and self._journal is not None:
            self._lock.enter_context(locked_file(self.path))
            try:
                self.load()
                if not self.fresh:
                    self.records.update(self._journal.start())
            except BaseException:
                self._lock.close()
                raise
        self._next_write = time.monotonic() + WRITE_INTERVAL

    def settle(self) -> None:
        """Bring a finished file to its final state where a kill came before that."""
        if self._journal is not None and self._journal.path.exists():
            self.start()
            self.finish()

    def append(self, index: int, values: tuple[float, ...]) -> None:
        """Keep a finished point; every few seconds the .h5 is brought up to date."""
        self.records[index] = values
        if self._journal is None:
            return
        if not self.fresh:
            self._journal.append(index, values)
        now = time.monotonic()
        if now >= self._next_write:
            self.write()
            # A large file on a slow disk must not take more than a small share of the time.
            duration = time.monotonic() - now
            self._next_write = now + max(WRITE_INTERVAL, 20 * duration)

    def finish(self) -> None:
        """Write the .h5 a last time; the journal goes once all points are in the file."""
        if self._journal is None:
            return
        with self._lock:
            try:
                self.write()
            except BaseException:
                self._journal.close()
                raise
            if self.complete:
                self._journal.remove()
            else:
                self._journal.close()

    def data(self) -> SurfaceData:
        """Return the points so far as arrays."""
        values = {name: np.full(self.size, np.nan) for name in self.columns}
        done = np.zeros(self.size, dtype=bool)
        origin: dict[str, float] = {}
        for index, record in self.records.items():
            if index == self.size:
                origin = dict(zip(self.columns, record, strict=True))
                continue
            done[index] = True
            for name, value in zip(self.columns, record, strict=True):
                values[name][index] = value
        cosines = None
        if self.cosine is not None:
            cosines = np.array([self.cosine, *(repeat.cosine for repeat in self.repeats)])
        every = Repeats(
            {name: array.reshape(self.shape) for name, array in values.items()},
            done.reshape(self.shape),
            cosines,
        )
        return SurfaceData(
            self.x,
            self.y,
            {name: array[0] for name, array in every.values.items()},
            every.done[0],
            origin,
            self.settings,
            self.cosine,
            every if self.repeats else None,
            self.trajectories,
        )

    def write(self) -> None:
        """Replace the .h5 by one that holds all points so far; an old one only by points."""
        if self.path is None or self._journal is None or (self.fresh and not self.records):
            return
        if self.fresh:  # first, as the old journal would not belong to the new file
            self._journal.path.unlink(missing_ok=True)
        directions = [*self.directions, *(d for repeat in self.repeats for d in repeat.directions)]
        size = sum(_size(direction) for direction in directions)
        size += 2 * 8 * len(self.columns) * self.size
        write_hdf5(self.path, "surface", self.settings, self._fill, size)
        if self.fresh:
            self.fresh = False
            self._journal.start()

    def _fill(self, file: h5py.File) -> None:
        data = self.data()
        if data.cosine is not None:
            file.attrs["cosine"] = data.cosine
        file["dir_file"] = as_unicode(self.path.name) if self.path is not None else ""
        file["xcoordinates"] = data.x
        if data.y is not None:
            file["ycoordinates"] = data.y
        for name, array in data.values.items():
            file[name] = array
        file["done"] = data.done
        for name, value in data.origin.items():
            file[f"origin/{name}"] = value
        for name, direction in zip("xy", self.directions, strict=False):
            _write_direction(file.create_group(f"{name}direction"), direction)
        if data.repeats is not None:
            self._write_repeats(file.create_group("repeats"), data.repeats)
        write_trajectories(file, data.trajectories)

    def _write_repeats(self, group: h5py.Group, data: Repeats) -> None:
        for name, array in data.values.items():
            group[name] = array
        group["done"] = data.done
        if data.cosines is not None:
            group["cosines"] = data.cosines
        for number, repeat in enumerate(self.repeats, start=1):
            for name, direction in zip("xy", repeat.directions, strict=False):
                _write_direction(group.create_group(f"{name}direction/{number}"), direction)

    def _read_file(self, path: Path) -> dict[int, tuple[float, ...]]:
        with open_hdf5(path, "surface") as file:
            stored = file.json("settings")
        refuse_other_settings(path, stored, self.settings)
        self.settings = stored  # what may differ stays as it was when the file was begun
        data = read_surface(path)
        self.trajectories = dict(data.trajectories)
        every = Repeats(data.values, data.done) if data.repeats is None else data.repeats
        held = {name for name in self.columns if name in every.values}
        if (
            len(held) < len(self.columns)
            or every.done.size != self.size
            or (data.origin and not data.origin.keys() >= held)
        ):
            raise FileError(
                f"expected {', '.join(self.columns)} of {self.size} points and of the origin in "
                f"{path}: the file is damaged\ndelete it and run the command again"
            )
        columns = [every.values[name].ravel() for name in self.columns]
        records = {
            int(index): tuple(float(column[index]) for column in columns)
            for index in np.flatnonzero(every.done)
        }
        if data.origin:
            records[self.size] = tuple(data.origin[name] for name in self.columns)
        return records


def journal_path(path: Path | str) -> Path:
    """Return where the journal of a surface file lies."""
    path = Path(path)
    return path.with_name(path.name + ".journal")


def stored_settings(path: Path | str) -> dict[str, Any] | None:
    """Return the settings of a surface that was begun at a path; None where there is none.

    Raises:
        FileError: If the file there is no surface.
    """
    path = Path(path)
    if path.exists():
        with open_hdf5(path, "surface") as file:
            return file.json("settings")
    return read_header(journal_path(path))


def _write_direction(group: h5py.Group, direction: StoredDirection) -> None:
    group.attrs["recipe"] = json.dumps(direction.recipe, sort_keys=True)
    if not _size(direction):
        return
    for index, array in enumerate(direction.tensors):
        group[str(index)] = array


def _size(direction: StoredDirection) -> int:
    """Return the bytes that a direction's tensors take in a file, 0 where its recipe has to do."""
    size = sum(array.nbytes for array in direction.tensors)
    return size if size <= LARGEST_STORED_DIRECTION else 0
