"""Many workers in simulated time, by the code that shares items out to real ones."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np

from isoloss.parallel import chunks, sharing
from isoloss.parallel.sharing import Hand
from isoloss.parallel.worker import Answer

POINTS = 201 * 201 + 1
MESSAGE = 1e-3  # seconds that the driver spends on a chunk, by Ray; a process takes a tenth
LATENCY = 2e-3  # seconds there and back on a network
START = 10.0  # seconds of a new worker, those of the beginning apart
SLOW_SHARE, SLOW = 0.05, 0.5  # so many workers at this share of the speed
SPREAD = 0.1  # of the time of a point, log-normal
LIFE = 3600.0  # mean seconds until a worker is lost
Rule = Callable[[int, int, float | None], int]


@dataclass(frozen=True)
class Row:
    """What came of one simulation."""

    rule: str
    point: float  # seconds
    workers: int
    seconds: float
    efficiency: float
    lost: int  # workers
    again: float  # share of the points that were computed more than once

    def text(self) -> str:
        """Return a line of the table."""
        return (
            f"{self.rule:22} {self.point:6.2f} s {self.workers:5} workers {self.seconds:9.1f} s "
            f"efficiency {self.efficiency:6.1%}, {self.lost} lost, {self.again:.2%} again"
        )


def table(largest: int, others: bool) -> Iterator[Row]:
    """Print and yield a row for each number of workers, time of a point, and rule."""
    counts = [4**k for k in range(7) if 4**k <= largest]
    for point in (0.14, 10.0):
        for workers in counts:
            # What rules differ in shows with many workers.
            for name, rule in _rules(others and workers >= 64).items():
                row = simulate(name, rule, workers, point)
                print(row.text(), flush=True)
                yield row


def _rules(others: bool) -> dict[str, Rule]:
    found: dict[str, Rule] = {"the code's": chunks.chunk_size}
    if others:
        found["one point"] = lambda left, workers, seconds: 1
        for seconds, shares in ((0.1, 2), (1.0, 1), (1.0, 2), (1.0, 8), (10.0, 2)):
            found[f"{seconds:g} s, 1/{shares}"] = _of(seconds, shares)
    return found


def _of(length: float, shares: int) -> Rule:
    def rule(left: int, workers: int, seconds: float | None) -> int:
        if not seconds:
            return 1
        return max(1, min(math.floor(length / seconds), left // (shares * workers)))

    return rule


def simulate(name: str, rule: Rule, workers: int, point: float, seed: int = 0) -> Row:
    """Return what a number of workers takes for a surface whose points take `point` seconds."""
    crew = _Simulated(workers, point, np.random.default_rng(seed))
    with patch.object(sharing, "chunk_size", rule):
        values = list(sharing.share_out(crew, workers, range(POINTS), str))
    assert sorted(values) == [(n, None) for n in range(POINTS)]
    had = sum(hand.speed * (min(hand.gone, crew.now) - hand.born) for hand in crew.hands)
    efficiency = float(crew.times.sum()) / had
    again = crew.computed / POINTS - 1
    return Row(name, point, workers, crew.now, efficiency, crew.lost, again)


class _Simulated:
    """Workers, and one driver that handles their messages one after another."""

    def __init__(self, workers: int, point: float, random: np.random.Generator) -> None:
        self.random, self.workers, self.now = random, workers, 0.0
        sigma = math.log1p(SPREAD)
        self.times = point * np.exp(sigma * random.standard_normal(POINTS) - sigma**2 / 2)
        self.hands: list[_Hand] = []
        self.lost = self.computed = 0
        self.events: list[tuple[float, int, _Hand, Answer]] = []

    def start(self) -> Hand:
        """Begin a worker: those of the beginning are there, as start-up is quoted apart."""
        late = START if len(self.hands) >= self.workers else 0.0
        slow = self.random.random() < SLOW_SHARE
        end = self.now + late + self.random.exponential(LIFE)
        hand = _Hand(self, SLOW if slow else 1.0, 0.0 if not late else self.now, end)
        self.hands.append(hand)
        self.happen(self.now + late, hand, Answer())
        return hand

    def happen(self, when: float, hand: _Hand, answer: Answer) -> None:
        """Let an answer arrive at a time."""
        heapq.heappush(self.events, (when, len(self.hands) + self.computed, hand, answer))

    def answers(self, hands: Sequence[Hand]) -> Sequence[tuple[Hand, Answer]]:
        """Return the next answer, at its time or when the driver is free, whichever is later."""
        when, _, hand, answer = heapq.heappop(self.events)
        self.now = max(self.now, when) + MESSAGE
        return [(hand, answer)]


class _Hand:
    """One of them."""

    def __init__(self, crew: _Simulated, speed: float, born: float, last: float) -> None:
        self.crew, self.speed, self.born, self.last = crew, speed, born, last
        self.gone = math.inf  # when it is noticed that it is lost

    def __lt__(self, other: _Hand) -> bool:
        return id(self) < id(other)

    def send(self, chunk: Sequence[tuple[int, Any]]) -> None:
        crew = self.crew
        numbers = [number for number, _ in chunk]
        taken = float(crew.times[numbers].sum()) / self.speed
        done = crew.now + LATENCY + taken
        crew.computed += len(numbers)
        if done > self.last:
            crew.lost += 1
            self.gone = max(self.last, crew.now)
            crew.happen(self.last, self, Answer(lost="its machine was lost"))
        else:
            crew.happen(done, self, Answer([(n, None) for n in numbers], taken))

    def end(self) -> None:
        pass
