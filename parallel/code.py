"""Which code a process runs: workers must run the same as who sends them work."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
# Beside the package in a clone, and no part of it.
_BESIDE = {"benchmarks", "build", "dist", "results", "tests"}


@functools.cache
def code_digest() -> str:
    """Return a digest of this package's source and of the version of torch, 16 hexadecimal digits.

    It is the same in a clone and in a wheel that was built from it.
    """
    found = hashlib.sha256(f"torch {metadata.version('torch')}\n".encode())
    for file in sorted(HOUSE.rglob("*.py")):
        parts = file.relative_to(HOUSE).parts
        if parts[0] in _BESIDE or any(part.startswith(".") for part in parts):
            continue
        found.update("/".join(parts).encode() + b"\n" + file.read_bytes() + b"\n")
    return found.hexdigest()[:16]
