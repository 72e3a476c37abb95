"""The error of checkpoints, apart from the files that raise it."""

from __future__ import annotations

from isoloss.errors import IsolossError


class CheckpointError(IsolossError, RuntimeError):
    """A file that is damaged, holds no weights, or weights of another network."""
