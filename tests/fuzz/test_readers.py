"""Every reader, on some inputs that are the same every time; the many: python -m tests.fuzz."""

from __future__ import annotations

import pytest

from tests.fuzz.every import COMMAND_LINES, READERS
from tests.fuzz.harness import check

# Slow ones get fewer: all together take half a minute.
FEWER = {
    COMMAND_LINES: 12, "searches": 12, "idx images": 40, "npz data": 60, "PhysioNet records": 40,
    "TU graphs": 60,
}  # fmt: skip


# Their readers do not refuse everything yet; not run, as some inputs claim all memory.
OPEN = ("run files", "surface HDF5", "curve HDF5", "foreign surface HDF5", "spectrum HDF5",
        "npz data", "devices", COMMAND_LINES)  # fmt: skip


def _case(reader):
    marks = [pytest.mark.xfail(reason="open", run=False)] if reader.name in OPEN else []
    return pytest.param(reader, id=reader.name, marks=marks)


@pytest.mark.parametrize("reader", [_case(reader) for reader in READERS])
def test_a_reader_accepts_or_refuses(reader):
    check(reader, FEWER.get(reader.name, 100))
