"""The coordinates a surface is evaluated at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isoloss.errors import UsageError

# Points: a hundred days of a tenth of a second each, and some gigabytes of values.
LARGEST_GRID = 100_000_000


class GridError(UsageError, ValueError):
    """An axis that is not `min:max:count` with min < max and a count that holds both ends."""


@dataclass(frozen=True)
class Axis:
    """Equally spaced coordinates from `low` to `high`, both ends included.

    Attributes:
        low: First coordinate, in units of the direction.
        high: Last coordinate.
        count: Number of coordinates; 1 only where `low` equals `high`.
    """

    low: float
    high: float
    count: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise GridError(f"expected finite ends of an axis, got {self.low} and {self.high}")
        if self.low > self.high or (self.low == self.high and self.count != 1):
            raise GridError(
                f"expected min below max (or min:min:1 for a single point), got {self.text}"
            )
        if self.count > LARGEST_GRID:
            raise GridError(f"expected {LARGEST_GRID:,} points at most, got {self.count:,}")
        if self.count < (1 if self.low == self.high else 2):
            raise GridError(
                f"expected 2 points or more to include both ends of {self.low:g}:{self.high:g}, "
                f"got {self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Axis:
        """Read `min:max:count`, for example `-1:1:51`.

        Raises:
            GridError: If the text has another form or describes no axis.
        """
        parts = text.split(":")
        try:
            low, high, count = float(parts[0]), float(parts[1]), int(parts[2])
            if len(parts) != 3:
                raise ValueError
        except (ValueError, IndexError):
            raise GridError(
                f"expected an axis as min:max:count, for example -1:1:51, got {text!r}"
            ) from None
        return cls(low, high, count)

    @property
    def text(self) -> str:
        """The axis as `min:max:count`, exactly: it identifies the grid of a stored surface."""
        low, high = (repr(end).removesuffix(".0") for end in (self.low, self.high))
        return f"{low}:{high}:{self.count}"

    @property
    def points(self) -> np.ndarray:
        """The coordinates, shape (count,), float64; 0 is exactly 0 where the axis meets it."""
        points = np.linspace(self.low, self.high, self.count)
        span = max(self.high - self.low, abs(self.low))
        points[1:-1][np.abs(points[1:-1]) < 1e-12 * span] = 0.0  # the ends are what was asked for
        return points


@dataclass(frozen=True)
class Grid:
    """One axis for a curve, two for a surface. Arrays over it are indexed `[iy, ix]`.

    Attributes:
        x: Coordinates along the first direction.
        y: Coordinates along the second direction; None for a curve.
    """

    x: Axis
    y: Axis | None = None

    def __post_init__(self) -> None:
        if self.size > LARGEST_GRID:
            raise GridError(
                f"expected {LARGEST_GRID:,} points at most, got {' x '.join(map(str, self.shape))} "
                f"= {self.size:,}"
            )

    @classmethod
    def parse(cls, x: str, y: str | None = None) -> Grid:
        """Read one or two axes as `min:max:count`.

        Raises:
            GridError: If an axis is malformed; the message names it.
        """
        axes = []
        for name, text in (("x", x), ("y", y)):
            try:
                axes.append(None if text is None else Axis.parse(text))
            except GridError as error:
                raise GridError(f"{name} axis: {error}") from None
        if axes[0] is None:
            raise GridError("x axis: expected min:max:count, got none")
        return cls(axes[0], axes[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """(ny, nx), or (nx,) for a curve."""
        return (self.x.count,) if self.y is None else (self.y.count, self.x.count)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    def coordinates(self, index: int) -> tuple[float, ...]:
        """Return (x,) or (x, y) of a point by its row-major index."""
        position = np.unravel_index(index, self.shape)
        x = float(self.x.points[position[-1]])
        return (x,) if self.y is None else (x, float(self.y.points[position[0]]))
