"""HDF5 files, written whole, and opened to be read with care (`records.stored_group`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from isoloss.records.files import FileError, explained, write_atomically, write_bytes
from isoloss.records.interrupts import waiting
from isoloss.records.stored_group import Budget, StoredGroup, first_line, shown_bytes

FORMAT = 1

# HDF5 crashes the process where a disk is full as a file is closed. Up to this size files are
# put together in memory and written by us; above it, free space is asked for before.
LARGEST_IMAGE = 2**30
# What may be read from one file in all: four times its size, for compressed arrays, and this.
SMALL = 64 * 2**20


def write_hdf5(
    path: Path, kind: str, settings: dict[str, Any], fill: Callable[[h5py.File], None], size: int
) -> None:
    """Write an HDF5 file atomically, marked as ours, its settings as JSON text.

    The same content gives the same bytes.

    Args:
        path: The file.
        kind: `"surface"` or `"hessian"`.
        settings: JSON-able.
        fill: Writes all else into the open file.
        size: About how many bytes the arrays take.

    Raises:
        FileError: If the file cannot be written (a full disk, say); what was there is unchanged.
    """

    def make(file: h5py.File) -> None:
        file.attrs["isoloss"] = kind
        file.attrs["format"] = FORMAT
        file.attrs["settings"] = json.dumps(settings, sort_keys=True)
        fill(file)

    if size <= LARGEST_IMAGE:
        with waiting():
            write_bytes(path, hdf5_image(make))
        return
    with explained(path):
        free = shutil.disk_usage(path.parent).free
    if free < 1.1 * size:
        raise FileError(
            f"could not write {path}: it takes {shown_bytes(size)}, free are {shown_bytes(free)}\n"
            "what was there before is unchanged; make space and give the command again"
        )

    def write(temporary: Path) -> None:
        # A draft is locked already, which HDF5 would take for somebody else's lock.
        with waiting(), h5py.File(temporary, "w", locking=False) as file:
            make(file)

    write_atomically(path, write)


def hdf5_image(fill: Callable[[h5py.File], None]) -> bytes:
    """Return an HDF5 file as bytes; the same content gives the same.

    Args:
        fill: Writes all of it into the open file, which has no place on the disk.
    """
    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()  # gives back what was set aside for more, so that the image has no slack
        return file.id.get_file_image()


@contextmanager
def open_hdf5(path: Path, kind: str | None = None) -> Iterator[StoredGroup]:
    """Open an HDF5 file for reading.

    Args:
        path: The file.
        kind: `"surface"` or `"hessian"`: what the file must hold; None takes any HDF5 file.

    Yields:
        Its entries.

    Raises:
        FileError: If the file is missing, no HDF5 file, truncated, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"expected an HDF5 file, got no file at {path}")
    size = path.stat().st_size
    try:
        file = h5py.File(path, "r")
    except Exception as error:  # damaged bytes raise nearly anything
        raise FileError(
            f"expected an HDF5 file, got {path} of {size} bytes that does not open\n"
            f"{first_line(error)}\n"
            "it is truncated or of another format; if a command of Isoloss made it, move it away "
            "and give that command again"
        ) from error
    with file:
        root = StoredGroup(path, file, Budget(4 * size + SMALL))
        found = root.text("isoloss")
        root.ours = found is not None
        if kind is not None and found != kind:
            what = (
                f"one of kind {found!r}" if found is not None else "one that Isoloss did not write"
            )
            raise FileError(f"expected a {kind} file of Isoloss, got {what}: {path}")
        if found is not None and (version := root.attribute("format")) != FORMAT:
            shown = "none" if version is None else f"{version:g}"
            raise FileError(f"expected format version {FORMAT}, got {shown}: {path}")
        yield root


def refuse_other_kind(path: Path, kind: str) -> None:
    """Refuse to replace what is at a path unless it is an Isoloss file of that kind, any version.

    Raises:
        FileError: If there is anything else.
    """
    if not path.exists():
        return
    try:
        with h5py.File(path, "r") as file:
            found = StoredGroup(path, file, Budget(SMALL)).text("isoloss")
    except Exception:  # as above
        what = "a file that does not open as HDF5"
    else:
        what = f"a {found} file" if found is not None else "a file that Isoloss did not write"
        if found == kind:
            return
    raise FileError(
        f"expected a {kind} file of Isoloss to replace, got {what}: {path}\n"
        "write to another file (`out`), or move this one away"
    )


def our_kind(path: Path) -> str | None:
    """Return the kind of Isoloss file, of any version, at a path; None for anything else."""
    try:
        with h5py.File(path, "r") as file:
            return StoredGroup(path, file, Budget(SMALL)).text("isoloss")
    except Exception:  # as above
        return None
