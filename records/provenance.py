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
from typing import Any

from isoloss.plugins import plugin_file

HOUSE = Path(__file__).resolve().parent.parent
# Settings of a run that can name a file of the user's.
PLUGIN_ROLES = ("model", "dataset", "loss")
PACKAGES = ("torch", "torchvision", "numpy", "h5py")

_command: ContextVar[str] = ContextVar("command", default="")


def remember_command(arguments: Sequence[str]) -> None:
    """Keep the command line for the files that are written from now on."""
    _command.set(shlex.join(["python", "cli.py", *arguments]))


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


def plugin_sha256(spec: str) -> str | None:
    """Return the SHA-256 of a plug-in's file; None for a registered name."""
    file = plugin_file(spec)
    return None if file is None or not file.is_file() else file_sha256(file)


def describe_plugin(spec: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what identifies a network or loss: spec, arguments, and the file's hash if any."""
    return {"spec": spec, "arguments": arguments, "sha256": plugin_sha256(spec)}


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
