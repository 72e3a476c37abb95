"""JSON: what may have been damaged, or written by somebody else; and values as it holds them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from isoloss.records.files import FileError

Kinds = tuple[type, ...]


def parse_json(text: str | bytes, what: str) -> Any:
    """Return the content of JSON text.

    Args:
        text: The text; bytes must be UTF-8.
        what: What to call it in an error, such as its file.

    Raises:
        FileError: If it is no JSON, nested too deeply, or holds text that is no Unicode.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        content = json.loads(decoded)
        # Half of a surrogate pair can be written as an escape, and printed nowhere.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise FileError(f"{what} is damaged, expected JSON: {reason}") from error
    return content


def parse_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Return the entries of a JSON object; arguments and errors of `parse_json`.

    Raises:
        FileError: Also for JSON of another type.
    """
    content = parse_json(text, what)
    if not isinstance(content, dict):
        raise FileError(f"{what} is damaged, expected a JSON object, got {type(content).__name__}")
    return content


def read_object(path: Path) -> dict[str, Any]:
    """Return the entries of the JSON object in a file.

    Raises:
        FileError: If it holds anything else.
        FileNotFoundError: If there is no file.
    """
    return parse_object(path.read_bytes(), str(path))


def check_entries(content: Mapping[str, Any], needed: Mapping[str, Kinds], what: str) -> None:
    """Refuse an object whose entries are missing or of other types.

    Args:
        content: The object.
        needed: Types that each entry may have, by name; float takes whole numbers, too.
        what: What to call the object in an error.

    Raises:
        FileError: Naming the first entry that is not as it must be.
    """
    for name, kinds in needed.items():
        if name not in content:
            raise FileError(f"{what} is damaged: expected an entry {name!r}, got none")
        value = content[name]
        whole = type(value) is int and float in kinds
        if not whole and type(value) not in kinds:
            names = " or ".join("null" if k is NoneType else k.__name__ for k in kinds)
            raise FileError(
                f"{what} is damaged: expected {names} as {name!r}, got {type(value).__name__}"
            )


def to_json(value: Any) -> Any:
    """Return a value as JSON can hold it: dataclasses and arrays unfolded, NaN and inf as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
