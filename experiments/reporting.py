"""Where long work says what it does: nowhere by itself; a command prints, a notebook may."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from isoloss.records.progress import Progress, bar, duration

# What takes less is not announced.
_LONG = 60.0
# Units to time, or seconds to time them in, before all of them are judged by it.
_UNITS, _SECONDS = 3, 5.0


class Reporter:
    """Says nothing but warnings; override what is to be heard."""

    def say(self, text: str) -> None:
        """Take a line for people."""

    def warn(self, text: str) -> None:
        """Take a line that must not be missed; a Python warning where nothing overrides it."""
        warnings.warn(text, stacklevel=2)

    def expect(self, unit: str, text: str) -> None:
        """Take a line on how long the work that has begun will take.

        Args:
            unit: What is counted, such as "points".
            text: The line, options in backticks.
        """

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Accompany one piece of work.

        Yields:
            A callback `progress(done, total)`, or None where nobody looks.
        """
        yield None


class Forwarding(Reporter):
    """Passes everything on to another reporter; override what is to be changed or left out."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def say(self, text: str) -> None:
        """Pass a line on."""
        self._reporter.say(text)

    def warn(self, text: str) -> None:
        """Pass a warning on."""
        self._reporter.warn(text)

    def expect(self, unit: str, text: str) -> None:
        """Pass on what the work will take."""
        self._reporter.expect(unit, text)

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Accompany a piece of work as the other does."""
        with self._reporter.progress(description) as progress:
            yield progress


class Bars(Reporter):
    """Shows bars on standard error, and says nothing."""

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Show a bar."""
        with bar(description) as progress:
            yield progress


def heard_by(reporter: Reporter | None, progress: bool) -> Reporter:
    """Return the reporter that is given; else one that shows bars or says nothing."""
    return reporter or (Bars() if progress else Reporter())


def announcing(
    reporter: Reporter,
    progress: Progress | None,
    unit: str,
    advice: str,
    units: int | None = None,
) -> Progress:
    """Report progress, and say once how long it will all take where that is over a minute.

    Timed on the first units as they are done, the very first left out, which may set buffers up.

    Args:
        reporter: Told what to expect.
        progress: Told of every unit, too.
        unit: What is done, such as "points".
        advice: What would make it less.
        units: How many are expected to be left at the first call, where that is not what `total`
            says.
    """
    began: float | None = None
    first, silent = 0, False

    def report(done: int, total: int) -> None:
        nonlocal began, first, silent
        if progress is not None:
            progress(done, total)
        if silent:
            return
        now = time.perf_counter()
        if began is None:
            began, first = now, done
            return
        timed, taken = done - first, now - began
        if timed < 1 or (timed < _UNITS and taken < _SECONDS):
            return
        silent, each = True, taken / timed
        left = total - first if units is None else units
        if each * left > _LONG:
            one = f"{1000 * each:.0f} ms" if each < 0.1 else f"{each:.2g} s"
            one = duration(each) if each >= 10 else one
            whole = duration(each * left)
            reporter.expect(unit, f"about {whole}: {left:,} {unit} of {one}; {advice}")

    return report


@dataclass(frozen=True)
class Cost:
    """What some work would take, from a small part of it.

    Attributes:
        seconds: All of it.
        units: How many points, products or steps it has.
        unit: What they are called.
        file_bytes: Size of the file it leaves.
        memory_bytes: The most memory this process has held so far.
        compile_seconds: What compiling takes apart from that.
    """

    seconds: float
    units: int
    unit: str
    file_bytes: int
    memory_bytes: int
    compile_seconds: float = 0.0
