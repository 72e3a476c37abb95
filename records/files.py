"""Files that are whole or absent: atomic replacement."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isoloss.errors import IsolossError
from isoloss.records.drafts import Draft, sweep_drafts


class FileError(IsolossError, RuntimeError):
    """A file that is missing, truncated, or not of the kind that is asked for."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that readers see the old one or the new one, never a part.

    Args:
        path: The file. Its folder must be there: where it is deleted while a command is at work,
            half of it must not come back.
        write: Called with a temporary path in the same folder; leaves the content there.

    Raises:
        FileError: If the content cannot be written (a full disk, say), or the folder is missing.
    """
    with _drafts([path]) as (draft,), explained(path):
        write(draft.path)
        draft.finish()
        draft.take_place()


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
                draft.path.write_bytes(content)
                draft.finish()
        for draft, path in zip(drafts, contents, strict=True):
            with explained(path):
                draft.take_place()


@contextmanager
def _drafts(paths: Sequence[Path]) -> Iterator[list[Draft]]:
    """Make a draft of each file, after what kills left beside it is swept."""
    drafts: list[Draft] = []
    try:
        for path in paths:
            sweep_drafts(path.parent)
            with explained(path):
                drafts.append(Draft(path))
        yield drafts
    finally:
        for draft in drafts:
            draft.discard()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into a `FileError` that names the file."""
    try:
        yield
    except FileError:
        raise
    except (OSError, RuntimeError) as error:  # torch and h5py raise both where a disk is full
        if not path.parent.is_dir():
            raise FileError(
                f"expected the folder {path.parent} to write {path.name} in, got none: was it "
                "deleted or moved?\n"
                "put it back to go on by the same command, or leave it away to start over"
            ) from error
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
