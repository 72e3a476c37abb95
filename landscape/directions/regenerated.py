"""Random directions of large networks: drawn again, tensor by tensor, whenever they are needed.

A direction that is held takes as much memory as the weights, and several times that in float64
while it is normalised. These keep the generator's state before each tensor instead, and work in
blocks of rows. A filter is a row, so that rules that scale filters by themselves need no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import EllipsisType

import torch
from torch import Tensor

from isoloss.landscape.normalisation import Tensors, normalise

# Rules of `landscape.normalisation` that scale each filter, or entry, by itself.
BY_ROWS = ("filter", "dfilter", "weight", "none")
# Entries of a block, and how many torch's generator draws together: a block is made of whole ones.
BLOCK, TOGETHER = 2**20, 16
Rows = slice | EllipsisType
Rule = tuple[str, str]


class Drawn(Mapping[str, Tensor]):
    """Gaussian tensors, float64 on the CPU, drawn as `torch.randn` draws one after the other.

    Args:
        like: Tensors by name, for order and shapes.
        seed: Of the generator.
    """

    def __init__(self, like: Mapping[str, Tensor], seed: int) -> None:
        self._shapes = {name: tensor.shape for name, tensor in like.items()}
        self._states: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(seed)
        for name, shape in self._shapes.items():
            self._states[name] = generator.get_state()
            for _ in _blocks(shape, generator):
                pass

    def __getitem__(self, name: str) -> Tensor:
        generator = torch.Generator()
        generator.set_state(self._states[name])
        return torch.randn(self._shapes[name], generator=generator).double()

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def blocks(self, name: str) -> Iterator[tuple[Rows, Tensor]]:
        """Yield blocks of a tensor's rows and where they are; all of one of a dimension or none."""
        generator = torch.Generator()
        generator.set_state(self._states[name])
        for rows, block in _blocks(self._shapes[name], generator):
            yield rows, block.double()


class Regenerated(Mapping[str, Tensor]):
    """The tensors N(y) of a direction, or N(y - a x), made when they are asked for.

    Args:
        drawn: y.
        weights: What N normalises against, by name. The tensors get their dtype and device.
        rule: Normalisation, one of `BY_ROWS`, and ignore rule of N.
        beside: (x, a), of a direction that is made orthogonal to that of x.
    """

    def __init__(
        self,
        drawn: Drawn,
        weights: Mapping[str, Tensor],
        rule: Rule,
        beside: tuple[Drawn, float] | None = None,
    ) -> None:
        self._drawn, self._rule, self._beside = drawn, rule, beside
        self._weights = {name: weights[name].detach() for name in drawn}

    @property
    def like(self) -> Tensors:
        """Tensors of the same names, shapes and dtypes, at no cost: the weights."""
        return self._weights

    def __getitem__(self, name: str) -> Tensor:
        weight = self._weights[name]
        made = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
        others = None if self._beside is None else self._beside[0].blocks(name)
        for rows, block in self._drawn.blocks(name):
            if others is not None and self._beside is not None:
                block = block - self._beside[1] * next(others)[1]
            against = {name: weight[rows].cpu().double()}
            made[rows] = normalise({name: block}, against, *self._rule)[name].to(made)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def _blocks(shape: torch.Size, generator: torch.Generator) -> Iterator[tuple[Rows, Tensor]]:
    """Yield rows of a tensor as they are drawn, the same numbers as of the whole at once."""
    if len(shape) <= 1:
        yield ..., torch.randn(shape, generator=generator)
        return
    width = math.prod(shape[1:])
    step = TOGETHER * max(1, BLOCK // (TOGETHER * max(1, width)))
    starts = list(range(0, shape[0], step)) or [0]
    # A last block of fewer entries would be drawn one by one.
    if len(starts) > 1 and (shape[0] - starts[-1]) * width < TOGETHER:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], shape[0]], strict=True):
        yield slice(start, end), torch.randn(end - start, *shape[1:], generator=generator)
