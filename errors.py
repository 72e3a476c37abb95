"""The root of the errors that are written for people to read."""

from __future__ import annotations


class IsolossError(Exception):
    """An error that says what was expected, what was found, and what to do."""
