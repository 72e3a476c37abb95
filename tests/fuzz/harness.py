"""What every reader must do with any input: accept it, or refuse it with an error for people.

Anything else is a finding: another exception, an error of more lines than a command prints, a hang,
more memory than a small input can need. Hypothesis draws the inputs.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from isoloss.errors import IsolossError

MEMORY = 2 * 2**30  # bytes that one input may add to what the process holds
SECONDS = 20.0  # of the processor that one input may take, and ten times as long on a clock

settings.register_profile(
    "ci",
    derandomize=True,  # the same inputs at every run of the suite
    database=None,
    deadline=None,  # hangs are looked for here, by a timer; imports make first calls slow
    max_examples=100,
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Reader:
    """Something that reads input of others.

    Attributes:
        name: For people.
        inputs: Draws inputs.
        read: Reads one, given an empty folder to work in.
    """

    name: str
    inputs: SearchStrategy[Any]
    read: Callable[[Any, Path], object]


class Finding(AssertionError):  # noqa: N818 (it is no error of the library)
    """An input that a reader neither accepts nor refuses as it should.

    Attributes:
        kind: "traceback", "unexpected" (an error that is not for people), "hang" or "memory".
        place: Where in the code, so that findings can be told apart.
    """

    def __init__(self, kind: str, place: str, text: str) -> None:
        super().__init__(f"{kind} at {place}: {text}")
        self.kind, self.place = kind, place


class _TooLong(BaseException):
    """Raised by the timer; no `except Exception` may catch it."""


@dataclass
class Tally:
    """What came of many inputs of one reader.

    Attributes:
        name: Of the reader.
        seed: Of the inputs.
        inputs: How many were read.
        refused: Those of them that were refused as they should be.
        findings: The first input of each finding, by kind and place.
        counts: How many inputs had a finding, by kind.
        seconds: Time taken.
    """

    name: str
    seed: int
    inputs: int = 0
    refused: int = 0
    findings: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def read_one(reader: Reader, drawn: Any) -> bool:
    """Return whether a reader accepts an input; raise `Finding` unless it accepts or refuses it."""
    with tempfile.TemporaryDirectory(prefix="isoloss-fuzz-") as folder:
        try:
            with _limits(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(drawn, Path(folder))
        except IsolossError as error:
            lines = str(error).splitlines()
            if not 1 <= len(lines) <= 3:
                text = f"{type(error).__name__} of {len(lines)} lines: {error}"
                raise Finding("unexpected", _place(error), text) from error
            return False
        except Finding:
            raise
        except _TooLong as error:
            raise Finding("hang", _place(error), f"more than {SECONDS:g} s") from error
        except MemoryError as error:
            raise Finding("memory", _place(error), str(error)) from error
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise Finding("traceback", _place(error), text) from error
    return True


def check(reader: Reader, examples: int = 100) -> None:
    """Read some inputs, the same ones every time; fail at the first finding, made small."""

    @settings(settings.get_profile("ci"), max_examples=examples)
    @given(reader.inputs)
    def one(drawn: Any) -> None:
        read_one(reader, drawn)

    one()


def campaign(reader: Reader, examples: int, number: int) -> Tally:
    """Read many inputs and account for all findings."""
    tally = Tally(reader.name, number)
    began = time.monotonic()

    @seed(number)
    @settings(
        settings.get_profile("ci"),
        derandomize=False,
        max_examples=examples,
        phases=[Phase.generate],
    )
    @given(reader.inputs)
    def one(drawn: Any) -> None:
        tally.inputs += 1
        try:
            tally.refused += not read_one(reader, drawn)
        except Finding as finding:
            tally.counts[finding.kind] = tally.counts.get(finding.kind, 0) + 1
            where = f"{finding.kind} at {finding.place}"
            tally.findings.setdefault(where, f"{str(finding)[:300]}; input: {drawn!r:.600}")

    one()
    tally.seconds = time.monotonic() - began
    return tally


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Bound time and memory, where the system can; both are as before afterwards."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise _TooLong

    # A busy machine must not make a hang of what is slow; a wait that never ends needs a clock.
    timers = (
        (signal.SIGPROF, signal.ITIMER_PROF, SECONDS),
        (signal.SIGALRM, signal.ITIMER_REAL, 10 * SECONDS),
    )
    before = {number: signal.signal(number, stop) for number, _, _ in timers}
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        with _bounded_memory():
            yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(
        resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _place(error: BaseException) -> str:
    """Return the last line of the package that an exception came through, as file:function."""
    house = Path(__file__).resolve().parents[2]
    ours = [
        Path(frame.filename).resolve().relative_to(house)
        .as_posix() + f":{frame.name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve().is_relative_to(house)
        and "tests" not in Path(frame.filename).parts
    ]  # fmt: skip
    return ours[-1] if ours else type(error).__name__


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a folder of prepared files to damage some of them."""
    return Path(shutil.copytree(source, target, dirs_exist_ok=True))
