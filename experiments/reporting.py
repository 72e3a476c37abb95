"""Where long work says what it does: nowhere by itself; a command prints, a notebook may."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from isoloss.records.progress import Progress


class Reporter:
    """Says nothing but warnings; override what is to be heard."""

    def say(self, text: str) -> None:
        """Take a line for people."""

    def warn(self, text: str) -> None:
        """Take a line that must not be missed; a Python warning where nothing overrides it."""
        warnings.warn(text, stacklevel=2)

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Accompany one piece of work.

        Yields:
            A callback `progress(done, total)`, or None where nobody looks.
        """
        yield None


@dataclass(frozen=True)
class Cost:
    """What some work would take, from a small part of it.

    Attributes:
        seconds: All of it.
        units: How many points, products or steps it has.
        unit: What they are called.
        file_bytes: Size of the file it leaves.
        memory_bytes: The most memory this process has held so far.
    """

    seconds: float
    units: int
    unit: str
    file_bytes: int
    memory_bytes: int
