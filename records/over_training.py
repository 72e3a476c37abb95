"""The HDF5 file of the curvature over a training, a row for each checkpoint.

Layout: `epochs`, `steps`, `learning_rates`, `losses`, `gradient_norms`, `thresholds`, `products`,
`converged` (E,); `eigenvalues`, `residuals` (E, k), descending in each row; `trace`,
`trace_standard_error` (E,) where asked for; `eigenvectors/<parameter>` (k, *shape) of the last row
that has them, which the next search begins from; `cold/{eigenvalues,residuals,products}`, the last
row once more from a random start. SHA-256 of the checkpoints are in the attribute `checkpoints`, by
epoch. The same content gives the same bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from isoloss.records.files import FileError, write_text
from isoloss.records.hdf5 import open_hdf5, write_hdf5
from isoloss.records.json_text import to_json
from isoloss.records.tables import data_frame

if TYPE_CHECKING:
    import pandas as pd

KIND = "curvature-over-training"


@dataclass(frozen=True)
class Row:
    """The curvature at one checkpoint.

    Attributes:
        epoch: Epochs trained, 0 at the start.
        step: Steps taken.
        checkpoint: SHA-256 of its file.
        learning_rate: Of the step that leaves from there; at the end, of the last one.
        loss: At these weights, without weight decay.
        gradient_norm: Euclidean, of that loss; NaN where the loss is not finite.
        threshold: Largest eigenvalue that the optimizer's steps are stable at; NaN if not known.
        eigenvalues: (k,) descending; NaN where the loss is not finite.
        residuals: (k,).
        converged: Whether these met the tolerance.
        products: Matrix-vector products that the eigenvalues took.
        trace: NaN if not asked for.
        trace_standard_error: Over random probes; NaN with it.
    """

    epoch: int
    step: int
    checkpoint: str
    learning_rate: float
    loss: float
    gradient_norm: float
    threshold: float
    eigenvalues: np.ndarray
    residuals: np.ndarray
    converged: bool
    products: int
    trace: float = math.nan
    trace_standard_error: float = math.nan


@dataclass(frozen=True)
class ColdStart:
    """The last row's eigenvalues once more, from a random start."""

    eigenvalues: np.ndarray
    residuals: np.ndarray
    products: int


@dataclass(frozen=True)
class OverTrainingData:
    """The curvature over a training.

    Attributes:
        settings: What it was computed from.
        rows: By epoch, ascending.
        eigenvectors: By parameter, (k, *shape), of the last row that has them.
        cold: None while checkpoints are pending, and of one alone.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    eigenvectors: dict[str, np.ndarray] = field(default_factory=dict)
    cold: ColdStart | None = None

    def __repr__(self) -> str:
        return "\n".join(["epoch  lambda_max  threshold  loss", *map(_line, self.rows)])

    def column(self, name: str) -> np.ndarray:
        """Return one number of each row by its name in `Row`, (E,), or (E, k)."""
        return np.array([getattr(row, name) for row in self.rows])

    def stored_columns(self) -> dict[str, np.ndarray]:
        """Return the numbers of all rows by their names in the file, the trace where asked for."""
        columns = {stored: self.column(name) for stored, name in _COLUMNS.items()}
        return {
            name: column
            for name, column in columns.items()
            if not (name.startswith("trace") and np.isnan(column).all())
        }

    def to_dataframe(self) -> pd.DataFrame:
        """Return a pandas data frame, a row for each checkpoint, eigenvalues as `lambda_1`, .."""
        rows = [_flat(row) for row in self.rows]
        return data_frame(rows or {"epoch": []})


def write_over_training(path: Path | str, data: OverTrainingData) -> None:
    """Write the finished rows; the file is replaced whole.

    Raises:
        FileError: If the file cannot be written; what was there before is unchanged.
    """

    def fill(file: h5py.File) -> None:
        checkpoints = {str(row.epoch): row.checkpoint for row in data.rows}
        file.attrs["checkpoints"] = json.dumps(checkpoints)
        for name, column in data.stored_columns().items():
            file.create_dataset(name, data=column)
        if data.eigenvectors:
            # Tracked order: the parameters come back in the order of the operator's vectors.
            group = file.create_group("eigenvectors", track_order=True)
            for name, array in data.eigenvectors.items():
                group.create_dataset(name, data=array)
        if data.cold is not None:
            group = file.create_group("cold")
            for name, value in vars(data.cold).items():
                group.create_dataset(name, data=value)

    size = sum(array.nbytes for array in data.eigenvectors.values())
    write_hdf5(Path(path), KIND, data.settings, fill, size)


def read_over_training(path: Path | str) -> OverTrainingData:
    """Read such a file.

    Raises:
        FileError: If the file is missing, truncated, or holds something else.
    """
    path = Path(path)
    with open_hdf5(path, KIND) as file:
        count = len(file.array("epochs", (None,)))
        several = {"eigenvalues", "residuals"}
        k = file.array("eigenvalues", (count, None)).shape[1]
        columns = {
            name: file.array(stored, (count, k) if stored in several else (count,))
            for stored, name in _COLUMNS.items()
            if stored in file or not stored.startswith("trace")
        }
        for name in _COUNTS:
            _check_counts(path, name, columns[name])
        epochs = [str(int(epoch)) for epoch in columns["epoch"]]
        checkpoints = file.json("checkpoints", dict.fromkeys(epochs, (str,)))
        vectors, cold = {}, None
        if "eigenvectors" in file:
            group = file.group("eigenvectors")
            vectors = {name: group.array(name, (k, ...)) for name in group.names()}
        if "cold" in file:
            group = file.group("cold")
            values, residuals = (group.array(n, (k,)) for n in ("eigenvalues", "residuals"))
            cold = ColdStart(values, residuals, group.count("products"))
        settings = file.json("settings")
    rows = tuple(
        Row(
            checkpoint=checkpoints[epochs[i]],
            **{name: _plain(name, column[i]) for name, column in columns.items()},
        )
        for i in range(count)
    )
    return OverTrainingData(settings, rows, vectors, cold)


def write_over_training_summary(path: Path, data: OverTrainingData) -> None:
    """Write the numbers as JSON, for people."""
    write_text(path, json.dumps(over_training_summary(data), indent=2, allow_nan=False) + "\n")


def over_training_summary(data: OverTrainingData) -> dict[str, Any]:
    """Return the numbers, JSON-able: what is not finite is None."""
    return {
        "rows": to_json(data.rows),
        "last_from_a_random_start": to_json(data.cold),
        "settings": json.loads(json.dumps(data.settings, sort_keys=True)),
    }


# Datasets by what a row calls them.
_COLUMNS = {
    "epochs": "epoch",
    "steps": "step",
    "learning_rates": "learning_rate",
    "losses": "loss",
    "gradient_norms": "gradient_norm",
    "thresholds": "threshold",
    "eigenvalues": "eigenvalues",
    "residuals": "residuals",
    "converged": "converged",
    "products": "products",
    "trace": "trace",
    "trace_standard_error": "trace_standard_error",
}
_COUNTS = ("epoch", "step", "products")


def _check_counts(path: Path, name: str, column: np.ndarray) -> None:
    whole = np.isfinite(column) & (column == np.floor(column)) & (column >= 0) & (column < 2**53)
    if not whole.all() or (name == "epoch" and (np.diff(column) <= 0).any()):
        raise FileError(
            f"expected {name} of each row as a count, epochs ascending, got others: {path} is "
            "damaged\nput a copy of it back, or move it away and give its command again"
        )


def _plain(name: str, value: Any) -> Any:
    if name in ("eigenvalues", "residuals"):
        return value
    if name == "converged":
        return bool(value)
    return int(value) if name in _COUNTS else float(value)


def _flat(row: Row) -> dict[str, Any]:
    numbers = {k: v for k, v in vars(row).items() if not isinstance(v, np.ndarray)}
    return {**numbers, **{f"lambda_{i + 1}": v for i, v in enumerate(row.eigenvalues)}}


def _line(row: Row) -> str:
    return f"{row.epoch:5d}  {row.eigenvalues[0]:10.5g}  {row.threshold:9.5g}  {row.loss:.5g}"
