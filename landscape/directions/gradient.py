"""The direction of the loss's gradient."""

from __future__ import annotations

from isoloss.landscape.directions.direction import RawDirection
from isoloss.landscape.problem import Problem


def gradient_direction(problem: Problem, **source: object) -> RawDirection:
    """Return grad L(theta0) by the parameters that move, unless scaled of its own length.

    The loss rises towards x > 0; x = -lr is a step of gradient descent on the problem's samples.

    Args:
        problem: The loss.
        **source: What to store of it, JSON-able, as `Direction.source`.
    """
    return RawDirection(problem.gradient(), "gradient", {"label": "gradient", **source})
