from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Weights and dropout masks, which torch draws from its global generator, are the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
