"""Histories of training as lines of JSON, a record for each pass, as some projects log them.

    {"step_type":"train","loss":0.4603,"accuracy":0.5750,"epoch":0}
    {"step_type":"test","loss":0.3276,"accuracy":0.6352,"epoch":0}

A file is appended to: it may hold several runs, and a run begins where the epochs of its `train`
records do not go on. A `test` record belongs to the `train` record before it, whatever epoch it
says (the last of a run says the last but one), and of several the last counts. A loss that is null
was not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from isoloss.records.files import FileError
from isoloss.records.json_text import check_entries, parse_object

RECORD = {"step_type": (str,), "loss": (float, NoneType), "epoch": (int,)}
ACCURACY = {"accuracy": (float, NoneType)}


@dataclass(frozen=True)
class LoggedRun:
    """One run of such a file, with what figures ask of a run.

    Attributes:
        label: What to call it.
        columns: `epoch` (from 1), `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`
            (fractions), each (epochs,), NaN where there is none.
    """

    label: str
    columns: dict[str, np.ndarray]
    status: str = "finished"

    def history(self) -> dict[str, np.ndarray]:
        """Return the columns."""
        return self.columns

    def config(self) -> dict[str, Any]:
        """Return nothing: such a file has no settings."""
        return {}


def read_history_lines(path: Path | str) -> list[LoggedRun]:
    """Return the runs in a file, in its order.

    Raises:
        FileError: If it is missing, or a line is no such record.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"expected a history, lines of JSON, got no file at {path}")
    runs: list[list[dict[str, float]]] = []
    last = None
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        record = _record(line, f"{path}, line {number},")
        kind, epoch = record["step_type"], record["epoch"]
        if kind == "train":
            if last is None or epoch != last + 1:
                runs.append([])
            last = epoch
            runs[-1].append({"epoch": epoch + 1.0})
        elif not runs:
            continue  # of a run whose beginning is not there
        for name in ("loss", "accuracy"):
            value = record.get(name)
            # A whole number may be larger than any float.
            if value is None or abs(value) >= 1e300:
                value = np.nan
            runs[-1][-1][f"{kind}_{name}"] = float(value)
    if not runs:
        raise FileError(
            f"expected a history in {path}, lines of JSON with step_type, loss, accuracy and "
            "epoch, got none"
        )
    return [LoggedRun(path.stem, _columns(run)) for run in runs]


def _record(line: bytes, what: str) -> dict[str, Any]:
    record = parse_object(line, what)
    needed: Mapping[str, Any] = RECORD | (ACCURACY if "accuracy" in record else {})
    check_entries(record, needed, what)
    if record["step_type"] not in ("train", "test") or not 0 <= record["epoch"] < 2**53:
        raise FileError(
            f"{what} expected step_type train or test and an epoch of 0 or more, got "
            f"{record['step_type'][:20]!r} and {str(record['epoch'])[:20]}"
        )
    return record


def _columns(run: list[dict[str, float]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for record in run for name in record)
    return {name: np.array([record.get(name, np.nan) for record in run]) for name in names}
