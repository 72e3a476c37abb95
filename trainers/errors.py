"""The error of checkpoints, apart from the files that raise it."""

from __future__ import annotations

from typing import Any

from isoloss.errors import IsolossError

# Of a name in a message.
LONGEST = 100


class CheckpointError(IsolossError, RuntimeError):
    """A file that is damaged, holds no weights, or weights of another network."""


def shown(*names: Any) -> str:
    """Return names from a file as a message may print them: without line breaks and controls."""
    texts = (str(name)[:LONGEST] for name in names)
    return ", ".join("".join(c if c.isprintable() else "?" for c in text) for text in texts)
