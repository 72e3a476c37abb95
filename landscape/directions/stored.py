"""Directions given as arrays in the order of a network, as files hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from isoloss.landscape.directions.direction import DirectionError, RawDirection


def stored_direction(
    arrays: Sequence[np.ndarray],
    layouts: Sequence[Mapping[str, Tensor]],
    moved: Mapping[str, Tensor],
    **source: object,
) -> RawDirection:
    """Return a direction from its arrays.

    Args:
        arrays: One a tensor.
        layouts: The orders that arrays may have, the likeliest first: tensors by name, for their
            shapes.
        moved: What may move, by name. Of the parameters among it all have to be in the layout;
            other entries of a layout are left out.
        **source: What to store of it, JSON-able, as `Direction.source`.

    Raises:
        DirectionError: If the arrays fit no layout.
    """
    shapes = [tuple(array.shape) for array in arrays]
    for layout in layouts:
        if [tuple(tensor.shape) for tensor in layout.values()] == shapes:
            held = dict(zip(layout, arrays, strict=True))
            tensors = {
                name: torch.from_numpy(np.array(held[name], dtype=float))
                for name in moved
                if name in held
            }
            return RawDirection(tensors, "file", source)
    expected = " or ".join(dict.fromkeys(str(len(layout)) for layout in layouts))
    first = tuple(next(iter(layouts[0].values())).shape)
    raise DirectionError(
        f"expected arrays in the shapes of the network, {expected} of them, {first} the first, "
        f"got {len(shapes)}, {shapes[0] if shapes else 'none'} the first\n"
        "give a direction of the same architecture"
    )
