"""Paths of trainings on a plane through theta0: where they come nearest to it, and how near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.landscape.directions import Direction
from isoloss.landscape.surface import Surface

# Directions whose squared sine is below this span no plane to rounding of float32 entries.
PARALLEL = 1e-10


class TrajectoryError(IsolossError, ValueError):
    """Points that cannot be projected on a plane."""


@dataclass(frozen=True)
class Projection:
    """The point of a plane nearest to a point of weight space, by Euclidean distance.

    Attributes:
        coordinates: (x, y) in units of the directions, as those of a surface.
        distance: From the point to its projection.
        from_origin: From the point to theta0; distance / from_origin is 0 in the plane.
    """

    coordinates: tuple[float, ...]
    distance: float
    from_origin: float


@dataclass(frozen=True)
class PathPoint:
    """A point of a path and its projection on a plane.

    Attributes:
        projection: Where it is projected to.
        loss: At the point itself, with the buffers (batch-norm statistics) it came with.
        plane_loss: At its projection, with those of theta0: the value of the surface there. Where
            the two differ the path is not on the plane, or its statistics were others.
    """

    projection: Projection
    loss: float
    plane_loss: float


class Plane:
    """theta0 + x d_x + y d_y, and the point of it that is nearest to another point.

    The coordinates c solve <d_k, d_l> c_l = <d_k, theta - theta0>, in float64: directions need be
    neither orthogonal nor of norm 1, and c is in units of them.

    Args:
        origin: theta0, and the buffers that move, by name.
        directions: One or two; what one of them does not have stays where it is along it.

    Raises:
        TrajectoryError: If a direction is zero or two are parallel.
    """

    def __init__(self, origin: Mapping[str, Tensor], directions: Sequence[Direction]) -> None:
        self._origin = {name: tensor.double().cpu() for name, tensor in origin.items()}
        self._directions = [
            {name: tensor.double().cpu() for name, tensor in direction.tensors.items()}
            for direction in directions
        ]
        self._gram = np.array([[_inner(a, b) for b in self._directions] for a in self._directions])
        norms = np.sqrt(np.diag(self._gram))
        cosines = self._gram / np.outer(norms, norms) if norms.all() else np.zeros_like(self._gram)
        if np.linalg.det(cosines) < PARALLEL:
            raise TrajectoryError(
                "expected directions that span a plane, got parallel ones, or one that is zero"
            )

    def project(self, point: Mapping[str, Tensor]) -> Projection:
        """Return the nearest point of the plane, over the entries that theta0 has.

        Args:
            point: Tensors by name; those that do not move are not looked at.
        """
        away = {name: point[name].double().cpu() - t for name, t in self._origin.items()}
        from_origin = _inner(away, away) ** 0.5
        products = np.array([_inner(direction, away) for direction in self._directions])
        coordinates = np.linalg.solve(self._gram, products)
        for c, direction in zip(coordinates, self._directions, strict=True):
            for name, tensor in direction.items():
                away[name] -= float(c) * tensor
        distance = _inner(away, away) ** 0.5
        return Projection(tuple(float(c) for c in coordinates), distance, from_origin)


def path_point(
    surface: Surface, plane: Plane, weights: Mapping[str, Tensor], split: str
) -> PathPoint:
    """Project a point on the plane of a surface, and evaluate the loss at both.

    Args:
        surface: The surface.
        plane: Its plane.
        weights: A state dictionary, buffers included.
        split: Of the surface's problems the one to evaluate.
    """
    projection, problem = plane.project(weights), surface.problems[split]
    loss = problem.at(weights).evaluate().loss
    on_plane = problem.evaluate(surface.point_at(*projection.coordinates)).loss
    return PathPoint(projection, loss, on_plane)


def _inner(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    # NumPy's sum is pairwise and of one thread: the same on any number of cores.
    return sum(float(np.sum((a[name] * b[name]).numpy())) for name in a if name in b)


def enclosing_axes(points: np.ndarray) -> list[tuple[float, float]]:
    """Return round ends of axes that hold some points and theta0, with a margin on all sides.

    The margin is a tenth of the longer extent, and the shorter axis is at least half as long as
    the longer, so that paths which are nearly straight are on a surface and not on a strip.

    Args:
        points: Coordinates, (n, axes).

    Returns:
        Low and high end of each axis.
    """
    whole = np.vstack([points, np.zeros(points.shape[1])])
    low, high = whole.min(axis=0), whole.max(axis=0)
    longest = float((high - low).max()) or 2.0
    half = np.maximum((high - low) / 2, longest / 4) + longest / 10
    step = 10.0 ** np.floor(np.log10(longest)) / 20
    middle = (low + high) / 2
    ends = np.floor((middle - half) / step), np.ceil((middle + half) / step)
    # Multiples of a power of ten over 20, as they are written: 0.15 and not 0.15000000000000002.
    written = [[float(f"{end * step:.12g}") for end in side] for side in ends]
    return list(zip(*written, strict=True))
