"""The roots of the errors that are written for people to read: expected, got, remedy.

A text names an option or argument in backticks, `samples`; the command line writes --samples.
"""

from __future__ import annotations


class IsolossError(Exception):
    """What cannot be done, and what to do instead."""


class UsageError(IsolossError):
    """What is asked for does not exist or makes no sense: ask for something else."""
