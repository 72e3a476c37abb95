"""Making a direction orthogonal to another one after both are normalised."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from isoloss.landscape.directions.direction import overlap
from isoloss.landscape.normalisation import Tensors, normalise


def orthogonalised(
    x_raw: Mapping[str, Tensor],
    y_raw: Mapping[str, Tensor],
    x: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    normalisation: str,
    ignore: str,
) -> Tensors:
    """Return N(y - a x) with a such that <N_x(x), N(y - a x)> = 0, found as a root in a.

    Subtracting the projection before normalising would leave the cosine almost as it was. The
    overlap falls through zero as a grows.

    Args:
        x_raw: x before it was normalised, or a multiple of it.
        y_raw: y before it is normalised. What x alone moves, y does not come to move.
        x: N_x(x), by its own rule.
        weights: What N normalises against.
        normalisation: Rule of N.
        ignore: Ignore rule of N.

    Returns:
        The direction; N(y) where N removes the component along x whatever a is.
    """

    def candidate(a: float) -> Tensors:
        moved = {name: y - a * x_raw[name] if name in x_raw else y for name, y in y_raw.items()}
        return normalise(moved, weights, normalisation, ignore)

    def left(a: float) -> float:
        return overlap(x, candidate(a))

    from scipy.optimize import brentq  # a quarter of a second, which curves do without

    bound = 1.0
    while left(-bound) <= 0 or left(bound) >= 0:
        bound *= 4
        if bound > 1e12:
            return candidate(0.0)
    return candidate(brentq(left, -bound, bound, xtol=1e-15, rtol=1e-14))
