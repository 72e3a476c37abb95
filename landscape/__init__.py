"""The loss as a function of the weights: problems, directions, grids, surfaces and their files."""

from landscape.directions import Direction, random_directions
from landscape.grid import Axis, Grid
from landscape.plan import Plan
from landscape.problem import Evaluation, Problem
from landscape.store import SurfaceData, read_surface
from landscape.surface import Surface

__all__ = [
    "Axis",
    "Direction",
    "Evaluation",
    "Grid",
    "Plan",
    "Problem",
    "Surface",
    "SurfaceData",
    "random_directions",
    "read_surface",
]
