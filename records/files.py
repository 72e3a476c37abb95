"""Files that are whole or absent: atomic replacement, and HDF5 opened with clear errors."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py

from isoloss.errors import IsolossError

FORMAT = 1


class FileError(IsolossError, RuntimeError):
    """A file that is missing, truncated, or not of the kind that is asked for."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that readers see the old one or the new one, never a part.

    Args:
        path: The file; its folder is made where it is missing.
        write: Called with a temporary path in the same folder; leaves the content there.

    Raises:
        FileError: If the content cannot be written (a full disk, say).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as matplotlib choose the format by it.
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes files that only their owner reads
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # h5py raises both where a disk is full
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(
            f"could not write {path}: {reason}\nwhat was there before is unchanged"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically, a line of names first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def open_hdf5(path: Path, kind: str | None = None) -> h5py.File:
    """Open an HDF5 file for reading.

    Args:
        path: The file.
        kind: `"surface"` or `"hessian"`: what the file must hold; None takes any HDF5 file.

    Returns:
        The open file; close it, or use it as a context manager.

    Raises:
        FileError: If the file is missing, no HDF5 file, truncated, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"expected an HDF5 file, got no file at {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FileError(
            f"expected an HDF5 file, got {path} of {path.stat().st_size} bytes that does not open\n"
            f"{error}\nit is truncated or of another format: delete it and run the command again"
        ) from error
    found = file.attrs.get("isoloss")
    if kind is not None and found != kind:
        file.close()
        what = f"one of kind {found!r}" if found is not None else "one that Isoloss did not write"
        raise FileError(f"expected a {kind} file of Isoloss, got {what}: {path}")
    if found is not None and file.attrs.get("format") != FORMAT:
        version = file.attrs.get("format")
        file.close()
        raise FileError(f"expected format version {FORMAT}, got {version}: {path}")
    return file


def refuse_other_kind(path: Path, kind: str) -> None:
    """Refuse to replace what is at a path unless it is an Isoloss file of that kind, any version.

    Raises:
        FileError: If there is anything else.
    """
    if not path.exists():
        return
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("isoloss")
    except OSError:
        what = "a file that does not open as HDF5"
    else:
        what = f"a {found} file" if found is not None else "a file that Isoloss did not write"
        if found == kind:
            return
    raise FileError(
        f"expected a {kind} file of Isoloss to replace, got {what}: {path}\n"
        "write to another file (`out`), or delete this one first"
    )


def write_settings(file: h5py.File, kind: str, settings: dict[str, Any]) -> None:
    """Mark an HDF5 file as ours and store its settings as JSON text."""
    file.attrs["isoloss"] = kind
    file.attrs["format"] = FORMAT
    file.attrs["settings"] = json.dumps(settings, sort_keys=True)


def read_settings(file: h5py.File) -> dict[str, Any]:
    """Return the stored settings; empty for a file of another program."""
    text = file.attrs.get("settings")
    return json.loads(text) if text is not None else {}
