"""Every reader, on some inputs that are the same every time; the many: python -m tests.fuzz."""

from __future__ import annotations

import pytest

from tests.fuzz.every import COMMAND_LINES, READERS
from tests.fuzz.harness import check

# Slow ones get fewer: all together take half a minute.
FEWER = {
    COMMAND_LINES: 12, "searches": 12, "idx images": 40, "npz data": 60, "PhysioNet records": 40,
    "TU graphs": 60, "surface exported": 40, "spectrum exported": 40,
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_reader_accepts_or_refuses(reader):
    check(reader, FEWER.get(reader.name, 100))
