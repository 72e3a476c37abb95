"""An append-only, checksummed journal of finished points.

HDF5 files do not survive a crash while they are written. Finished points therefore go here first:
a header line with the digest of what is computed, then records of fixed length, each an index, its
values and a checksum. A record cut short by a crash, and all that follow, are dropped on reading.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

from isoloss.records.files import FileError, explained, reason
from isoloss.records.json_text import parse_object


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the header of a journal; None where there is none or it was cut short."""
    if not path.exists():
        return None
    line, newline, _ = path.read_bytes().partition(b"\n")
    if not newline:
        return None
    try:
        return parse_object(line, "its first line")
    except FileError as error:
        raise FileError(
            f"expected the journal of a surface, got {path} with another first line\n"
            "if it is one, move it away to give its points up"
        ) from error


class Journal:
    """Finished points of one computation, appended one by one.

    Args:
        path: The journal file.
        header: JSON-able description of the computation; a journal with another is not read.
        width: Number of values of a point.
    """

    def __init__(self, path: Path, header: dict[str, Any], width: int) -> None:
        self.path = path
        self._header = (json.dumps(header, sort_keys=True) + "\n").encode()
        self._record = struct.Struct(f"<Q{width}d")
        self._checksum = struct.Struct("<I")
        self._file: Any = None

    def read(self) -> dict[int, tuple[float, ...]]:
        """Return the values of each recorded point by index; empty where there is no journal.

        Raises:
            FileError: If the journal belongs to another computation (which `read_header` shows).
        """
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        if not content.startswith(self._header):
            if b"\n" not in content:  # cut short within its first line: nothing was recorded
                return {}
            raise FileError(
                f"expected the journal of this computation, got another one's: {self.path}\n"
                "finish that computation first, or move the journal away to give its points up"
            )
        records: dict[int, tuple[float, ...]] = {}
        step = self._record.size + self._checksum.size
        for start in range(len(self._header), len(content) - step + 1, step):
            body = content[start : start + self._record.size]
            (checksum,) = self._checksum.unpack_from(content, start + self._record.size)
            if zlib.crc32(body) != checksum:
                break
            index, *values = self._record.unpack(body)
            records[index] = tuple(values)
        return records

    def start(self) -> dict[int, tuple[float, ...]]:
        """Open the journal, what is damaged at its end cut off.

        Hold the lock of the file that the journal is of.

        Returns:
            The points in it.

        Raises:
            FileError: If it belongs to another computation.
        """
        with explained(self.path):
            records = self.read()
            record = self._record.size + self._checksum.size
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by `close`)
        if records:
            self._file.truncate(len(self._header) + record * len(records))
        else:
            self._file.truncate(0)
            self._write(self._header)
        return records

    def append(self, index: int, values: tuple[float, ...]) -> None:
        """Record a finished point; it survives the end of this process at once.

        Raises:
            FileError: If it cannot be written (a full disk, say), the points before are kept; or if
                it was deleted.
        """
        if os.fstat(self._file.fileno()).st_nlink == 0:
            with explained(self.path):  # says so where the folder is gone
                raise FileNotFoundError(errno.ENOENT, "it was deleted meanwhile")
        self._write(self._encode(index, values))

    def close(self) -> None:
        """Close the journal and leave it on disk."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                os.fsync(file.fileno())

    def _write(self, content: bytes) -> None:
        try:
            while content:  # a disk that is nearly full takes a part
                content = content[self._file.write(content) :]
        except OSError as error:
            raise FileError(
                f"could not write {self.path}: {reason(error)}\n"
                "the points before are kept; make space and give the same command again"
            ) from error

    def remove(self) -> None:
        """Close the journal and delete it: its points are in the finished file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _encode(self, index: int, values: tuple[float, ...]) -> bytes:
        body = self._record.pack(index, *values)
        return body + self._checksum.pack(zlib.crc32(body))
