"""What an experiment cannot do."""

from __future__ import annotations

from isoloss.errors import IsolossError


class ExperimentError(IsolossError, RuntimeError):
    """An experiment that cannot be done with what is there."""
