"""What a forward pass computes, seen operation by operation: how much memory, and of what kinds.

Hooks on modules would miss what is computed by functions (`F.relu`, `F.max_pool2d`, arithmetic).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isoloss.landscape.batches import Samples


def size_of(tensor: Tensor) -> int:
    """Return the bytes of a tensor's entries."""
    return tensor.numel() * tensor.element_size()


@dataclass(frozen=True)
class Activations:
    """What the operations of a forward pass put out; views and changes in place put out nothing.

    Attributes:
        bytes: Of all outputs, for each sample.
        largest: Of the largest one, or of the sample itself where that is larger.
        operations: How many operations there are, of all samples together.
        convolutions: Whether there are convolutions among them.
    """

    bytes: int
    largest: int
    operations: int
    convolutions: bool


def activations(objective: nn.Module, batch: Samples) -> Activations:
    """Look at a forward pass without gradients.

    Args:
        objective: The network with its loss, a module of a batch.
        batch: Samples to send through it; two are enough.
    """
    with torch.no_grad(), _Looking() as seen:
        objective(batch)
    largest = max([*seen.sizes, *map(size_of, batch.tensors().values())])
    each, one = (-(-size // batch.count) for size in (sum(seen.sizes), largest))
    return Activations(each, one, len(seen.sizes), seen.convolutions)


class _Looking(TorchDispatchMode):
    """Notes the outputs that share no memory with what went in."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.convolutions = False

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        known = {None, *map(_memory, tree_leaves((args, dict(kwargs or {}))))}
        new = {_memory(tensor): tensor for tensor in tree_leaves(result)}
        sizes = [size_of(tensor) for memory, tensor in new.items() if memory not in known]
        if sizes:
            self.sizes += [sum(sizes)]
        self.convolutions |= "convolution" in str(function)
        return result


def _memory(leaf: Any) -> int | None:
    """Return what tells the memory of a tensor from others'; None where there is none to tell."""
    if not isinstance(leaf, Tensor) or leaf.is_nested or leaf.layout != torch.strided:
        return None
    return int(leaf.untyped_storage()._cdata)
