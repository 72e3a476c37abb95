"""The loss as a function of the weights: problems, directions, grids, surfaces and their files."""

from isoloss.landscape.directions import Direction, random_directions
from isoloss.landscape.evaluation import Evaluation
from isoloss.landscape.grid import Axis, Grid
from isoloss.landscape.plan import Plan
from isoloss.landscape.problem import Problem
from isoloss.landscape.sampling import Sample, stratified_error
from isoloss.landscape.surface import Surface
from isoloss.records.surfaces import SurfaceData, read_surface

__all__ = [
    "Axis",
    "Direction",
    "Evaluation",
    "Grid",
    "Plan",
    "Problem",
    "Sample",
    "Surface",
    "SurfaceData",
    "random_directions",
    "read_surface",
    "stratified_error",
]
