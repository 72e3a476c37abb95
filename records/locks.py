"""One process at a time: a lock for each folder or file that is written.

The lock of `PATH` is the hidden file `.NAME.lock` beside it; who holds it is in `.NAME.holder`. The
system lets the lock go whatever ends the process, on Windows too. Both files go with the lock; what
a kill leaves of them locks nothing and is taken over by the next process.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from isoloss.records.files import FileError
from isoloss.records.provenance import command_line

# Seconds: the lock of a run is held for a moment by each process that starts within it.
PATIENCE = 0.5


class LockedError(FileError):
    """A file or folder that another process is at work on."""


@contextmanager
def locked(path: Path, what: str, instead: str = "", patience: float = PATIENCE) -> Iterator[None]:
    """Keep all others from a file or folder while the block lasts.

    The lock is not reentrant: whoever holds it is refused as well.

    Args:
        path: The file or folder, which need not exist. The lock lies beside it.
        what: What to call it in an error, such as "run a".
        instead: What else to do than to wait, for the error.
        patience: Seconds to wait for whoever has the lock.

    Raises:
        LockedError: If somebody has the lock; names the process.
        FileError: If no lock can be made there.
    """
    path = Path(os.path.abspath(path))
    lock, holder = (path.with_name(f".{path.name}.{suffix}") for suffix in ("lock", "holder"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        held.acquire(timeout=patience, poll_interval=0.02)
    except Timeout:
        raise LockedError(
            f"expected {what} for this process alone, but {_read(holder)} is at work on it\n"
            f"wait until that one has ended, or end it{f'; or {instead}' if instead else ''}"
        ) from None
    except OSError as error:
        raise FileError(f"could not lock {what}: {error}") from error
    try:
        with suppress(OSError):  # a full disk: it is only for people
            holder.write_text(_myself(), encoding="utf-8")
        yield
    finally:
        # While it is held: one that waits sees that the file it locked has lost its name, and
        # makes another. Windows does not delete what is open; there the library does, later.
        for file in (holder, lock):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        held.release()


def is_locked(path: Path) -> bool:
    """Return whether some process is at work on a file or folder."""
    lock = Path(os.path.abspath(path)).with_name(f".{path.name}.lock")
    if not lock.exists():
        return False
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except (Timeout, OSError):
        return True
    held.release()
    return False


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the lock of an output file, which excludes whoever holds its whole run.

    Raises:
        LockedError: If somebody has the lock of the file, or of the run in whose folder it lies.
        FileError: If no lock can be made there.
    """
    path = Path(os.path.abspath(path))
    with ExitStack() as held:
        with ExitStack() as start:
            if (path.parent / "config.json").is_file():
                # For the start alone: others of the run's files are worked on at the same time.
                start.enter_context(locked(path.parent, f"run {path.parent.name}"))
            held.enter_context(locked(path, str(path), "write to another file (`out`)"))
        yield


@contextmanager
def locked_folder(path: Path, what: str, instead: str = "") -> Iterator[None]:
    """Hold the lock of a folder and of every file in it; arguments and errors of `locked`."""
    with locked(path, what, instead):
        # None can be taken any more, as that takes the folder's: what is held now is in use.
        for lock in path.glob(".*.lock"):
            file = path / lock.name.removeprefix(".").removesuffix(".lock")
            with locked(file, f"{what} with its {file.name}", instead):
                pass
        yield


def sweep_locks(folder: Path) -> None:
    """Delete the locks in a folder that no process holds, and what says who held them."""
    for lock in folder.glob(".*.lock"):
        name = lock.name.removeprefix(".").removesuffix(".lock")
        with suppress(OSError, FileError):  # somebody holds it, or has just let it go
            if lock.stat().st_size == 0:  # as all of ours
                with locked(folder / name, name, patience=0.0):
                    pass


def _myself() -> str:
    command = command_line() or shlex.join([Path(sys.executable).name, *sys.argv])
    return f"process {os.getpid()} on {platform.node()} ({command})"


def _read(holder: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        if text := holder.read_text(encoding="utf-8").strip():
            return text.splitlines()[0]
    return "another process"
