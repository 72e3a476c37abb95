"""Directions of a surface: one file a kind, what they share in `direction`.

How a direction is drawn, normalised (`landscape.normalisation`) and made orthogonal to another
(`orthogonal`) are apart from each other.
"""

from isoloss.landscape.directions.direction import Direction, cosine
from isoloss.landscape.directions.gaussian import random_directions

__all__ = ["Direction", "cosine", "random_directions"]
