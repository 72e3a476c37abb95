"""Directions of a surface: one file a kind, what they share in `direction`.

A kind makes a `RawDirection`. Normalising it (`landscape.normalisation`) and making it orthogonal
to another (`orthogonal`) are apart from how it was made: `finishing.finish` does both for any kind.
"""

from isoloss.landscape.directions.between import towards
from isoloss.landscape.directions.direction import (
    Direction,
    DirectionError,
    RawDirection,
    cosine,
    overlap,
)
from isoloss.landscape.directions.eigenvector import eigenvector_direction
from isoloss.landscape.directions.finishing import finish
from isoloss.landscape.directions.gaussian import gaussian, random_directions
from isoloss.landscape.directions.gradient import gradient_direction
from isoloss.landscape.directions.stored import stored_direction
from isoloss.landscape.directions.update import update_direction

__all__ = [
    "Direction",
    "DirectionError",
    "RawDirection",
    "cosine",
    "eigenvector_direction",
    "finish",
    "gaussian",
    "gradient_direction",
    "overlap",
    "random_directions",
    "stored_direction",
    "towards",
    "update_direction",
]
