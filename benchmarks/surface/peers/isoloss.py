"""Isoloss: as it plans by itself for 51 x 51 points, compiled, and not compiled."""

from __future__ import annotations

from torch import nn

from benchmarks.surface.subject import Plane
from isoloss.landscape import Grid, Problem, Surface
from isoloss.landscape.compiling import compile_networks
from isoloss.landscape.directions import Direction

POINTS = 51 * 51 + 1


def surface_of(plane: Plane, compile: bool | None, grid: Grid | None = None) -> Surface:
    """Return the surface of the plane, compiled or as the rule says where None."""
    problem = Problem(plane.network(), nn.CrossEntropyLoss(), [plane.data])
    compile_networks([problem], POINTS, compile)
    directions = [Direction(tensors, "loaded") for tensors in plane.directions]
    return Surface(problem, grid or Grid.parse("-1:1:51", "-1:1:51"), directions)


class Losses:
    """The loss at points.

    Args:
        plane: The network, the data and the directions.
        compile: Whether to compile; None for the rule.
    """

    def __init__(self, plane: Plane, compile: bool | None = None) -> None:
        self._surface = surface_of(plane, compile)

    def __call__(self, x: float, y: float) -> float:
        """Return the loss at a point."""
        return self._surface.evaluate_at(x, y)[0]
