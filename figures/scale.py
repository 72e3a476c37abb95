"""The scale of a field: its limits, whether it is logarithmic, and the levels of its contours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from isoloss.figures.style import FigureError

DECADES = 2.0
"""A positive range of more decades than this is drawn on a logarithmic scale."""
CLIP = 100.0
"""A logarithmic scale ends at this many times the value that nine in ten stay below: a few spikes
beyond are drawn as its end, so that they do not take the range from all the others."""

# Mantissas of "round" geometric levels, from coarse to fine.
_MANTISSAS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
)


@dataclass(frozen=True)
class Scale:
    """How values become heights and colours; panels that share one can be compared by eye."""

    vmin: float
    vmax: float
    log: bool
    levels: tuple[float, ...]  # round values, ascending, all within (vmin, vmax)
    clipped: bool  # there are values above vmax, drawn as vmax
    below: bool = False  # there are values below a vmin that was asked for, drawn as that

    @property
    def name(self) -> str:
        """The word for the axis or colour bar."""
        return "log scale" if self.log else "linear scale"

    def norm(self) -> Normalize:
        """Return the map from values to [0, 1] for colours; values beyond take the end colours."""
        return (LogNorm if self.log else Normalize)(self.vmin, self.vmax, clip=True)

    def clip(self, values: np.ndarray) -> np.ndarray:
        """Return values brought into [vmin, vmax]; NaN stays NaN and infinities become NaN."""
        values = np.asarray(values, dtype=float)
        return np.clip(np.where(np.isfinite(values), values, np.nan), self.vmin, self.vmax)

    def height(self, values: np.ndarray | float | Sequence[float]) -> np.ndarray:
        """Return heights for a linear axis: the values, or their decimal logarithms."""
        clipped = self.clip(np.asarray(values, dtype=float))
        return np.log10(clipped) if self.log else clipped


@dataclass(frozen=True)
class Look:
    """What a reader asks of a figure's scale; what is None is left to the values.

    Attributes:
        vmin: Lower end of the scale; values below are drawn as that.
        vmax: Upper end.
        log: Whether it is logarithmic.
        levels: About how many contour lines, or their values.
        xlim: Ends of the horizontal axis of a curve or a density.

    Raises:
        FigureError: For ends in the wrong order, or a logarithmic scale from 0 or below.
    """

    vmin: float | None = None
    vmax: float | None = None
    log: bool | None = None
    levels: int | tuple[float, ...] | None = None
    xlim: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.vmin is not None and self.vmax is not None and not self.vmin < self.vmax:
            raise FigureError(f"expected vmin below vmax, got {self.vmin:g} and {self.vmax:g}")
        if self.log and any(end is not None and end <= 0 for end in (self.vmin, self.vmax)):
            raise FigureError("expected positive vmin and vmax on a logarithmic scale, got others")
        if self.xlim is not None and not self.xlim[0] < self.xlim[1]:
            raise FigureError(f"expected xlim from low to high, got {self.xlim}")

    def scale(
        self, arrays: Iterable[np.ndarray], *, log: bool | None = None, clip: bool = True
    ) -> Scale:
        """Return a scale for fields; `log` and `clip` are as of `shared_scale`."""
        several = self.levels if isinstance(self.levels, tuple) else None
        return shared_scale(
            arrays,
            log=log if self.log is None else self.log,
            clip=clip,
            count=self.levels if isinstance(self.levels, int) else 11,
            vmin=self.vmin,
            vmax=self.vmax,
            levels=several,
        )


def prefers_log(values: np.ndarray) -> bool:
    """Return whether values have no negative one and span over two decades where positive."""
    finite = _finite([values])
    positive = finite[finite > 0]
    if positive.size == 0 or finite.min() < 0:
        return False
    return bool(math.log10(positive.max()) - math.log10(positive.min()) > DECADES)


def shared_scale(
    arrays: Iterable[np.ndarray],
    *,
    log: bool | None = None,
    clip: bool = True,
    count: int = 11,
    vmin: float | None = None,
    vmax: float | None = None,
    levels: Sequence[float] | None = None,
) -> Scale:
    """Choose one scale for several fields.

    Args:
        arrays: Values of any shape; non-finite ones are passed over.
        log: Logarithmic or not; None chooses by `prefers_log`. Zeros on a logarithmic scale are
            drawn at the smallest positive value. A field with negative or without positive values
            cannot be logarithmic, whatever is asked, but from a positive `vmin` on.
        clip: Let a logarithmic scale end below a few extreme values (`CLIP`).
        count: About how many contour levels to aim at.
        vmin: Lower end; None for the smallest value.
        vmax: Upper end; None for the largest.
        levels: The contour levels, in place of round ones.

    Returns:
        The scale. Without any finite value it is [0, 1]; a constant gets a little room around it.
    """
    finite = _finite(arrays)
    if finite.size == 0:
        return Scale(0.0, 1.0, False, (), False)
    below = vmin is not None and bool(finite.min() < vmin)
    above = vmax is not None and bool(finite.max() > vmax)
    finite = np.clip(
        finite, -math.inf if vmin is None else vmin, math.inf if vmax is None else vmax
    )
    if log is None:
        log = prefers_log(finite)
    log = log and bool(finite.min() >= 0) and bool(finite.max() > 0)
    log = log and (vmin is None or vmin > 0)
    lowest = float(finite[finite > 0].min() if log else finite.min()) if vmin is None else vmin
    highest = float(finite.max()) if vmax is None else vmax
    # Fewer than ten values cannot have a tenth that is extreme.
    ceiling = (
        CLIP * float(np.quantile(finite, 0.9, method="lower")) if finite.size >= 10 else highest
    )
    clipped = clip and log and vmax is None and lowest < ceiling < highest
    highest = ceiling if clipped else highest
    if lowest == highest:
        room = abs(lowest) * 0.05 or 0.5
        low, high = (lowest / 1.05, lowest * 1.05) if log else (lowest - room, lowest + room)
        return Scale(low, high, log, (), above, below)
    if levels is not None:
        chosen = tuple(sorted(float(level) for level in levels if lowest < level < highest))
    else:
        chosen = (_geometric_levels if log else _linear_levels)(lowest, highest, count)
    return Scale(lowest, highest, log, chosen, clipped or above, below)


def _finite(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Return all finite values of some arrays, flat."""
    flat = [np.asarray(array, dtype=float).ravel() for array in arrays]
    values = np.concatenate(flat) if flat else np.empty(0)
    return values[np.isfinite(values)]


def _linear_levels(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return round equidistant levels within an open interval."""
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return tuple(float(tick) for tick in ticks if low < tick < high)


def _geometric_levels(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return round levels within an open interval, about equidistant in the logarithm."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    best: tuple[float, ...] = ()
    for mantissas in _MANTISSAS:
        levels = tuple(
            level
            for power in decades
            for level in (float(f"{m}e{power}") for m in mantissas)
            if low < level < high
        )
        if not best or abs(len(levels) - count) < abs(len(best) - count):
            best = levels
    while len(best) > 2 * count:  # tens of decades: every second, fourth, ... power
        best = best[::2]
    return best
