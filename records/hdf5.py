"""HDF5 files, written whole and read with care.

A file that is read may be damaged, or come from somebody else. HDF5 lets it point into other files
(external and virtual storage, links), claim arrays far larger than itself (fill values, filters),
and hold types that make Python objects. Here an entry is opened only by a hard link, and read only
if it is a plain array of numbers whose size has been checked; all else is refused.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from isoloss.records.files import FileError, explained, write_atomically, write_bytes
from isoloss.records.json_text import Kinds, check_entries, parse_object

FORMAT = 1

# HDF5 crashes the process where a disk is full as a file is closed. Up to this size files are
# put together in memory and written by us; above it, free space is asked for before.
LARGEST_IMAGE = 2**30
# What may be read from one file in all: four times its size, for compressed arrays, and this.
SMALL = 64 * 2**20
FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
}
NUMBERS = "fiub"
# None is any length, a last `...` any further ones.
Shape = Sequence[Any]
LONGEST_NAME = 80


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
        with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
            make(file)
            file.flush()  # gives back what was set aside for more, so that the image has no slack
            image = file.id.get_file_image()
        write_bytes(path, image)
        return
    with explained(path):
        free = shutil.disk_usage(path.parent).free
    if free < 1.1 * size:
        raise FileError(
            f"could not write {path}: it takes {_bytes(size)}, free are {_bytes(free)}\n"
            "what was there before is unchanged; make space and give the command again"
        )

    def write(temporary: Path) -> None:
        # A draft is locked already, which HDF5 would take for somebody else's lock.
        with h5py.File(temporary, "w", locking=False) as file:
            make(file)

    write_atomically(path, write)


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
            f"{_first_line(error)}\n"
            "it is truncated or of another format: delete it and run the command again"
        ) from error
    with file:
        root = StoredGroup(path, file, _Budget(4 * size + SMALL))
        found = root.text("isoloss")
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
            found = StoredGroup(path, file, _Budget(SMALL)).text("isoloss")
    except Exception:  # as above
        what = "a file that does not open as HDF5"
    else:
        what = f"a {found} file" if found is not None else "a file that Isoloss did not write"
        if found == kind:
            return
    raise FileError(
        f"expected a {kind} file of Isoloss to replace, got {what}: {path}\n"
        "write to another file (`out`), or delete this one first"
    )


class _Budget:
    """What may still be read from a file, in bytes."""

    def __init__(self, total: int) -> None:
        self.total = self.left = total

    def take(self, size: int) -> bool:
        self.left -= size
        return self.left >= 0


class StoredGroup:
    """A group of an open HDF5 file; every entry is checked before it is read.

    Args:
        path: The file, for errors.
        group: The group.
        budget: What may be read from the file.
    """

    def __init__(self, path: Path, group: h5py.Group, budget: _Budget) -> None:
        self.path, self._group, self._budget = path, group, budget

    def __contains__(self, name: str) -> bool:
        try:
            return bool(self._group.id.links.exists(name.encode("utf-8")))
        except Exception as error:
            got = f"one that cannot be looked up ({_first_line(error)})"
            raise self._damaged(name, got) from error

    def names(self) -> list[str]:
        """Return the names of all entries, in the order they were written where that is kept."""
        try:
            names = list(self._group)
            "".join(names).encode("utf-8")
        except Exception as error:
            raise self._damaged("", f"names that cannot be read ({_first_line(error)})") from error
        return names

    def is_array(self, name: str) -> bool:
        """Return whether an entry is an array, and not a group or a type."""
        return isinstance(self._open(name), h5py.h5d.DatasetID)

    def group(self, name: str) -> StoredGroup:
        """Return a group.

        Raises:
            FileError: If it is missing or none.
        """
        found = self._open(name)
        if not isinstance(found, h5py.h5g.GroupID):
            raise self._damaged(name, "no group", "a group")
        return StoredGroup(self.path, h5py.Group(found), self._budget)

    def array(self, name: str, shape: Shape | None = None) -> np.ndarray:
        """Return an array of numbers.

        Args:
            name: Its name.
            shape: What its shape must be, None for any length and a last `...` for any further
                ones; any shape where None.

        Raises:
            FileError: If it is missing, of another shape, no plain array of numbers in this very
                file, or larger than a file of this size can hold.
        """
        found = self._open(name)
        if not isinstance(found, h5py.h5d.DatasetID):
            raise self._damaged(name, "a group")
        try:
            problem = self._problem(found, shape)
            array = None if problem else np.asarray(h5py.Dataset(found)[()])
        except Exception as error:
            raise self._damaged(name, f"one that cannot be read ({_first_line(error)})") from error
        if array is None:
            wanted = "an array of numbers" if shape is None else f"numbers of shape {_shown(shape)}"
            raise self._damaged(name, problem, wanted)
        return array

    def lengths(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of an array of floating-point numbers; None for anything else."""
        found = self._open(name)
        try:
            dataset = h5py.Dataset(found) if isinstance(found, h5py.h5d.DatasetID) else None
            return dataset.shape if dataset is not None and dataset.dtype.kind == "f" else None
        except Exception as error:
            raise self._damaged(name, f"one that cannot be read ({_first_line(error)})") from error

    def number(self, name: str) -> float:
        """Return a number, NaN and infinity included; errors of `array`."""
        return float(self.array(name, ()))

    def count(self, name: str) -> int:
        """Return a number that counts something.

        Raises:
            FileError: As `array`, and for one that is not finite or negative.
        """
        value = self.number(name)
        if not (value >= 0 and value.is_integer()):
            raise self._damaged(name, f"{value}", "a count")
        return int(value)

    def text(self, name: str) -> str | None:
        """Return an attribute that is text; None where there is none.

        Raises:
            FileError: If it is something else, or no UTF-8.
        """
        try:
            attributes = self._group.attrs
            if name not in attributes:
                return None
            found = attributes.get_id(name)
            if h5py.check_string_dtype(found.dtype) is None or found.shape != ():
                raise TypeError("no text")
            if not self._budget.take(found.dtype.itemsize):
                raise TypeError("text longer than the file")
            value = attributes[name]
            text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
            text.encode("utf-8")
        except Exception as error:
            raise self._damaged(f"@{name}", _first_line(error), "text in UTF-8") from error
        return text

    def json(self, name: str, needed: Mapping[str, Kinds] | None = None) -> dict[str, Any]:
        """Return an attribute that is a JSON object.

        Args:
            name: Its name.
            needed: Types of the entries that it must have; None where it may be missing, and is
                empty then.

        Raises:
            FileError: If it is something else.
        """
        text = self.text(name)
        if text is None:
            if needed is None:
                return {}
            raise self._damaged(f"@{name}", "none", "text in UTF-8")
        what = f"`{self._where(f'@{name}')}` in {self.path}"
        content = parse_object(text, what)
        check_entries(content, needed or {}, what)
        return content

    def json_of(self, name: str, attribute: str, needed: Mapping[str, Kinds]) -> dict[str, Any]:
        """Return the JSON object that is an attribute of an array; as `json`."""
        found = h5py.Dataset(self._open(name))
        return StoredGroup(self.path, found, self._budget).json(attribute, needed)

    def attribute(self, name: str) -> float | None:
        """Return an attribute that is a finite number; None where there is none.

        Raises:
            FileError: If it is something else.
        """
        try:
            attributes = self._group.attrs
            if name not in attributes:
                return None
            found = attributes.get_id(name)
            if found.dtype.kind not in NUMBERS or found.shape != ():
                raise TypeError(f"an attribute of type {found.dtype} and shape {found.shape}")
            value = float(attributes[name])
            if not math.isfinite(value):
                raise TypeError(f"{value}")
        except Exception as error:
            raise self._damaged(f"@{name}", _first_line(error), "a finite number") from error
        return value

    def _open(self, name: str) -> Any:
        """Open what a hard link of this group is of: other links lead anywhere."""
        if name not in self:
            raise self._damaged(name, "none")
        encoded = name.encode("utf-8")
        try:
            kind = self._group.id.links.get_info(encoded).type
            if kind == h5py.h5l.TYPE_HARD:
                return h5py.h5o.open(self._group.id, encoded)
        except Exception as error:
            raise self._damaged(name, f"one that does not open ({_first_line(error)})") from error
        what = "soft link" if kind == h5py.h5l.TYPE_SOFT else "link into another file"
        raise self._damaged(name, f"a {what}")

    def _problem(self, found: h5py.h5d.DatasetID, shape: Shape | None) -> str:
        """Say what keeps an array from being read; empty where nothing does."""
        dataset, layout = h5py.Dataset(found), found.get_create_plist()
        if layout.get_external_count():
            return "one whose numbers are in another file"
        if layout.get_layout() == h5py.h5d.VIRTUAL:
            return "one that is put together from other files"
        used = [layout.get_filter(index)[0] for index in range(layout.get_nfilters())]
        if any(number not in FILTERS for number in used):
            return "one that is compressed by other filters than gzip and lzf"
        dtype = dataset.dtype
        if dtype.kind not in NUMBERS or dtype.itemsize > 8:
            return f"one of type {dtype}"
        if dataset.shape is None:
            return "an empty one"
        if shape is not None and not _agree(dataset.shape, shape):
            return f"shape {_shown(dataset.shape)}"
        size = dtype.itemsize * math.prod(dataset.shape)
        chunk = 0
        if layout.get_layout() == h5py.h5d.CHUNKED:
            chunk = dtype.itemsize * math.prod(layout.get_chunk())
        if not self._budget.take(max(size, chunk)):
            return f"{_bytes(max(size, chunk))}, more than a file of this size holds"
        return ""

    def _damaged(self, name: str, got: str, expected: str = "an array or group") -> FileError:
        return FileError(
            f"{self.path}, entry `{self._where(name)}`: expected {expected}, got {got}\n"
            "the file is damaged or not one that can be trusted: delete it, or get it again from "
            "where it was made"
        )

    def _where(self, name: str) -> str:
        """Return the place of an entry, fit to be printed."""
        where = "/".join(filter(None, (str(self._group.name or "").strip("/"), name)))
        shown = where if where.isprintable() else ascii(where)
        return shown if len(shown) <= LONGEST_NAME else f"{shown[:LONGEST_NAME]}.."


def _agree(shape: Sequence[int], wanted: Shape) -> bool:
    if wanted and wanted[-1] is ...:
        wanted = wanted[:-1]
        shape = shape[: len(wanted)]
    return len(shape) == len(wanted) and all(
        other in (None, length) for length, other in zip(shape, wanted, strict=True)
    )


def _shown(shape: Shape) -> str:
    """Return a shape in words: `(3, n)`."""
    names = {None: "n", ...: ".."}
    return f"({', '.join(names.get(length) or str(length) for length in shape)})"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**28 else f"{size / 2**20:.3g} MiB"


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0][:200] if text else type(error).__name__
