"""Seeds that belong to one epoch, so that a training can start at any of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# What a seed is drawn for; each gets a sequence of its own.
ORDER, AUGMENTATION, NETWORK = range(3)


def epoch_seed(seed: int, epoch: int, purpose: int, rank: int = 0) -> int:
    """Return a 64-bit seed that belongs to (seed, epoch, purpose, rank) alone.

    Args:
        seed: Seed of the training.
        epoch: From 0.
        purpose: `ORDER`, `AUGMENTATION` or `NETWORK` (dropout).
        rank: Of the process; rank 0 draws what a process alone draws.
    """
    key = (seed, epoch, purpose, rank) if rank else (seed, epoch, purpose)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the permutation (count,) in which an epoch, counted from 0, takes the samples."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch, ORDER))
    return torch.randperm(count, generator=generator)
