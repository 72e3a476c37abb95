"""The JSON file of a network's sharpness: a row for each measure, ball and radius.

`settings` say what it was computed from; `rows` hold one measure each; `rescaling` says with which
layers and factor the measures were computed a second time, null where they were not.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from isoloss.records.files import FileError, write_text
from isoloss.records.json_text import check_entries, read_object, to_json

KIND = "sharpness"
# Two values of a measure of one function, with other weights, that count as the same.
UNCHANGED = 1e-3

# Which measures do not change where a ReLU layer is scaled up and the next one down, by theory.
_INVARIANT = {"relative flatness": True, "lambda_max": False, "trace": False}
_NUMBER = (float, NoneType)
_ROW = {
    "measure": (str,), "ball": (str,), "radius": _NUMBER, "eta": _NUMBER, "value": _NUMBER,
    "error": _NUMBER, "error_of": (str,), "lowest": _NUMBER, "account": (dict,),
    "rescaled": _NUMBER,
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One measure.

    Attributes:
        measure: `one step`, `worst case`, `average`, `m-sharpness`, `relative flatness`,
            `lambda_max` or `trace`.
        ball: `l2`, `adaptive`, or empty for measures of no ball.
        radius: rho; NaN without a ball.
        eta: Of an adaptive ball; NaN of others.
        value: In the loss's unit, nats for a cross-entropy; NaN where it could not be computed,
            the account says why.
        error: Standard error or residual; NaN where there is none, as of a lower bound.
        error_of: What the error is over: `draws`, `subsets`, `probes` or `solver`; empty.
        lowest: Of a search, what its worst start found; NaN of others.
        account: How it was computed.
        rescaled: The same measure at other weights of the same function; NaN where not computed.
    """

    measure: str
    ball: str
    radius: float
    value: float
    eta: float = math.nan
    error: float = math.nan
    error_of: str = ""
    lowest: float = math.nan
    account: dict[str, Any] = field(default_factory=dict)
    rescaled: float = math.nan

    @property
    def key(self) -> tuple[str, str, float]:
        """What the measure is called, its ball and radius (-1 without)."""
        return self.measure, self.ball, -1.0 if math.isnan(self.radius) else self.radius

    @property
    def invariant(self) -> bool:
        """Whether it stays what it is where ReLU layers are rescaled.

        Measured where that was done: to `UNCHANGED`; else by theory.
        """
        if math.isfinite(self.rescaled):
            largest = max(abs(self.value), abs(self.rescaled))
            return abs(self.value - self.rescaled) <= UNCHANGED * largest
        return _INVARIANT.get(self.measure, self.ball == "adaptive" and self.eta == 0)

    @property
    def mark(self) -> str:
        """How a table says that."""
        said = "yes" if self.invariant else "no"
        return f"{said}, measured" if math.isfinite(self.rescaled) else said


@dataclass(frozen=True)
class SharpnessData:
    """The sharpness of a network.

    Attributes:
        settings: What it was computed from.
        rows: The measures.
        rescaling: Layers and factor of the second set of weights; None without.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    rows: tuple[Measured, ...] = ()
    rescaling: dict[str, Any] | None = None

    def find(self, measure: str, ball: str = "") -> list[Measured]:
        """Return the rows of a measure and ball, by radius."""
        rows = [row for row in self.rows if (row.measure, row.ball) == (measure, ball)]
        return sorted(rows, key=lambda row: row.key)


def write_sharpness(path: Path, data: SharpnessData) -> None:
    """Write the measures; the file is replaced whole."""
    content = {
        "kind": KIND,
        "settings": data.settings,
        "rescaling": data.rescaling,
        "rows": [dataclasses.asdict(row) for row in data.rows],
    }
    write_text(path, json.dumps(to_json(content), indent=2, allow_nan=False) + "\n")


def read_sharpness(path: Path | str) -> SharpnessData:
    """Read the measures.

    Raises:
        FileError: If it is no such file, or damaged.
    """
    path = Path(path)
    content = read_object(path)
    if content.get("kind") != KIND:
        raise FileError(f"expected a file of sharpness, got {path} of another kind")
    needed = {"settings": (dict,), "rows": (list,), "rescaling": (dict, NoneType)}
    check_entries(content, needed, str(path))
    rows = []
    for number, entry in enumerate(content["rows"]):
        what = f"{path}, row {number}"
        if not isinstance(entry, dict):
            raise FileError(f"{what} is damaged: expected an object, got {type(entry).__name__}")
        check_entries(entry, _ROW, what)
        held: dict[str, Any] = {
            name: _number(entry[name]) if kinds is _NUMBER else entry[name]
            for name, kinds in _ROW.items()
        }
        rows.append(Measured(**held))
    return SharpnessData(content["settings"], tuple(rows), content["rescaling"])


def sharpness_rows(runs: Sequence[tuple[str, SharpnessData]]) -> list[dict[str, Any]]:
    """Return the measures of some runs as rows of a table, numbers as they are."""
    return [
        {
            "run": label,
            "measure": row.measure,
            "ball": row.ball,
            "radius": row.radius,
            "eta": row.eta,
            "value": row.value,
            "error": row.error,
            "error_of": row.error_of,
            "lowest_start": row.lowest,
            "unchanged_by_rescaling": row.mark,
            "rescaled": row.rescaled,
        }
        for label, data in runs
        for row in data.rows
    ]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
