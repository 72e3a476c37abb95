"""Running variances that a surface moves: they must not become negative anywhere on the grid."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isoloss.landscape.directions import Direction, DirectionError
from isoloss.landscape.grid import Grid

VARIANCE = "running_var"


def refuse_negative_variances(
    origin: Mapping[str, Tensor], directions: Sequence[Direction], grid: Grid
) -> None:
    """Refuse a grid on which v + x d_x + y d_y < 0 for a running variance v.

    It is linear in x and y, so that the corners of the grid decide.

    Args:
        origin: theta0 with the buffers that move, by name.
        directions: One an axis.
        grid: The grid.

    Raises:
        DirectionError: With the part of the grid, drawn in towards theta0, that has none.
    """
    axes = [grid.x] if grid.y is None else [grid.x, grid.y]
    corners = list(itertools.product(*((axis.low, axis.high) for axis in axes)))
    reach, worst = dict.fromkeys(corners, 1.0), (0.0, "", corners[0])
    for name in (name for name in origin if name.endswith(VARIANCE)):
        held = [one.tensors.get(name) for one in directions]
        if all(tensor is None for tensor in held):
            continue
        variance = origin[name].cpu().double()
        for corner in corners:
            change = torch.zeros_like(variance)
            for c, tensor in zip(corner, held, strict=True):
                if tensor is not None:
                    change += c * tensor.cpu().double()
            lowest = float((variance + change).min())
            if lowest < 0:
                down = change < 0
                share = float((variance[down] / -change[down]).min())
                reach[corner] = min(reach[corner], share)
                worst = min(worst, (lowest, name, corner))
    lowest, name, corner = worst
    if lowest < 0:
        at = ", ".join(f"{axis} = {c:g}" for axis, c in zip("xy", corner, strict=False))
        raise DirectionError(
            f"expected running variances of 0 or more on the grid, got {lowest:.3g} in {name} at "
            f"{at}\n{_remedy(grid, reach)}, or leave buffers as they are with `dir_type` weights"
        )


def _remedy(grid: Grid, reach: Mapping[tuple[float, ...], float]) -> str:
    """Return the ends of the axes up to which all variances are sound, rounded inwards."""
    if grid.y is None:
        low, high = (_inwards(share * corner[0]) for corner, share in reach.items())
        return f"take x within {low:g}:{high:g}"
    share = min(reach.values())
    ends = [_inwards(share * end) for axis in (grid.x, grid.y) for end in (axis.low, axis.high)]
    return "take x within {:g}:{:g} and y within {:g}:{:g}".format(*ends)


def _inwards(value: float) -> float:
    """Return a number of four digits no further from 0."""
    rounded = float(f"{value:.4g}")
    return rounded if abs(rounded) <= abs(value) else float(f"{value * (1 - 5e-4):.4g}")
