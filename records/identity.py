"""What a stored result is the result of: settings that must agree, and those that may differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.records.files import FileError

# What may differ between the parts of one computation without changing its numbers. Versions are
# kept by the plan, which refuses to be continued by another torch.
FREE_SETTINGS = (
    "command", "git", "versions", "run", "label", "checkpoint", "loss_at_weights", "asked",
    "plan_after_running_out_of_memory",
)  # fmt: skip

# What is stored only where it is another value than this: files made before it could be another
# are the same computation.
UNSTORED: dict[str, Any] = {"repeat": 1}


class SettingsDifferError(FileError):
    """A file that holds another computation than the one it is asked to continue."""


def refuse_other_settings(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `SettingsDifferError`, naming the differences, where two computations differ."""
    differences = differing(stored, wanted)
    if differences:
        more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise SettingsDifferError(
            f"expected {path} to hold this computation, but it differs in "
            f"{'; '.join(differences[:4])}{more}\n"
            "write to another file (`out`), or start over in place of this one (`force`)"
        )


def refuse_other_function(
    path: Path | None, name: str, stored: Sequence[float], found: Sequence[float]
) -> None:
    """Raise `SettingsDifferError` where a function no longer has its stored values.

    Settings cannot show that the code of a network or loss has changed; this does.

    Args:
        path: The file the values were stored in.
        name: What the first value is.
        stored: Values at theta0 from the file.
        found: The same values now.
    """
    # The same plan on another machine may round float32 sums otherwise.
    if not np.allclose(stored, found, rtol=1e-5, atol=1e-7, equal_nan=True):
        raise SettingsDifferError(
            f"expected {name} {stored[0]:.8g} at the network's weights, as in {path}, "
            f"got {found[0]:.8g}: the code of network, loss or data has changed\n"
            "write to another file (`out`), or start over in place of this one (`force`)"
        )


def differing(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name the settings in which two computations differ, as `key (stored .., now ..)`."""
    found: list[str] = []
    for key in sorted({*stored, *wanted} - set(FREE_SETTINGS)):
        old, new = (settings.get(key, UNSTORED.get(key)) for settings in (stored, wanted))
        if isinstance(old, dict) and isinstance(new, dict):
            found += differing(old, new, f"{prefix}{key}.")
        elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
            found.append(f"{prefix}{key} (stored {_short(old)}, now {_short(new)})")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:20]}.."


# What must agree for numbers of two results to say something of their networks, by path in the
# settings. What is not stored (in older files) is not compared.
COMPARED = {
    "loss": ("loss",),
    "split": ("split",),
    "samples": ("samples",),
    "sample digest": ("digest",),
    "sample": ("sample",),
    "parameters": ("selection",),
    "batch-norm policy": ("bn",),
    "batch-norm batch": ("bn_batch",),
    "dtype": ("dtype",),
    "operator": ("operator",),
    "options": ("options",),
    "repeat": ("repeat",),
    "seeds of repeats": ("repeats", "seeds"),
    **{
        f"{what} of {axis}": ("directions", axis, what)
        for axis in "xy"
        for what in ("kind", "normalisation", "ignore", "seed", "orthogonal")
    },
}


def unlike(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what two results or more were computed differently by.

    Args:
        settings: Of each result, by name.

    Returns:
        Of each entry of `COMPARED` that differs, the value of each result.
    """
    found = {}
    for entry, path in COMPARED.items():
        found_here = {name: _at(stored, path) for name, stored in settings.items()}
        values = {name: value for name, value in found_here.items() if value is not None}
        texts = {json.dumps(value, sort_keys=True) for value in values.values()}
        if len(texts) > 1:
            found[entry] = values
    return found


def _at(settings: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = UNSTORED | dict(settings)
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def drawn_by_class(settings: Mapping[str, Any]) -> bool:
    """Whether a result is of a class-balanced sample, which does not stand for its split."""
    sample = settings.get("sample", {})
    draws = [sample, *(part for part in sample.values() if isinstance(part, Mapping))]
    return any(draw.get("drawn") == "balanced" for draw in draws)
