"""Contenders in processes of their own that take turns: a loaded machine slows all alike."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

Three = tuple[float, float, float]  # median, smallest, largest


class Contender:
    """A function in a process of its own, made by `make(*arguments)` of a module.

    Args:
        module: Its name; one that cannot be imported makes answers that say so.
        make: The name of a function there.
        arguments: What it is given.
        environment: Variables that its process begins with, beside ours.
    """

    def __init__(
        self,
        module: str,
        make: str,
        arguments: Sequence[Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        about = (other, module, make, arguments)
        self._process = context.Process(target=_serve, args=about, daemon=True)
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        other.close()

    def ask(self, *arguments: Any) -> tuple[float, Any] | str:
        """Return the seconds of a call and its result, or in words why there is none.

        In those of the first call the function is made.
        """
        self._pipe.send(arguments)
        answer: tuple[float, Any] | str = self._pipe.recv()
        return answer

    def end(self) -> None:
        """Let the process end."""
        self._pipe.close()
        self._process.join(10)


@contextmanager
def ended(contenders: Mapping[str, Contender]) -> Iterator[Mapping[str, Contender]]:
    """End contenders with the context."""
    try:
        yield contenders
    finally:
        for contender in contenders.values():
            contender.end()


def three(values: Sequence[float]) -> Three:
    """Return median, smallest and largest."""
    return statistics.median(values), min(values), max(values)


def _serve(pipe: Connection, module: str, make: str, arguments: Sequence[Any]) -> None:
    function: Any = None
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        began = time.perf_counter()
        if function is None:
            try:
                function = getattr(import_module(module), make)(*arguments)
            except ImportError as error:
                function = f"skipped: {error}"
        if isinstance(function, str):
            pipe.send(function)
            continue
        result = function(*asked)
        pipe.send((time.perf_counter() - began, result))
