"""Workers of this machine: how long they take to start, to answer, and to share a surface."""

from __future__ import annotations

import contextlib
import pickle
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.scale import subject
from isoloss.parallel.processes import _Spawned
from isoloss.parallel.ray_cluster import _Actors, _connected
from isoloss.parallel.sharing import Crew, Hand, share_out
from isoloss.parallel.worker import Answer, Start

MESSAGES = 300


@dataclass(frozen=True)
class Row:
    """One figure: what it is, of which way, its median, smallest and largest value, its unit."""

    what: str
    way: str
    value: float
    low: float
    high: float
    unit: str

    def text(self) -> str:
        """Return a line of the table."""
        spread = f"({self.low:.3g} to {self.high:.3g})"
        return f"{self.what:22} {self.way:24} {self.value:8.3g} {self.unit:4} {spread}"


def all_of_it(points: int, rounds: int, ray: bool) -> list[Row]:
    """Print and return everything that is measured here."""
    rows = []
    for way, crew_of in _ways(ray):
        with crew_of(subject.squares) as crew:
            rows.append(_message(way, crew))
            print(rows[-1].text(), flush=True)
    for row in _shared(points, rounds, ray):
        print(row.text(), flush=True)
        rows.append(row)
    return rows


def _ways(ray: bool) -> list[tuple[str, Callable[[Any], Any]]]:
    return [("processes", _processes), *([("Ray", _actors)] if ray else [])]


@contextmanager
def _processes(recipe: Any) -> Iterator[Crew]:
    yield _Spawned(pickle.dumps(Start.here(pickle.dumps(recipe))), 0)


@contextmanager
def _actors(recipe: Any) -> Iterator[Crew]:
    with _connected("auto", {"num_cpus": 2}) as ray:
        yield _Actors(ray, ray.put(Start.here(pickle.dumps(recipe))), 1, False)


def _message(way: str, crew: Crew) -> Row:
    hand = crew.start()
    crew.answers([hand])
    times = []
    for _ in range(MESSAGES):
        began = time.perf_counter()
        hand.send([(0, 3)])
        crew.answers([hand])
        times.append(1000 * (time.perf_counter() - began))
    hand.end()
    low, high = (sorted(times)[i] for i in (MESSAGES // 20, -MESSAGES // 20))
    return Row("message", way, statistics.median(times), low, high, "ms")


class _Warm:
    """Two workers that are there already, and stay for the next round."""

    def __init__(self, crew: Crew, way: str) -> None:
        self.crew, self.way, began = crew, way, time.perf_counter()
        self.hands = [crew.start() for _ in range(2)]
        waiting, self.started = list(self.hands), []
        while waiting:
            for hand, answer in crew.answers(waiting):
                assert answer.error is None, answer.error
                self.started.append(time.perf_counter() - began)
                waiting.remove(hand)
        self._ready: list[Hand] = []

    def start(self) -> Hand:
        """Return the next one, which says at once that it is ready."""
        hand = _Kept(self.hands[len(self._ready)])
        self._ready.append(hand)
        return hand

    def answers(self, hands: Sequence[Hand]) -> Sequence[tuple[Hand, Answer]]:
        """Wait for the workers themselves."""
        fresh = [hand for hand in hands if isinstance(hand, _Kept) and not hand.asked]
        if fresh:
            return [(hand, Answer()) for hand in fresh]
        of = {hand.hand: hand for hand in hands if isinstance(hand, _Kept)}
        return [(of[hand], answer) for hand, answer in self.crew.answers(list(of))]

    def seconds_shared(self, numbers: Sequence[int]) -> float:
        """Return how long both take for some points, shared out as a surface's are."""
        self._ready = []
        began = time.perf_counter()
        assert len(list(share_out(self, 2, numbers, str))) == len(numbers)
        return time.perf_counter() - began

    def seconds_given(self, *parts: Sequence[int]) -> float:
        """Return how long it takes until each of one worker or two has done its own points."""
        began = time.perf_counter()
        busy = self.hands[: len(parts)]
        for hand, part in zip(busy, parts, strict=True):
            hand.send(list(enumerate(part)))
        while busy:
            for hand, answer in self.crew.answers(busy):
                assert answer.error is None, answer.error
                busy = [other for other in busy if other is not hand]
        return time.perf_counter() - began


class _Kept:
    """A worker that is not ended between rounds."""

    def __init__(self, hand: Hand) -> None:
        self.hand, self.asked = hand, False

    def send(self, chunk: Sequence[tuple[int, Any]]) -> None:
        self.asked = True
        self.hand.send(chunk)

    def end(self) -> None:
        pass


def _shared(points: int, rounds: int, ray: bool) -> Iterator[Row]:
    numbers = list(range(points))
    half = points // 2
    with contextlib.ExitStack() as held:
        crews = []
        for way, crew_of in _ways(ray):
            crews.append(_Warm(held.enter_context(crew_of(subject.points)), way))
            for hand in crews[-1].hands:
                held.callback(hand.end)
            first, second = crews[-1].started
            yield Row("start of a worker", way, first, first, second, "s")
        plain = crews[0]
        for crew in crews:
            crew.seconds_given(numbers[:2], numbers[:2])  # the first pass sets buffers up
        times: dict[str, list[float]] = {}
        for _ in range(rounds):
            times.setdefault("alone", []).append(plain.seconds_given(numbers))
            given = plain.seconds_given(numbers[:half], numbers[half:])
            times.setdefault("two, a half each", []).append(given)
            for crew in crews:
                took = crew.seconds_shared(numbers)
                times.setdefault(f"two by {crew.way}", []).append(took)
        each = [seconds / points for seconds in times["alone"]]
        yield Row("point", "alone", statistics.median(each), min(each), max(each), "s")
        for way, taken in times.items():
            if way != "alone":
                ratios = [a / b for a, b in zip(times["alone"], taken, strict=True)]
                yield Row("speed-up", way, statistics.median(ratios), min(ratios), max(ratios), "x")
                best = min(times["alone"]) / min(taken)  # of what was disturbed least
                yield Row("speed-up, fastest", way, best, best, best, "x")
        for crew in crews:
            pairs = zip(times["two, a half each"], times[f"two by {crew.way}"], strict=True)
            ratios = [a / b for a, b in pairs]
            what = "of what is possible"
            yield Row(what, crew.way, statistics.median(ratios), min(ratios), max(ratios), "")
