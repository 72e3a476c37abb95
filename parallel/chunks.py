"""How many items a worker is sent at a time."""

from __future__ import annotations

import math

# A chunk is one message there and one back, and what is computed again where a worker is lost. One
# of this length costs the driver less than 1 % at 10 ms a message and worker, and loses less than a
# second; `python -m benchmarks scale` simulates others.
CHUNK_SECONDS = 1.0
# So many chunks for each worker are left to be sent when one is: near the end they shrink, so that
# the workers finish together.
SHARES = 4


def chunk_size(left: int, workers: int, seconds: float | None) -> int:
    """Return how many items to send to a worker.

    min(CHUNK_SECONDS / seconds, left / (SHARES workers)), and 1 at least.

    Example:
        >>> [chunk_size(left, 2, 0.01) for left in (40_000, 400, 40, 4)]
        [100, 50, 5, 1]

    Args:
        left: Items that no worker has yet.
        workers: How many there are.
        seconds: What an item took so far; None where none is finished.
    """
    if not seconds:
        return 1
    return max(1, min(math.floor(CHUNK_SECONDS / seconds), left // (SHARES * workers)))
