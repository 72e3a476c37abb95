"""Directions of a surface: one file a kind, what they share in `direction`.

A kind makes a `RawDirection`. Normalising it (`landscape.normalisation`) and making it orthogonal
to another (`orthogonal`) are apart from how it was made: `finishing.finish` does both for any kind.
"""

from isoloss.landscape.directions.direction import (
    Direction,
    DirectionError,
    RawDirection,
    cosine,
    overlap,
)
from isoloss.landscape.directions.finishing import finish
from isoloss.landscape.directions.gaussian import gaussian, random_directions

__all__ = [
    "Direction",
    "DirectionError",
    "RawDirection",
    "cosine",
    "finish",
    "gaussian",
    "overlap",
    "random_directions",
]
