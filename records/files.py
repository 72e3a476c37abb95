"""Files that are whole or absent: atomic replacement."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from isoloss.errors import IsolossError


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
    with _drafts([path]) as (draft,), explained(path):
        write(draft)
        _finish(draft)
        os.replace(draft, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of these bytes atomically; errors of `write_atomically`."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files atomically; none takes its place before all are on the disk.

    Raises:
        FileError: If one cannot be written; what was there before is unchanged.
    """
    with _drafts(list(contents)) as drafts:
        for draft, (path, content) in zip(drafts, contents.items(), strict=True):
            with explained(path):
                draft.write_bytes(content)
                _finish(draft)
        for draft, path in zip(drafts, contents, strict=True):
            with explained(path):
                os.replace(draft, path)


@contextmanager
def _drafts(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Make an empty temporary file beside each file; what is left of them goes in the end."""
    drafts: list[Path] = []
    try:
        for path in paths:
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                # The suffix stays last: there are writers that choose the format by it.
                handle, name = tempfile.mkstemp(
                    prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
                )
                os.close(handle)
                drafts.append(Path(name))
        yield drafts
    finally:
        for draft in drafts:
            with suppress(OSError):  # such as a folder that is gone: the error before says so
                draft.unlink(missing_ok=True)


def _finish(draft: Path) -> None:
    """Bring a file to the disk, as readable as any other."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(draft, 0o666 & ~mask)  # mkstemp makes files that only their owner reads
    with open(draft, "rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into a `FileError` that names the file."""
    try:
        yield
    except FileError:
        raise
    except (OSError, RuntimeError) as error:  # torch and h5py raise both where a disk is full
        raise FileError(
            f"could not write {path}: {reason(error)}\n"
            "what was there before is unchanged; once it can be written, run the command again"
        ) from error


def reason(error: BaseException) -> str:
    """Return why something could not be written: what the system said, where it said anything."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically, a line of names first."""
    write_bytes(path, csv_bytes(head, rows))


def csv_bytes(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a CSV file, a line of names first; floats in as many digits as make them again."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")
