"""What is drawn of a stored surface: a named quantity, its points, and which of them are sound.

A point is *pending* when it has not been computed (drawn blank), *flawed* when it has and is NaN or
infinite (drawn hatched), and *sound* otherwise. The store keeps `done` apart from the values, so
that the first two, both NaN in the array, are not mistaken for each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoloss.figures.formatting import number
from isoloss.figures.ratio import RATIO
from isoloss.figures.scale import Look, Scale
from isoloss.figures.style import FigureError
from isoloss.records.identity import drawn_by_class

if TYPE_CHECKING:
    from isoloss.records.surface_data import Spread
    from isoloss.records.surfaces import SurfaceData

_NAMES = {
    "loss": "loss",
    "acc": "accuracy (%)",
    "max_eig": "largest Hessian eigenvalue",
    "min_eig": "smallest Hessian eigenvalue",
    "grad_norm": "gradient norm",
    RATIO: "|smallest / largest eigenvalue|",
}
# Eigenvalues with larger residuals, relative to them, are counted in a note.
_CONVERGED = 0.01


@dataclass(frozen=True)
class Directions:
    """What single directions or planes have at the points of a field that is their median.

    Attributes:
        each: Values along each finished one, (M, ny, nx) or (M, nx).
        low: Lower end of the band, shaped as the field.
        high: Its upper end.
        band: What the band is, in words: ``range`` or ``10th to 90th percentiles``.
        total: How many there will be, K.
        widest: Where they differ most, where that can be said.
        of: What they are, where not directions or planes: ``runs``.
    """

    each: np.ndarray
    low: np.ndarray
    high: np.ndarray
    band: str
    total: int
    widest: Spread | None
    of: str = ""

    def notes(self, *, planes: bool) -> list[str]:
        """Return of how many the field is the median and, of planes, the most that they span."""
        what = self.of or ("planes" if planes else "directions")
        count, notes = len(self.each), []
        if count == 1:
            notes.append(f"one of {self.total} {what}: the others are pending")
        else:
            waiting = f" ({self.total - count} pending)" if count < self.total else ""
            band = "" if planes else f", band: {self.band if self.of else f'their {self.band}'}"
            notes.append(f"median of {count} {what}{waiting}{band}")
        if planes and self.widest is not None:  # a curve's figure shows it
            at = ", ".join(
                f"{name} = {c:.3g}" for name, c in zip("xy", self.widest.at, strict=False)
            )
            span = f"{number(self.widest.low)} to {number(self.widest.high)}"
            notes.append(f"they differ most at {at}: {span}")
        if flawed := int((~np.isfinite(self.each)).any(axis=0).sum()):
            notes.append(f"non-finite along one or more at {flawed} of {self.low.size} points")
        return notes


@dataclass(frozen=True)
class Field:
    """One quantity over a grid, ready to be drawn; of a surface with repeats, their median.

    `values` and `done` have the shape (ny, nx) of a surface, or (nx,) with `y` None of a curve;
    `values[iy, ix]` belongs to the point (x[ix], y[iy]).
    """

    key: str
    x: np.ndarray
    y: np.ndarray | None
    values: np.ndarray
    done: np.ndarray
    origin: float | None  # value at (0, 0), where known
    x_label: str
    y_label: str
    balanced: bool = False  # whether the samples were drawn by class, so that it is not the split's
    directions: Directions | None = None  # what the median is of, where there are several
    ends: tuple[tuple[float, float, str], ...] = ()  # where other checkpoints lie, and their names
    remarks: tuple[str, ...] = ()  # what else a reader must know of the quantity

    @property
    def label(self) -> str:
        """The quantity in words: ``train loss``, ``test accuracy (%)``."""
        return quantity(self.key)

    @property
    def several(self) -> Directions | None:
        """What the median is of, where two directions or more are finished."""
        return self.directions if self.directions and len(self.directions.each) > 1 else None

    @property
    def sound(self) -> np.ndarray:
        """Where the values are finite."""
        return self.done & np.isfinite(self.values)

    @property
    def flawed(self) -> np.ndarray:
        """Where a value was computed and is NaN or infinite."""
        return self.done & ~np.isfinite(self.values)

    @property
    def drawable(self) -> np.ndarray:
        """The values as floats, NaN wherever they are not sound."""
        return np.where(self.sound, self.values, np.nan)

    def scale(self, look: Look | None = None) -> Scale:
        """Return the scale this field gets when it shares none."""
        return scale_of([self], look)

    def notes(self, scale: Scale | None = None) -> list[str]:
        """Return what of the grid is not drawn as an ordinary value, and of which samples it is."""
        total, notes = self.values.size, []
        if self.balanced:
            notes.append("a class-balanced sample: not the loss of the split")
        notes += self.remarks
        if self.directions is not None:
            notes += self.directions.notes(planes=self.y is not None)
        if flawed := int(self.flawed.sum()):
            nans = int(np.isnan(self.values[self.flawed]).sum())
            kinds = [f"{nans} NaN"] * bool(nans) + [f"{flawed - nans} inf"] * bool(flawed - nans)
            notes.append(f"hatched: {flawed} of {total} points non-finite ({', '.join(kinds)})")
        if pending := int((~self.done).sum()):
            notes.append(f"blank: {pending} of {total} points pending")
        if not self.sound.any():
            notes.append("no finite value to draw")
            return notes
        values = self.values[self.sound]
        if values.min() == values.max():
            notes.append(f"constant: {number(float(values[0]))} at every finite point")
        if scale is not None and (high := int((values > scale.vmax).sum())):
            notes.append(f"{high} of {total} points above {number(scale.vmax)} drawn as that")
        if scale is not None and (low := int((values < scale.vmin).sum())):
            notes.append(f"{low} of {total} points below {number(scale.vmin)} drawn as that")
        return notes


def quantity(key: str) -> str:
    """Return a stored name in words: ``test_acc`` is ``test accuracy (%)``."""
    split, _, rest = key.partition("_")
    if split in ("train", "test", "val"):
        words = {"val": "validation"}.get(split, split)
        return f"{words} {_NAMES.get(rest, rest.replace('_', ' '))}"
    return _NAMES.get(key, key.replace("_", " "))


def is_accuracy(key: str) -> bool:
    """Return whether a stored name is an accuracy in percent, never drawn logarithmically."""
    return key == "acc" or key.endswith("_acc")


def scale_of(fields: Sequence[Field], look: Look | None = None) -> Scale:
    """Return one scale for fields: accuracies are linear, ratios begin at 0, unless asked."""
    look = look or Look()
    linear = any(is_accuracy(what.key) or what.key == RATIO for what in fields)
    if fields and all(what.key == RATIO for what in fields) and look.vmin is None and not look.log:
        look = dataclasses.replace(look, vmin=0.0)
    return look.scale([what.drawable for what in fields], log=False if linear else None)


def common_key(*surfaces: SurfaceData) -> str | None:
    """Return the quantity to draw of some surfaces: a loss that all hold, if it can be of training.

    None where they hold nothing in common.
    """
    common = [key for key in surfaces[0].values if all(key in s.values for s in surfaces)]
    preferred = ("train_loss", "test_loss", "val_loss")
    return next((key for key in (*preferred, *common) if key in common), None)


def field(data: SurfaceData, key: str | None = None) -> Field:
    """Take one quantity out of a stored surface or curve.

    Args:
        data: The surface (2-D) or curve (1-D); one with repeats gives their median.
        key: Stored name such as ``"train_loss"``; None takes `common_key`.

    Raises:
        FigureError: If there is no such quantity, or its shape does not fit the axes.
    """
    key = common_key(data) if key is None else key
    if key is None or key not in data.values:
        raise FigureError(
            f"expected one of {', '.join(sorted(data.values)) or 'no quantity'}; got {key!r}"
        )
    values = np.asarray(data.values[key], dtype=float)
    x = np.asarray(data.x, dtype=float)
    y = None if data.y is None else np.asarray(data.y, dtype=float)
    shape = x.shape if y is None else (len(y), len(x))
    if values.shape != shape or np.shape(data.done) != shape:
        raise FigureError(
            f"expected {key} and done of shape {shape} (rows are y); "
            f"got {values.shape} and {np.shape(data.done)}"
        )
    found = Field(
        key,
        x,
        y,
        values,
        np.asarray(data.done, dtype=bool),
        _origin(data, key),
        _axis_label(data, "x"),
        _axis_label(data, "y"),
        drawn_by_class(data.settings),
        ends=_ends(data),
        remarks=_remarks(data, key),
    )
    if data.repeats is None:
        return found
    directions = Directions(
        data.along_each(key), *data.band(key), data.band_name, data.repeat, data.widest(key)
    )
    return dataclasses.replace(
        found, values=data.median(key), done=data.median_done, directions=directions
    )


def _remarks(data: SurfaceData, key: str) -> tuple[str, ...]:
    """Return what losses of bfloat16, eigenvalues and their ratio do not say by themselves."""
    remarks = []
    split, _, rest = key.partition("_")
    error = data.settings.get("half_error", {}).get(split)
    if rest == "loss" and error is not None:
        remarks.append(f"bfloat16: {error:.1g} of the loss off float64 at the origin")
    parts = ("min_eig", "max_eig") if key == RATIO else (key,)
    for part in parts:
        residual = data.values.get(f"{part}_residual")
        if residual is not None:
            rough = int(np.sum(residual > _CONVERGED * np.abs(data.values[part])))
            if rough:
                remarks.append(f"{quantity(part)}: residual above 1 % of it at {rough} points")
    if key == RATIO and (convex := int(np.sum(data.values["min_eig"] >= 0))):
        remarks.append(f"no negative eigenvalue at {convex} of {data.values[key].size} points")
    return tuple(remarks)


def row_through_origin(data: SurfaceData) -> SurfaceData | None:
    """Return the 1-D curve y = 0 of a 2-D surface, or None when the grid has no such row.

    A 1-D curve is returned as it is.
    """
    if data.y is None:
        return data
    row = _index_of_zero(data.y)
    if row is None:
        return None
    values = {key: np.asarray(array)[row] for key, array in data.values.items()}
    repeats = data.repeats
    if repeats is not None:
        every = {key: array[:, row] for key, array in repeats.values.items()}
        repeats = dataclasses.replace(repeats, values=every, done=repeats.done[:, row])
    return dataclasses.replace(
        data, y=None, values=values, done=np.asarray(data.done)[row], repeats=repeats
    )


def edges(points: np.ndarray) -> np.ndarray:
    """Return the borders of the cells around grid points: midpoints, the outer ones mirrored.

    A single point gets a cell of width 1, for want of a neighbour.
    """
    points = np.asarray(points, dtype=float)
    if len(points) == 1:
        return np.array([points[0] - 0.5, points[0] + 0.5])
    middle = (points[1:] + points[:-1]) / 2
    first, last = 2 * points[0] - middle[0], 2 * points[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def cell_polygons(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """Return rectangles (4, 2) around the grid points where a (ny, nx) mask holds."""
    ex, ey = edges(x), edges(y)
    return [
        np.array([(ex[i], ey[j]), (ex[i + 1], ey[j]), (ex[i + 1], ey[j + 1]), (ex[i], ey[j + 1])])
        for j, i in np.argwhere(mask)
    ]


def gap_polygons(field: Field) -> list[np.ndarray]:
    """Return the parts of the plane that contours leave out because of a flawed corner.

    Contours live on the quadrilaterals between grid points. One bad corner costs the triangle at
    that corner, two or more the whole quadrilateral. Where a pending corner took part the area is
    left blank unless a flawed one did too.
    """
    assert field.y is not None
    polygons = []
    for j in range(len(field.y) - 1):
        for i in range(len(field.x) - 1):
            around = [(j, i), (j, i + 1), (j + 1, i + 1), (j + 1, i)]
            bad = [not field.sound[corner] for corner in around]
            if not any(field.flawed[corner] for corner in around):
                continue
            points = [(field.x[c], field.y[r]) for r, c in around]
            if sum(bad) == 1:
                k = bad.index(True)
                points = [points[k - 1], points[k], points[(k + 1) % 4]]
            polygons.append(np.array(points))
    return polygons


def has_area(field: Field) -> bool:
    """Return whether contours can be drawn: some quadrilateral has three sound corners."""
    sound = field.sound.astype(int)
    if field.y is None or min(sound.shape) < 2:
        return False
    corners = sound[1:, 1:] + sound[1:, :-1] + sound[:-1, 1:] + sound[:-1, :-1]
    return bool((corners >= 3).any())


def log_notes(named: Sequence[tuple[str, Field]], scale: Scale) -> list[str]:
    """Return what a logarithmic scale does to surfaces: their steepness depends on their minima.

    d log L = dL / L: of two surfaces of equal curvature the one of lower minimum looks sharper.

    Args:
        named: The name of each surface and what is drawn of it.
        scale: The scale they share.
    """
    minima = [
        (name, float(what.values[what.sound].min()))
        for name, what in named
        if what.sound.any() and what.key.endswith("loss")
    ]
    if not scale.log or not minima:
        return []
    if len(minima) == 1:
        of = f"the minimum {number(minima[0][1])}"
    else:
        each = ", ".join(f"{name} {number(value)}" for name, value in minima)
        of = f"each minimum ({each})"
    return [
        f"log scale of the value itself, from 0 and not from {of}: it compares heights, not "
        "flatness (at equal curvature a lower minimum looks sharper)"
    ]


def _origin(data: SurfaceData, key: str) -> float | None:
    """Return the stored value at the origin, else that of the grid point there."""
    if key in data.origin:
        return float(data.origin[key])
    column = _index_of_zero(data.x)
    row = 0 if data.y is None else _index_of_zero(data.y)
    if column is None or row is None:
        return None
    index = (column,) if data.y is None else (row, column)
    return float(data.values[key][index]) if data.done[index] else None


def _index_of_zero(points: np.ndarray) -> int | None:
    """Return where a grid axis is zero up to the rounding of its step, or None."""
    points = np.asarray(points, dtype=float)
    nearest = int(np.argmin(np.abs(points)))
    return nearest if abs(points[nearest]) <= 1e-9 * max(1.0, np.ptp(points)) else None


def _axis_label(data: SurfaceData, axis: str) -> str:
    """Return what the axis is, with its normalisation, which decides what a step of 1 means."""
    recipe = data.settings.get("directions", {}).get(axis, {})
    name, normalisation = recipe.get("label", axis), recipe.get("normalisation", "none")
    return name if normalisation == "none" else f"{name} ({normalisation}-normalised)"


def _ends(data: SurfaceData) -> tuple[tuple[float, float, str], ...]:
    """Return the other checkpoints that directions lead to, where a step of 1 reaches them."""
    recipes = data.settings.get("directions", {})
    places = {"x": (1.0, 0.0), "y": (0.0, 1.0)}
    return tuple(
        (*place, str(recipes[axis].get("run", "")))
        for axis, place in places.items()
        if axis in recipes
        and recipes[axis].get("reaches")
        and recipes[axis].get("normalisation") == recipes[axis].get("ignore") == "none"
    )
