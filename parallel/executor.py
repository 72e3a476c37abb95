"""What all ways of doing independent work have in common, and the plainest of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

from isoloss.errors import IsolossError

Item = TypeVar("Item")
Value = TypeVar("Value")

# What a worker is made from: called once in each, it returns the function of an item.
Recipe = Callable[[], Callable[[Any], Any]]


class WorkError(IsolossError, RuntimeError):
    """Work that a worker could not do, or a worker that could not be had."""


class Executor(Protocol):
    """Where independent work is done."""

    def map(
        self,
        recipe: Callable[[], Callable[[Item], Value]],
        items: Sequence[Item],
        name: Callable[[Item], str] = str,
    ) -> Generator[tuple[Item, Value]]:
        """Compute a value for each item.

        What is computed for one must not depend on the others: they come in any order, and one
        whose worker was lost is computed again by another worker. Close the iterator to end it.

        Args:
            recipe: Called once in each worker, it returns the function of an item; a function of
                a module, or an instance of a class of one, as it is sent there (pickled).
            items: What is sent to the workers.
            name: What errors call an item.

        Yields:
            Each item with its value, as they are finished.

        Raises:
            WorkError: For an item whose workers were lost each time, once all others are finished;
                for an item that cannot be computed; or if no worker can be had.
            IsolossError: As a worker raised it.
            MemoryError: If memory ran out in a worker.
        """


class InProcess:
    """One item after another in this process."""

    def map(
        self,
        recipe: Callable[[], Callable[[Item], Value]],
        items: Sequence[Item],
        name: Callable[[Item], str] = str,
    ) -> Generator[tuple[Item, Value]]:
        """Compute a value for each item, in order; an exception is raised as it is."""
        compute = recipe()
        for item in items:
            yield item, compute(item)
