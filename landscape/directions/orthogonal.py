"""Making a direction orthogonal to another one after both are normalised."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from isoloss.landscape.directions.direction import overlap
from isoloss.landscape.directions.regenerated import Drawn, Rule
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

    a = root(left)
    return candidate(0.0 if a is None else a)


def orthogonal_share(
    x: Drawn, y: Drawn, weights: Mapping[str, Tensor], x_rule: Rule, y_rule: Rule
) -> float:
    """Return a such that <N_x(x), N_y(y - a x)> = 0, as `orthogonal.orthogonalised` finds it.

    Of each row the inner products of x, y and the weights are enough, which one pass gives:
    ||y - a x||^2 = yy - 2 a xy + a^2 xx.
    """
    found = [
        _products(block, other, weights[name][rows].cpu().double(), x_rule[0], y_rule[0])
        for name in x
        if weights[name].ndim > 1 or "biasbn" not in (x_rule[1], y_rule[1])
        for (rows, block), (_, other) in zip(x.blocks(name), y.blocks(name), strict=True)
    ]
    if not found:
        return 0.0
    xx, xy, yy, ww, mixed, own = torch.cat(found, dim=1)
    ahead = _scale(x_rule[0], ww, xx)

    def left(a: float) -> float:
        rest = (yy - 2 * a * xy + a * a * xx).clamp(min=0)
        return float((ahead * _scale(y_rule[0], ww, rest) * (mixed - a * own)).sum())

    return root(left) or 0.0


def _products(x: Tensor, y: Tensor, w: Tensor, x_rule: str, y_rule: str) -> Tensor:
    """Return xx, xy, yy, ww, and <m_x x, m_y y> and <m_x x, m_y x> of each row, m what N weighs by.

    Shape (6, rows).
    """
    x, y, w = (t.reshape(1, -1) if t.ndim <= 1 else t.flatten(1) for t in (x, y, w))
    pairs = [(x, x), (x, y), (y, y), (w, w), (y, x), (x, x)]
    weighing = [x_rule, y_rule].count("weight")
    if weighing:
        weighed = x * w.abs() ** weighing
        pairs[-2:] = [(y, weighed), (x, weighed)]
    return torch.stack([torch.linalg.vecdot(one, other) for one, other in pairs])


def _scale(rule: str, ww: Tensor, dd: Tensor) -> Tensor:
    """Return what a rule multiplies rows of squared norm dd by, 0 for those without entries."""
    if rule not in ("filter", "dfilter"):
        return torch.ones_like(dd)
    return torch.where(dd > 0, ((ww if rule == "filter" else 1.0) / dd).sqrt(), 0.0)


def root(left: Callable[[float], float]) -> float | None:
    """Return where a function that falls crosses 0; None where it does not within 1e12."""
    from scipy.optimize import brentq  # a quarter of a second, which curves do without

    bound = 1.0
    while left(-bound) <= 0 or left(bound) >= 0:
        bound *= 4
        if bound > 1e12:
            return None
    found: float = brentq(left, -bound, bound, xtol=1e-15, rtol=1e-14)
    return found
