"""Directions between two points of weight space."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from isoloss.landscape.directions.direction import DirectionError, RawDirection


def towards(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], label: str = "b", **source: object
) -> RawDirection:
    """Return theta_end - theta_start: unless it is scaled, the end lies at 1.

    Args:
        start: theta0, and buffers that move with it, by name.
        end: The other weights; names that `start` does not have are left out.
        label: What axes call the end.
        **source: What else to store of it, JSON-able, as `Direction.source`.

    Raises:
        DirectionError: If names of `start` are missing in `end`, or shapes differ.
    """
    wrong = [
        f"{name} missing"
        if name not in end
        else f"{name} {tuple(end[name].shape)} in place of {tuple(tensor.shape)}"
        for name, tensor in start.items()
        if name not in end or end[name].shape != tensor.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DirectionError(
            f"expected the other weights to be of the same network, got {', '.join(wrong[:3])}"
            f"{more}\ngive a checkpoint of the same architecture"
        )
    moved = {
        name: end[name].detach().double().cpu() - tensor.detach().double().cpu()
        for name, tensor in start.items()
    }
    return RawDirection(moved, "to", {"label": f"towards {label}", **source})
