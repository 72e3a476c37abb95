"""Results as CSV: a line of names, then a row for each point, eigenvalue or place of the curve."""

from __future__ import annotations

import numpy as np

from isoloss.records.files import csv_bytes
from isoloss.records.over_training import OverTrainingData
from isoloss.records.spectra import DensityData, SpectrumData
from isoloss.records.surface_data import SurfaceData


def surface_csv(data: SurfaceData) -> bytes:
    """Return a row for each point along each direction or plane.

    Columns are `repeat` (0 is the first), `x`, `y` for a surface, those of the values, and `done`
    (1 or 0). A value of a point that is not finished is empty; one that was computed and is not
    finite is `nan`, `inf` or `-inf`.
    """
    frame = data.to_dataframe()
    done = np.ravel(data.done if data.repeats is None else data.repeats.done)
    places = [name for name in ("repeat", "x", "y") if name in frame]
    columns = []
    for name in frame:
        column = frame[name].tolist()
        if name not in places:
            column = [v if there else "" for v, there in zip(column, done, strict=True)]
        columns.append(column)
    columns.append(done.astype(int).tolist())
    return csv_bytes([*frame, "done"], zip(*columns, strict=True))


def eigenvalues_csv(data: SpectrumData) -> bytes:
    """Return a row for each eigenvalue: `end`, `eigenvalue`, `residual` and, where known, error."""
    frame = data.to_dataframe()
    return csv_bytes(list(frame), frame.itertuples(index=False, name=None))


def training_csv(data: OverTrainingData) -> bytes:
    """Return a row for each checkpoint; what is not known, or was not asked for, is `nan`."""
    frame = data.to_dataframe()
    return csv_bytes(list(frame), frame.itertuples(index=False, name=None))


def density_csv(density: DensityData) -> bytes:
    """Return the smoothed density: `grid`, and `curve`, `low`, `high` over probes there."""
    names = ["grid", "curve", "low", "high"]
    return csv_bytes(names, zip(*(getattr(density, n).tolist() for n in names), strict=True))
