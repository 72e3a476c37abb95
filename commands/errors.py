"""What a command refuses: a wrong command line (exit 2) apart from what fails later (exit 1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from isoloss.registry import ArgumentError, UnknownNameError


class UsageError(Exception):
    """A command line that asks for something that does not exist or makes no sense."""


class CommandError(RuntimeError):
    """A command that cannot do what it is asked for."""


# What is wrong with a name or its arguments, where other errors are those of files and data.
NAMING = (UnknownNameError, ArgumentError)


@contextmanager
def usage(
    option: str = "", errors: tuple[type[Exception], ...] = (ValueError, LookupError)
) -> Iterator[None]:
    """Turn the errors of parsing and looking up into `UsageError`.

    Args:
        option: The option that is read, named before the message.
        errors: The errors that mean wrong usage here.
    """
    try:
        yield
    except errors as error:
        text = str(error.args[0]) if error.args else str(error)
        raise UsageError(f"{option}: {text}" if option else text) from error
