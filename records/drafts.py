"""Drafts: the temporary files that become what is written, and what kills left of them.

A draft is `.isoloss-XXXXXXXX.SUFFIX` beside its target, open and locked by the process that writes
it. The system lets the lock go whatever ends the process: a draft that is not locked is nobody's.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

PREFIX = ".isoloss-"
# Windows has no such locks, but deletes no file that is open. Seconds within which a draft that was
# closed has its place, by far.
RENAMED = 60.0


class Draft:
    """An empty temporary file beside what it is to become.

    Args:
        target: What that is. The suffix stays: there are writers that choose the format by it.

    Attributes:
        path: Where to write the content.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        while True:
            handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=target.suffix, dir=target.parent)
            self.path, self._file = Path(name), os.fdopen(handle, "rb")
            with suppress(OSError):  # a file system without locks: nothing is swept there, either
                _lock(self._file)
            if self.path.exists():  # no sweep came before the lock
                return
            self._file.close()

    def finish(self) -> None:
        """Bring the content to the disk, as readable as that of any other file."""
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(self.path, 0o666 & ~mask)  # mkstemp makes files that only their owner reads
        with open(self.path, "rb+") as file:
            os.fsync(file.fileno())

    def take_place(self) -> None:
        """Become the target."""
        if sys.platform == "win32":  # where no open file is renamed
            self._file.close()
        os.replace(self.path, self._target)

    def discard(self) -> None:
        """Let go of the draft; it is deleted unless it has become the target."""
        self._file.close()
        with suppress(OSError):  # such as a folder that is gone: the error before says so
            self.path.unlink(missing_ok=True)


def sweep_drafts(folder: Path) -> None:
    """Delete the drafts in a folder that no process is writing."""
    for draft in folder.glob(f"{PREFIX}{'[a-z0-9_]' * 8}*"):
        with suppress(OSError):  # another process is writing it, or has just renamed it
            _delete_abandoned(draft)


def _delete_abandoned(draft: Path) -> None:
    if sys.platform == "win32":
        if time.time() - draft.stat().st_mtime > RENAMED:
            draft.unlink()
        return
    with open(draft, "rb+") as file:
        _lock(file, wait=False)
        draft.unlink()


def _lock(file: IO[bytes], wait: bool = True) -> None:
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
