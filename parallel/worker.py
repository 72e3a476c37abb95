"""What happens in a worker: it is built once, computes chunks, and says in plain data what came."""

from __future__ import annotations

import os
import pickle
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isoloss.errors import IsolossError, is_out_of_memory
from isoloss.parallel.code import code_digest
from isoloss.parallel.executor import WorkError


@dataclass(frozen=True)
class Start:
    """What a worker is begun with.

    Attributes:
        recipe: Pickled; see `Executor.map`.
        code: Digest of the code of who sends work.
        folder: Working directory there, which relative paths are of.
        path: `sys.path` there: what is imported by name.
    """

    recipe: bytes
    code: str
    folder: str
    path: Sequence[str]

    @classmethod
    def here(cls, recipe: bytes) -> Start:
        """Return what a worker needs that is to do the work of this process."""
        return cls(recipe, code_digest(), os.getcwd(), list(sys.path))


@dataclass(frozen=True)
class Answer:
    """What came of a chunk, or of the start of a worker.

    Attributes:
        values: By the numbers of the items, of those that are finished.
        seconds: How long it took.
        failed: Number of the item that could not be computed, if any.
        error: Why; also of a worker that could not be started.
        warnings: What was warned of, as category and text.
        lost: How the worker was lost, where it was.
    """

    values: list[tuple[int, Any]] = field(default_factory=list)
    seconds: float = 0.0
    failed: int | None = None
    error: Exception | None = None
    warnings: list[tuple[type[Warning], str]] = field(default_factory=list)
    lost: str = ""


class Worker:
    """Computes items by one recipe."""

    def __init__(self) -> None:
        self._compute: Callable[[Any], Any] | None = None

    def begin(self, start: Start) -> Answer:
        """Build what computes; an answer without an error means that chunks may come."""
        began, said = time.perf_counter(), _Said()
        error: Exception | None = None
        try:
            with said.heard():
                _refuse_other_code(start.code)
                if Path(start.folder).is_dir():  # on another machine it need not be there
                    os.chdir(start.folder)
                sys.path.extend(entry for entry in start.path if entry not in sys.path)
                self._compute = pickle.loads(start.recipe)()
        except (Exception, SystemExit) as raised:
            error = sendable(raised)
        return Answer([], time.perf_counter() - began, error=error, warnings=said.texts)

    def compute(self, chunk: Sequence[tuple[int, Any]]) -> Answer:
        """Compute numbered items up to the first that cannot be."""
        assert self._compute is not None
        began, said, values = time.perf_counter(), _Said(), []
        failed, error = None, None
        with said.heard():
            for number, item in chunk:
                try:
                    values.append((number, self._compute(item)))
                except (Exception, SystemExit) as raised:
                    failed, error = number, sendable(raised)
                    break
        return Answer(values, time.perf_counter() - began, failed, error, said.texts)


class _Said:
    """Warnings of a worker, which are shown by who sends it work."""

    def __init__(self) -> None:
        self.texts: list[tuple[type[Warning], str]] = []

    @contextmanager
    def heard(self) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            try:
                yield
            finally:
                for one in caught:
                    known = one.category.__module__ == "builtins"
                    category = one.category if known else UserWarning
                    self.texts.append((category, str(one.message)))


def sendable(error: BaseException) -> Exception:
    """Return an exception that says the same and can be sent: our own as they are."""
    if isinstance(error, IsolossError):
        with suppress(Exception):
            if str(pickle.loads(pickle.dumps(error))) == str(error):
                return error
        return WorkError(str(error))
    reason = (str(error).splitlines() or [""])[0]
    if is_out_of_memory(error):
        return MemoryError(reason)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return WorkError(
        f"{type(error).__name__}: {reason} [{frame.filename}, line {frame.lineno}: {frame.line}]"
    )


def _refuse_other_code(expected: str) -> None:
    if code_digest() != expected:
        raise WorkError(
            f"expected workers with the code of isoloss and torch that sends them work "
            f"({expected}), got {code_digest()} on {platform.node()}\n"
            "install the same versions of both there, and start its workers anew"
        )
