"""Random Gaussian directions (Li et al. 2018, section 4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from isoloss.landscape.directions.direction import Direction, RawDirection
from isoloss.landscape.directions.finishing import Rule, finish
from isoloss.landscape.directions.regenerated import Drawn
from isoloss.records.surfaces import LARGEST_STORED_DIRECTION

# Bytes of a direction. One that no file keeps is not held in memory either: it is made again at
# each point, tensor by tensor.
LARGEST_HELD = LARGEST_STORED_DIRECTION


def gaussian(like: Mapping[str, Tensor], seed: int = 0, axis: int = 0) -> RawDirection:
    """Draw a Gaussian direction.

    The draw depends on seed, axis, names' order and shapes only, not on device or dtype.

    Args:
        like: What moves, by name: theta0, and buffers after it.
        seed: Not negative.
        axis: 0 or 1; the axes use the generators 2 seed and 2 seed + 1.

    Returns:
        Tensors of float64 on the CPU; above `LARGEST_HELD` they are drawn when they are asked for.

    Raises:
        ValueError: For a negative seed.
    """
    if seed < 0:
        raise ValueError(f"expected a seed of 0 or more, got {seed}")
    size = sum(tensor.numel() * tensor.element_size() for tensor in like.values())
    if size > LARGEST_HELD:
        return RawDirection(Drawn(like, 2 * seed + axis), "random", {"seed": seed})
    generator = torch.Generator().manual_seed(2 * seed + axis)
    drawn = {name: torch.randn(t.shape, generator=generator).double() for name, t in like.items()}
    return RawDirection(drawn, "random", {"seed": seed})


def random_directions(
    parameters: Mapping[str, Tensor],
    count: int = 2,
    *,
    seed: int = 0,
    normalisation: Rule = "filter",
    ignore: Rule = "biasbn",
    orthogonal: bool = True,
) -> list[Direction]:
    """Draw one or two Gaussian directions and normalise them against the weights.

    The second of a pair is made orthogonal to the first *after* normalisation (see
    `landscape.directions.orthogonal`).

    Args:
        parameters: theta0, by name.
        count: 1 or 2.
        seed: Not negative; see `gaussian`.
        normalisation: Rule for both axes, or (x, y).
        ignore: Ignore rule for both axes, or (x, y).
        orthogonal: Whether to make the pair orthogonal.

    Returns:
        `count` directions in the dtype and on the device of the parameters.

    Raises:
        NormalisationError: For an unknown rule, or if a direction comes out zero.
        DirectionError: If weights are not finite, or two directions parallel.
        ValueError: For a count other than 1 or 2, or a negative seed.
    """
    if count not in (1, 2):
        raise ValueError(f"expected 1 or 2 directions, got {count}")
    return finish(
        [gaussian(parameters, seed, axis) for axis in range(count)],
        parameters,
        normalisation=normalisation,
        ignore=ignore,
        orthogonal=orthogonal,
    )
