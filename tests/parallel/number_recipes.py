"""What workers of tests compute: in a module of its own, without torch, which takes long."""

from __future__ import annotations

import os
import signal
import time
import warnings
from dataclasses import dataclass

from isoloss.records.files import FileError


@dataclass(frozen=True)
class Squares:
    """Squares of whole numbers, by workers with habits."""

    folder: str = ""  # where each worker leaves its process's number
    kills: int | None = None  # the item at which a worker ends itself
    once: bool = False  # only the first one does
    raises: int | None = None
    error: type[Exception] = ValueError
    warns: bool = False
    seconds: float = 0.0

    def __call__(self):
        if self.folder:
            open(f"{self.folder}/{os.getpid()}", "w").close()

        def square(number):
            time.sleep(self.seconds)
            if self.warns:
                warnings.warn("said by all", stacklevel=1)
            if number == self.raises:
                raise self.error("no such number")
            if number == self.kills and not (self.once and self._before()):
                os.kill(os.getpid(), signal.SIGKILL)
            return number**2

        return square

    def _before(self):
        try:
            open(f"{self.folder}/killed", "x").close()
        except FileExistsError:
            return True
        return False


def refuses():
    raise FileError("expected a file, got none")


def leaves():
    raise SystemExit(3)
