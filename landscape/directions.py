"""Directions: named, parameter-shaped vectors along which a surface is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from isoloss.landscape.normalisation import NormalisationError, Tensors, normalise
from isoloss.landscape.vectors import digest, inner, norm
from isoloss.records.surfaces import StoredDirection


@dataclass(frozen=True)
class Direction:
    """A direction in weight space and how it was made.

    Attributes:
        tensors: By parameter name, shaped as the parameter.
        kind: What it is: `"random"`.
        seed: Seed of a random direction.
        normalisation: Rule of `landscape.normalisation`.
        ignore: Which parameters stay where they are.
        orthogonal: Whether it was made orthogonal to the direction of the first axis.
    """

    tensors: Tensors
    kind: str
    seed: int | None
    normalisation: str
    ignore: str
    orthogonal: bool = False

    def recipe(self) -> dict[str, object]:
        """Return what is needed to make the direction again, and a digest to check it by."""
        return {
            "kind": self.kind,
            "seed": self.seed,
            "normalisation": self.normalisation,
            "ignore": self.ignore,
            "orthogonal": self.orthogonal,
            "digest": digest(self.tensors),
        }

    def stored(self) -> StoredDirection:
        """Return the direction as files keep it."""
        arrays = [tensor.detach().cpu().numpy() for tensor in self.tensors.values()]
        return StoredDirection(self.recipe(), arrays)


def cosine(a: Direction, b: Direction) -> float:
    """Return the cosine of the angle between two directions."""
    return inner(a.tensors, b.tensors) / (norm(a.tensors) * norm(b.tensors))


def random_directions(
    parameters: Mapping[str, Tensor],
    count: int = 2,
    *,
    seed: int = 0,
    normalisation: tuple[str, str] | str = "filter",
    ignore: tuple[str, str] | str = "biasbn",
    orthogonal: bool = True,
) -> list[Direction]:
    r"""Draw one or two Gaussian directions and normalise them against the weights.

    The second of a pair is made orthogonal to the first *after* normalisation N: it is
    N_y(y - a x) with a such that <N_x(x), N_y(y - a x)> = 0, found as a root in a. Subtracting
    the projection before normalising would leave the cosine almost as it was. The draws depend
    on seed, axis, names' order and shapes only, not on device or dtype.

    Args:
        parameters: theta0, by name.
        count: 1 or 2.
        seed: Not negative; the axes use the generators 2 seed and 2 seed + 1.
        normalisation: Rule for both axes, or (x, y).
        ignore: Ignore rule for both axes, or (x, y).
        orthogonal: Whether to make the pair orthogonal.

    Returns:
        `count` directions in the dtype and on the device of the parameters.

    Raises:
        NormalisationError: For an unknown rule, or if a direction comes out zero.
        ValueError: For a count other than 1 or 2, or a negative seed.
    """
    if count not in (1, 2) or seed < 0:
        raise ValueError(f"expected 1 or 2 directions and a seed of 0 or more, got {count}, {seed}")
    rules = list(zip(_pair(normalisation), _pair(ignore), strict=True))
    weights = {name: tensor.detach().double().cpu() for name, tensor in parameters.items()}
    raw = [_gaussian(weights, 2 * seed + axis) for axis in range(count)]
    made = [normalise(raw[axis], weights, *rules[axis]) for axis in range(count)]
    for tensors, (rule, skip) in zip(made, rules, strict=False):
        if norm(tensors) == 0:
            raise NormalisationError(
                f"expected a direction with entries other than 0, but normalisation {rule!r} with "
                f"ignore {skip!r} leaves none\nuse ignore 'none' where all parameters have at most "
                "one dimension; 'filter' and 'layer' are zero where the weights are"
            )
    if count == 2 and orthogonal:
        made[1] = _orthogonalised(raw[0], raw[1], made[0], weights, *rules[1])
    return [
        Direction(
            {name: t.to(parameters[name].device, parameters[name].dtype) for name, t in d.items()},
            "random",
            seed,
            *rules[axis],
            orthogonal=orthogonal and axis == 1,
        )
        for axis, d in enumerate(made)
    ]


def _pair(value: tuple[str, str] | str) -> tuple[str, str]:
    return (value, value) if isinstance(value, str) else value


def _gaussian(like: Mapping[str, Tensor], seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, generator=generator).double() for name, t in like.items()}


def _orthogonalised(
    x_raw: Tensors, y_raw: Tensors, x: Tensors, weights: Tensors, rule: str, skip: str
) -> Tensors:
    """N(y - a x) orthogonal to the normalised x; f(a) = <x, N(y - a x)> falls through zero."""

    def candidate(a: float) -> Tensors:
        return normalise({k: y_raw[k] - a * x_raw[k] for k in y_raw}, weights, rule, skip)

    def overlap(a: float) -> float:
        return inner(x, candidate(a))

    from scipy.optimize import brentq  # a quarter of a second, which curves do without

    bound = 1.0
    while overlap(-bound) <= 0 or overlap(bound) >= 0:
        bound *= 4
        if bound > 1e12:  # N removes the component along x whatever a is: nothing to do
            return candidate(0.0)
    return candidate(brentq(overlap, -bound, bound, xtol=1e-15, rtol=1e-14))
