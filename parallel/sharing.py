"""Items shared out to workers that may be lost: who has which, and what is tried again."""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from isoloss.parallel.chunks import chunk_size
from isoloss.parallel.executor import WorkError
from isoloss.parallel.worker import Answer

# Workers that an item may lose while it is the only one they have, before it is given up.
TRIES = 3
# Workers in a row that may be lost as they start.
STARTS = 3


class Hand(Protocol):
    """One worker, as seen by who sends it work."""

    def send(self, chunk: Sequence[tuple[int, Any]]) -> None:
        """Send numbered items; a worker that is lost already says so in its answer."""

    def end(self) -> None:
        """End it at once, whatever it does."""


class Crew(Protocol):
    """Makes workers, and hears from them."""

    def start(self) -> Hand:
        """Begin to start a worker, which answers once it is ready."""

    def answers(self, hands: Sequence[Hand]) -> Sequence[tuple[Hand, Answer]]:
        """Wait until one or more have answered what they were sent last, or are lost."""


def share_out(
    crew: Crew, workers: int, items: Sequence[Any], name: Callable[[Any], str]
) -> Generator[tuple[Any, Any]]:
    """Send items to workers in chunks, and yield each item with its value as they come.

    Of a chunk whose worker was lost, each item is tried again alone, so that one that ends
    processes is known by itself; it is given up after `TRIES`, and the others go on.

    Args:
        crew: Makes the workers.
        workers: How many to have at once, at most.
        items: To be computed.
        name: What errors call an item.

    Raises:
        WorkError: As `Executor.map` says.
    """
    shared = _Shared(len(items))
    busy: dict[Hand, list[int] | None] = {}  # what each has; None while it starts
    idle: list[Hand] = []
    said: set[str] = set()
    failed_starts = 0
    try:
        while shared.left or any(busy.values()):
            while len(busy) + len(idle) < min(workers, shared.unfinished):
                busy[crew.start()] = None
            while idle and shared.left:
                hand = idle.pop()
                busy[hand] = shared.next_chunk(workers)
                hand.send([(number, items[number]) for number in busy[hand] or []])
            failure = None
            for hand, answer in crew.answers(list(busy)):
                chunk = busy.pop(hand)
                for category, text in answer.warnings:
                    if text not in said:
                        said.add(text)
                        warnings.warn(text, category, stacklevel=3)
                if answer.lost:
                    failed_starts = failed_starts + 1 if chunk is None else 0
                    shared.lose(chunk or [])
                    if failed_starts == STARTS:
                        raise WorkError(
                            f"expected workers to start, {STARTS} in a row ended: {answer.lost}\n"
                            "a script that starts them has its own code under: "
                            'if __name__ == "__main__":'
                        )
                    continue
                idle.append(hand)
                failed_starts = 0 if chunk is None else failed_starts
                shared.finish(answer, chunk is None)
                for number, value in answer.values:
                    yield items[number], value
                failure = failure or (answer if answer.error is not None else None)
            if failure is not None:  # after what others had finished was yielded
                _raise(failure, items, name)
    finally:
        for hand in (*busy, *idle):
            hand.end()
    if shared.given_up:
        first = name(items[shared.given_up[0]])
        more = f" and {len(shared.given_up) - 1} more" if len(shared.given_up) > 1 else ""
        raise WorkError(
            f"expected a value of {first}{more}, got {TRIES} workers that ended at it\n"
            "all others are finished and kept; memory may be short: fewer `workers`, or a smaller "
            "`batch_size`"
        )


def _raise(answer: Answer, items: Sequence[Any], name: Callable[[Any], str]) -> None:
    """Raise what a worker raised; of what is none of our own errors, say at which item."""
    error = answer.error
    assert error is not None
    if type(error) is WorkError and answer.failed is not None:
        raise WorkError(f"{name(items[answer.failed])}: {error}") from None
    raise error


class _Shared:
    """Which items no worker has, by their numbers."""

    def __init__(self, count: int) -> None:
        self.unfinished = count
        self.given_up: list[int] = []
        self._new = deque(range(count))
        self._again: deque[int] = deque()  # of lost chunks, each to be sent alone
        self._lost_alone: Counter[int] = Counter()
        self._seconds, self._finished = 0.0, 0

    @property
    def left(self) -> int:
        return len(self._new) + len(self._again)

    def next_chunk(self, workers: int) -> list[int]:
        if self._again:
            return [self._again.popleft()]
        each = self._seconds / self._finished if self._finished else None
        return [self._new.popleft() for _ in range(chunk_size(len(self._new), workers, each))]

    def finish(self, answer: Answer, started: bool) -> None:
        self.unfinished -= len(answer.values)
        if not started:
            self._seconds += answer.seconds
            self._finished += len(answer.values)

    def lose(self, chunk: Sequence[int]) -> None:
        for number in chunk:
            self._lost_alone[number] += len(chunk) == 1
            if self._lost_alone[number] == TRIES:
                self.given_up.append(number)
                self.unfinished -= 1
            else:
                self._again.append(number)
