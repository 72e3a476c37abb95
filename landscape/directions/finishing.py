"""From raw directions to those of a surface: normalised, made orthogonal, checked.

What is not asked for depends on the kind. A random direction has no scale of its own: it gets that
of the filters, biases and batch norm ignored (Li et al. 2018, section 4). All others stay what they
are, so that x = 1 *is* the other checkpoint, a step of the gradient, an eigenvector of norm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isoloss.landscape.directions.direction import Direction, DirectionError, RawDirection, cosine
from isoloss.landscape.directions.orthogonal import orthogonal_share, orthogonalised
from isoloss.landscape.directions.regenerated import BY_ROWS, Drawn, Regenerated
from isoloss.landscape.normalisation import NormalisationError, Tensors, check_rules, normalise
from isoloss.landscape.vectors import norm

DEFAULTS = {"random": ("filter", "biasbn")}
OTHERWISE = ("none", "none")
# Two directions closer than this span a line, in float32 and to the eye.
PARALLEL = 0.999

Rule = str | tuple[str | None, str | None] | None


def finish(
    raw: Sequence[RawDirection],
    point: Mapping[str, Tensor],
    *,
    normalisation: Rule = None,
    ignore: Rule = None,
    orthogonal: bool = True,
) -> list[Direction]:
    """Normalise one or two directions against the weights, and make a random one orthogonal.

    Of a pair with a random direction, that one gives way: it is made orthogonal to the other after
    normalisation (`orthogonal.orthogonalised`); of two random ones the second does. Two given
    directions stay what they are whatever their angle.

    Args:
        raw: One direction an axis.
        point: theta0 with the buffers that move, by name.
        normalisation: Rule for both axes, or (x, y); where None, the kind's own.
        ignore: Ignore rule for both axes, or (x, y); where None, the kind's own.
        orthogonal: Whether a random direction is made orthogonal to the other.

    Returns:
        The directions in the dtype and on the device of the point.

    Raises:
        NormalisationError: For an unknown rule, or one that leaves nothing of a direction.
        DirectionError: If a direction is zero or not finite, or two of them are parallel.
    """
    rules = [
        _rule(one.kind, *given)
        for one, given in zip(
            raw, zip(_pair(normalisation), _pair(ignore), strict=True), strict=False
        )
    ]
    if all(isinstance(one.tensors, Drawn) and rule[0] in BY_ROWS
           for one, rule in zip(raw, rules, strict=True)):  # fmt: skip
        return _regenerated(raw, point, rules, orthogonal=orthogonal)
    weights = _doubles(point)
    tensors = [_doubles(one.tensors) for one in raw]
    for one, held in zip(raw, tensors, strict=True):
        _check_raw(one, held)
    made = [normalise(held, weights, *rule) for held, rule in zip(tensors, rules, strict=True)]
    for one, held, rule in zip(raw, made, rules, strict=True):
        _check_made(one, held, rule)
    yielding = _yielding(raw) if orthogonal else None
    if yielding is not None:
        other = 1 - yielding
        beside = tensors[other]
        if raw[other].kind != "random":  # of any length: a multiple of it is found more easily
            size = norm(tensors[yielding]) / norm(beside)
            beside = {name: size * tensor for name, tensor in beside.items()}
        made[yielding] = orthogonalised(
            beside, tensors[yielding], made[other], weights, *rules[yielding]
        )
    finished = [
        Direction(
            {n: held[n].to(t.device, t.dtype) for n, t in point.items() if n in held},
            one.kind,
            one.source,
            *rule,
            orthogonal=axis == yielding,
        )
        for axis, (one, held, rule) in enumerate(zip(raw, made, rules, strict=True))
    ]
    if len(finished) == 2:
        _check_pair(*finished)
    return finished


def _regenerated(
    raw: Sequence[RawDirection],
    point: Mapping[str, Tensor],
    rules: Sequence[tuple[str, str]],
    *,
    orthogonal: bool,
) -> list[Direction]:
    """Finish random directions that are not held."""
    drawn = [one.tensors for one in raw if isinstance(one.tensors, Drawn)]
    finished = []
    for axis, (one, y, rule) in enumerate(zip(raw, drawn, rules, strict=True)):
        yields = axis == 1 and orthogonal
        share = orthogonal_share(drawn[0], y, point, rules[0], rule) if yields else 0.0
        tensors = Regenerated(y, point, rule, (drawn[0], share) if yields else None)
        _check_made(one, tensors, rule)
        finished.append(Direction(tensors, one.kind, one.source, *rule, orthogonal=yields))
    if len(finished) == 2:
        _check_pair(*finished)
    return finished


def _pair(value: Rule) -> tuple[str | None, str | None]:
    return value if isinstance(value, tuple) else (value, value)


def _rule(kind: str, normalisation: str | None, ignore: str | None) -> tuple[str, str]:
    default = DEFAULTS.get(kind, OTHERWISE)
    rule = (normalisation or default[0], ignore or default[1])
    check_rules(*rule)
    return rule


def _doubles(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.detach().double().cpu() for name, tensor in tensors.items()}


def _yielding(raw: Sequence[RawDirection]) -> int | None:
    """Return which direction of a pair is made orthogonal to the other; None for neither."""
    random = [axis for axis, one in enumerate(raw) if one.kind == "random"]
    return random[-1] if len(raw) == 2 and random else None


def _check_raw(one: RawDirection, tensors: Tensors) -> None:
    name = _not_finite(tensors)
    if name is not None:
        raise DirectionError(
            f"expected a {one.kind} direction of finite numbers, got NaN or infinity in {name}\n"
            "take weights that are finite, an earlier checkpoint of the run for one"
        )
    if norm(tensors) == 0:
        why = "the other weights are the same" if one.kind == "to" else "all its entries are 0"
        raise DirectionError(
            f"expected a {one.kind} direction that leads away from the weights, got none: {why}"
        )


def _check_made(one: RawDirection, tensors: Mapping[str, Tensor], rule: tuple[str, str]) -> None:
    name = _not_finite(tensors)
    if name is not None:
        raise DirectionError(
            f"expected finite weights to normalise a {one.kind} direction by, got NaN or infinity "
            f"in {name}\ntake an earlier checkpoint of the run"
        )
    if norm(tensors) == 0:
        raise NormalisationError(
            f"expected a direction with entries other than 0, but normalisation {rule[0]!r} with "
            f"ignore {rule[1]!r} leaves none\nuse ignore 'none' where all parameters have at most "
            "one dimension; 'filter' and 'layer' are zero where the weights are"
        )


def _check_pair(x: Direction, y: Direction) -> None:
    angle = cosine(x, y)
    if abs(angle) > PARALLEL:
        raise DirectionError(
            f"expected two directions that span a plane, got {x.kind} and {y.kind} with a cosine "
            f"of {angle:.6f}, which are parallel\nchoose another one for an axis, or draw a curve"
        )


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    return next((name for name, t in tensors.items() if not bool(torch.isfinite(t).all())), None)
