"""Random Gaussian directions (Li et al. 2018, section 4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from isoloss.landscape.directions.direction import Direction
from isoloss.landscape.directions.orthogonal import orthogonalised
from isoloss.landscape.normalisation import NormalisationError, Tensors, normalise
from isoloss.landscape.vectors import norm


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
        made[1] = orthogonalised(raw[0], raw[1], made[0], weights, *rules[1])
    return [
        Direction(
            {name: t.to(parameters[name].device, parameters[name].dtype) for name, t in d.items()},
            "random",
            {"seed": seed},
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
