from __future__ import annotations

import os
from pathlib import Path

# Set before torch is imported, here and in the processes that tests start: one thread a worker, or
# the workers get into each other's way. The order of sums, and so the last bits, do not depend on
# the machine then, either.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real data, in the layout that the data sets look for."""
    named = os.environ.get("ISOLOSS_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"needs real data (MNIST/raw, TUDataset, mitdb, ..): no folder {folder}; "
            f"point ISOLOSS_DATA at one"
        )
    return folder
