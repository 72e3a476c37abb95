"""What a command says: text for people or JSON for machines, and progress where somebody looks."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from isoloss.experiments.reporting import Cost, Reporter
from isoloss.records.json_text import to_json
from isoloss.records.progress import Progress, bar

_machine: TextIO | None = None

# What stands for a character that the encoding of a terminal lacks; any other is written as its
# escape, \u03bb.
PLAIN = {
    "±": "+-", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "∞": "inf", "²": "^2", "·": "*",
    "\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2019": "'",
    "λ": "lambda", "θ": "theta", "μ": "mu", "\u03c1": "rho", "\u03c3": "sigma",
}  # fmt: skip


@contextmanager
def any_text() -> Iterator[None]:
    """Let standard output and error take any text, whatever the encoding of the terminal.

    In an ASCII or cp1252 terminal, ± becomes +-, and what nothing plainer stands for its escape.
    """
    codecs.register_error("isoloss.plain", _plainer)
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="isoloss.plain")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            if not stream.closed:
                stream.reconfigure(errors=errors)


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_plain_character, lacking)), error.end


def _plain_character(character: str) -> str:
    return PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")


@contextmanager
def results_alone() -> Iterator[None]:
    """Keep standard output for the results of a command; all else that is printed goes to stderr.

    Networks, losses and data of the user's may print what they like, whenever they are called.
    """
    global _machine
    before, _machine = _machine, sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _machine = before


class Console(Reporter):
    """Standard output of one command; of rank 0 alone where several processes work together.

    Args:
        as_json: Whether the result is printed as JSON instead of text.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.speaks = os.environ.get("RANK", "0") == "0"

    def say(self, text: str) -> None:
        """Print a line for people; nothing with `--json`."""
        if self.speaks and not self.as_json:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning to standard error, also with `--json`."""
        if self.speaks:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def expect(self, unit: str, text: str) -> None:
        """Print how long the work will take, with options as the command line writes them."""
        self.say(re.sub(r"`([a-z_]+)`", lambda m: "--" + m[1].replace("_", "-"), text))

    def result(self, content: dict[str, Any]) -> None:
        """Print the result for machines; nothing without `--json`."""
        if self.speaks and self.as_json:
            text = json.dumps(to_json(content), indent=2, allow_nan=False)
            print(text, file=_machine or sys.stdout, flush=True)

    def cost(self, cost: Cost) -> None:
        """Print what some work would take."""
        each = 1000 * cost.seconds / cost.units
        file = f"; file {cost.file_bytes / 2**20:.1f} MiB" if cost.file_bytes else ""
        first = f"{cost.compile_seconds:.0f} s to compile, " if cost.compile_seconds else ""
        self.say(
            f"{first}about {cost.seconds:.0f} s for {cost.units} {cost.unit} of {each:.3g} ms; "
            f"peak memory {cost.memory_bytes / 2**20:.0f} MiB{file}"
        )
        self.result(
            {
                "seconds": cost.seconds,
                cost.unit: cost.units,
                "peak_memory_bytes": cost.memory_bytes,
                "file_bytes": cost.file_bytes,
                **({"compile_seconds": cost.compile_seconds} if cost.compile_seconds else {}),
            }
        )

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Show a bar with rate and remaining time on a terminal; None elsewhere.

        Yields:
            A callback `progress(done, total)`.
        """
        if self.as_json or not self.speaks or not sys.stderr.isatty():
            yield None
            return
        with bar(description) as progress:
            yield progress
