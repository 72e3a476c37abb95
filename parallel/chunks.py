"""How many items a worker is sent at a time."""

from __future__ import annotations

import math

# What is computed again where a worker is lost, and what is not on disk yet.
CHUNK_SECONDS = 1.0
# So many chunks for each worker are left to be sent when one is: near the end they shrink, so that
# the workers finish together.
SHARES = 2
# What a chunk takes of the time of who sends it (Ray; a process takes a tenth): of many workers
# each must be busy until all others were served. `python -m benchmarks scale --rules` simulates
# other numbers.
MESSAGE_SECONDS = 1e-3


def chunk_size(left: int, workers: int, seconds: float | None) -> int:
    """Return how many items to send to a worker.

    min(CHUNK_SECONDS / seconds, left / (SHARES workers)); no fewer than last for
    MESSAGE_SECONDS workers, as far as a worker's fair share of what is left allows; and 1 at least.

    Example:
        >>> [chunk_size(left, 2, 0.01) for left in (40_000, 400, 40, 4)]
        [100, 100, 10, 1]
        >>> [chunk_size(left, 1024, 0.1) for left in (40_000, 4_000)]
        [11, 4]

    Args:
        left: Items that no worker has yet.
        workers: How many there are.
        seconds: What an item took so far; None where none is finished.
    """
    if not seconds:
        return 1
    short = min(math.floor(CHUNK_SECONDS / seconds), left // (SHARES * workers))
    served = min(math.ceil(MESSAGE_SECONDS * workers / seconds), -(-left // workers))
    return max(1, short, served)
