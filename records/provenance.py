"""Where a result comes from: command line, versions, commit, hashes of files."""

from __future__ import annotations

import hashlib
import platform
import shlex
import subprocess
from collections.abc import Sequence
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "torchvision", "numpy", "h5py")

# Options that say who does the work, and nothing of what comes of it: equal work, equal files.
_SPREADING = ("--workers", "--cluster")

_command: ContextVar[str] = ContextVar("command", default="")


def remember_command(arguments: Sequence[str]) -> None:
    """Keep the command line for the files that are written from now on.

    Without `--workers` and `--cluster`, which are no part of what is computed.
    """
    kept = [
        argument
        for index, argument in enumerate(arguments)
        if argument.partition("=")[0] not in _SPREADING
        and (index == 0 or arguments[index - 1] not in _SPREADING)
    ]
    _command.set(as_unicode(shlex.join(["python", "cli.py", *kept])))


def as_unicode(text: str) -> str:
    """Return a text that UTF-8 can hold: of a file's name that is none, the bytes as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def command_line() -> str:
    """Return the command line as it can be given again; empty outside the command line."""
    return _command.get()


def versions() -> dict[str, str]:
    """Return the versions of Python and of what numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Return the commit of this source tree, `-dirty` where files differ; None outside git."""
    if not (HOUSE / ".git").exists():
        return None
    command = ["git", "-C", str(HOUSE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
