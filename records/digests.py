"""SHA-256 of a run's checkpoints, so that what is read is what was written.

`checkpoints/digests.json` holds `{file: [SHA-256]}`. While a file is replaced it names the new
content and the old, so that either is right wherever a kill comes; then the new alone. In runs that
have none of it, `evaluation.json` vouches for the weights it scored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from isoloss.records.files import FileError, write_atomically, write_text
from isoloss.records.json_text import read_object
from isoloss.records.provenance import file_sha256

DIGESTS = "digests.json"


def write_with_digest(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file atomically and store its digest beside it; arguments of `write_atomically`.

    Raises:
        FileError: If file or digest cannot be written, or the stored digests cannot be read.
    """
    written = ""

    def write_and_announce(temporary: Path) -> None:
        nonlocal written
        write(temporary)
        written = file_sha256(temporary)
        stored = _stored(path)
        if not stored and path.is_file():
            stored = [file_sha256(path)]
        _store(path, [written, *stored])

    write_atomically(path, write_and_announce)
    _store(path, [written])


def expected_digests(path: Path) -> list[str]:
    """Return the SHA-256 that a checkpoint may have; empty where nothing is known of it.

    Raises:
        FileError: If the stored digests cannot be read.
    """
    return _stored(path) or _of_evaluation(path)


def _stored(path: Path) -> list[str]:
    file = path.with_name(DIGESTS)
    digests = _read(file).get(path.name, [])
    if not isinstance(digests, list) or not all(isinstance(one, str) for one in digests):
        raise FileError(
            f"{file} is damaged, expected a list of digests for {path.name}\nput a copy back"
        )
    return digests


def _store(path: Path, digests: Sequence[str]) -> None:
    every = _read(path.with_name(DIGESTS))
    every[path.name] = list(dict.fromkeys(digests))
    write_text(path.with_name(DIGESTS), json.dumps(every, indent=2, sort_keys=True) + "\n")


def _of_evaluation(path: Path) -> list[str]:
    run = path.absolute().parent.parent
    # A training that went on after it was evaluated has other weights by now.
    if _read(run / "run.json").get("status") != "finished":
        return []
    evaluation = _read(run / "evaluation.json")
    if evaluation.get("checkpoint") != f"{path.absolute().parent.name}/{path.name}":
        return []
    return [evaluation["checkpoint_sha256"]] if "checkpoint_sha256" in evaluation else []


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}
    except FileError as error:
        raise FileError(f"{error}\nput a copy back") from error
