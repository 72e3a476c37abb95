"""Independent draws of random directions: the seeds of repeats, and drawing them when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from isoloss.landscape.activations import size_of
from isoloss.landscape.directions import Direction
from isoloss.records.surfaces import LARGEST_STORED_DIRECTION


def repeat_seeds(seed: int, repeat: int) -> list[int]:
    """Return the seed of each of K draws; the first is the seed itself.

    The k-th, k > 0, is the first word of NumPy's `SeedSequence((seed, k))`, halved, so that the
    draws of one seed are not those of the next, as seed + k would make them. Halved, because
    torch's CPU generator takes the lower 32 bits of a seed, which here is 2 seed + axis.

    Example:
        >>> repeat_seeds(0, 3)
        [0, 1982462498, 1570558271]

    Args:
        seed: Not negative.
        repeat: K, 1 or more.
    """
    words = (np.random.SeedSequence((seed, k)).generate_state(1)[0] for k in range(1, repeat))
    return [seed, *(int(word) >> 1 for word in words)]


class Draws(Sequence[Sequence[Direction]]):
    """One or two directions for each of several seeds, drawn when they are asked for.

    Draws are kept while all of them together are no larger than what a file stores; of larger
    ones the last is kept, so that memory does not grow with their number.

    Args:
        draw: Makes the directions of a seed; the same ones each time.
        seeds: One a draw.
    """

    def __init__(self, draw: Callable[[int], Sequence[Direction]], seeds: Sequence[int]) -> None:
        self._draw, self.seeds = draw, list(seeds)
        self._kept: dict[int, Sequence[Direction]] = {}

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sequence[Direction]:  # type: ignore[override]
        seed = self.seeds[index]
        if seed not in self._kept:
            directions = self._draw(seed)
            if len(self) * bytes_of(directions) > LARGEST_STORED_DIRECTION:
                self._kept.clear()
            self._kept[seed] = directions
        return self._kept[seed]

    def __iter__(self) -> Iterator[Sequence[Direction]]:
        return (self[index] for index in range(len(self)))


def bytes_of(directions: Sequence[Direction]) -> int:
    """Return the bytes of some directions together."""
    return sum(size_of(t) for d in directions for t in d.like.values())
