"""A surface or curve as arrays, and what several random directions say of it together.

Along one random direction the loss may rise several times as fast as along the next: a single
draw is a sample of size one. A surface with repeats holds K independent draws of its direction or
plane, and this module their median and band, point by point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from isoloss.records.files import FileError
from isoloss.records.tables import data_frame
from isoloss.records.trajectories import Trajectory

if TYPE_CHECKING:
    import pandas as pd

# A tail of a tenth takes ten draws to hold one: with fewer, the band is the whole range.
ENOUGH_FOR_QUANTILES = 10
BAND = (0.1, 0.9)


@dataclass(frozen=True)
class Repeats:
    """What was found along each of K > 1 directions or planes, the first included.

    Attributes:
        values: By column, each (K, ny, nx) or (K, nx); pending ones NaN.
        done: Which points are finished, same shape.
        cosines: Cosine of the angle within each pair of directions, (K,); None for curves.
    """

    values: dict[str, np.ndarray]
    done: np.ndarray
    cosines: np.ndarray | None = None

    @property
    def finished(self) -> np.ndarray:
        """Numbers of the repeats all of whose points are done, (M,), ascending."""
        return np.flatnonzero(self.done.reshape(len(self.done), -1).all(axis=1))


@dataclass(frozen=True)
class Spread:
    """What a column spans over directions at one point.

    Attributes:
        at: Coordinates (x,) or (x, y).
        low: Smallest value over directions.
        median: Median over directions.
        high: Largest value over directions.
    """

    at: tuple[float, ...]
    low: float
    median: float
    high: float

    @property
    def ratio(self) -> float:
        """The largest value over the smallest."""
        return self.high / self.low


@dataclass(frozen=True)
class SurfaceData:
    """A surface or curve as arrays.

    Of a surface with repeats, `values`, `done` and `cosine` are those of the first direction or
    plane: what the same surface without repeats holds. Statistics over directions are taken over
    the repeats that are finished, so that all their points stand on the same draws; where none
    is, the first one stands alone.

    Attributes:
        x: Coordinates along the first direction, (nx,).
        y: Coordinates along the second direction, (ny,); None for a curve.
        values: By column (`train_loss`, `train_acc` in percent, ..), each (ny, nx) or (nx,).
        done: Which points are finished, same shape.
        origin: The columns' values at theta0.
        settings: How it was made; empty for files of another program.
        cosine: Cosine of the angle between the two directions; None for a curve.
        repeats: Of all directions or planes; None where there is one.
        trajectories: Paths of trainings on the plane, by run.
    """

    x: np.ndarray
    y: np.ndarray | None
    values: dict[str, np.ndarray]
    done: np.ndarray
    origin: dict[str, float]
    settings: dict[str, Any]
    cosine: float | None = None
    repeats: Repeats | None = None
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)

    def __repr__(self) -> str:
        axes = {"x": self.x} if self.y is None else {"x": self.x, "y": self.y}
        spans = ", ".join(
            f"{len(c)} points of {name} from {c[0]:g} to {c[-1]:g}" for name, c in axes.items()
        )
        done = self.done if self.repeats is None else self.repeats.done
        finished = "" if done.all() else f", {done.sum():,} of {done.size:,} points done"
        several = "" if self.repeats is None else f", {self.repeat} directions or planes"
        lines = [f"SurfaceData({spans}{several}{finished})"]
        for name in self.values:
            found = (self.values if self.repeats is None else self.repeats.values)[name]
            finite = found[np.isfinite(found)]
            at = f"{self.origin[name]:.6g} at the weights, " if name in self.origin else ""
            if finite.size:
                lines.append(f"  {name}: {at}{finite.min():.6g} to {finite.max():.6g}")
        if self.trajectories:
            lines.append(f"  paths of {', '.join(self.trajectories)}")
        return "\n".join(lines)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a pandas data frame with a row for each point along each direction or plane.

        Columns are `repeat` (0 is the first), `x`, `y` for a surface, and those of `values`, NaN
        where a point is not finished.
        """
        values = {name: np.asarray(found)[None] for name, found in self.values.items()}
        if self.repeats is not None:
            values = self.repeats.values
        axes = {"repeat": np.arange(self.repeat), "y": self.y, "x": self.x}
        there = {name: axis for name, axis in axes.items() if axis is not None}
        grids = dict(zip(there, np.meshgrid(*there.values(), indexing="ij"), strict=True))
        columns = {name: grids[name] for name in ("repeat", "x", "y") if name in grids} | values
        return data_frame({name: np.ravel(column) for name, column in columns.items()})

    @property
    def repeat(self) -> int:
        """Number of directions or planes K, 1 where there are no repeats."""
        return 1 if self.repeats is None else len(self.repeats.done)

    @property
    def directions_done(self) -> int:
        """Number of directions or planes M that the statistics are over, from 1 to K."""
        return 1 if self.repeats is None else max(1, len(self.repeats.finished))

    @property
    def median_done(self) -> np.ndarray:
        """Points that median and band have a value at, (ny, nx) or (nx,)."""
        if self.repeats is None or not len(self.repeats.finished):
            return self.done
        return np.ones_like(self.done)

    def along_each(self, column: str) -> np.ndarray:
        """Return a column along each finished direction or plane, (M, ny, nx) or (M, nx)."""
        if self.repeats is None or not len(self.repeats.finished):
            return np.asarray(self.values[column])[None]
        return self.repeats.values[column][self.repeats.finished]

    def median(self, column: str) -> np.ndarray:
        """Return the median over directions at each point, (ny, nx) or (nx,).

        A point that is NaN along any direction is NaN; infinities are larger than all else.
        """
        each = self.along_each(column)
        return each[0] if len(each) == 1 else np.median(each, axis=0)

    def band(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what the directions span at each point, low and high, as `band_name` says.

        Below ten directions that is their whole range. From ten on it is their central 80 %, the
        quantiles of 0.1 and 0.9 taken outwards to the next value found, without interpolation. It
        shows how much directions differ and is no confidence band of the median.
        """
        each = self.along_each(column)
        if len(each) < ENOUGH_FOR_QUANTILES:
            return each.min(axis=0), each.max(axis=0)
        low, high = BAND
        return (
            np.quantile(each, low, axis=0, method="lower"),
            np.quantile(each, high, axis=0, method="higher"),
        )

    def widest(self, column: str) -> Spread | None:
        """Return where directions differ most, by the ratio of largest to smallest value.

        Over points where all are positive and finite; None where there is none or one direction.
        """
        each = self.along_each(column)
        low, high = each.min(axis=0), each.max(axis=0)
        sound = self.median_done & np.isfinite(high) & (low > 0)
        if len(each) == 1 or not sound.any():
            return None
        ratio = np.divide(high, low, out=np.zeros(low.shape), where=sound)
        at = np.unravel_index(int(ratio.argmax()), ratio.shape)
        place = (self.x[at[-1]],) if self.y is None else (self.x[at[1]], self.y[at[0]])
        numbers = (float(array[at]) for array in (low, self.median(column), high))
        return Spread(tuple(float(c) for c in place), *numbers)

    @property
    def band_name(self) -> str:
        """What `band` returns, in words: ``range`` or ``10th to 90th percentiles``."""
        if self.directions_done < ENOUGH_FOR_QUANTILES:
            return "range"
        return f"{100 * BAND[0]:.0f}th to {100 * BAND[1]:.0f}th percentiles"

    @property
    def median_loss(self) -> np.ndarray:
        """Median over directions of the loss: of training, else test, else validation."""
        return self.median(self._loss())

    @property
    def loss_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest of the same loss over directions; equal where there is one."""
        each = self.along_each(self._loss())
        return each.min(axis=0), each.max(axis=0)

    def _loss(self) -> str:
        for column in ("train_loss", "test_loss", "val_loss"):
            if column in self.values:
                return column
        raise FileError(
            f"expected a surface of a loss, got one of {', '.join(self.values) or 'nothing'}"
        )
