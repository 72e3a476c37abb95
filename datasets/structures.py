"""Samples of any structure as a split: dictionaries, tuples of several inputs, tensors alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from isoloss.datasets.catalogue import DataError
from isoloss.datasets.splits import Choosing, batch_indices, digest_tensors
from isoloss.structure import cut, inputs_and_targets, leaves, map_leaves

ROOT = "data"


@dataclass(frozen=True, eq=False)
class StructureSplit(Choosing):
    """Samples held as tensors in a structure (see `isoloss.structure`), one row a sample.

    Attributes:
        content: The structure, as batches have it.
        count: Number of samples N.
        shared: Paths of tensors that belong to all samples alike; only where there are no targets.
        groups: (N,) int64, what each sample belongs to; None where samples are independent.
    """

    content: Any
    count: int
    shared: frozenset[str] = frozenset()
    groups: Tensor | None = None
    handover_batch = 10_000

    def __len__(self) -> int:
        return self.count

    @cached_property
    def targets(self) -> Tensor:  # type: ignore[override]
        """(N, ...); (N, 0), floating, where there are none."""
        targets = inputs_and_targets(self.content).targets
        return torch.empty(self.count, 0) if targets is None else targets

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample of the first input."""
        parts = leaves(inputs_and_targets(self.content).inputs)
        return tuple(next(iter(parts.values())).shape[1:])

    @property
    def num_features(self) -> int:
        """Scalars in one sample of the first input."""
        return math.prod(self.input_shape)

    def subset(self, indices: Tensor | Sequence[int]) -> StructureSplit:
        """Return the samples of these indices, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        groups = None if self.groups is None else self.groups[chosen]
        return StructureSplit(self._cut(chosen), len(chosen), self.shared, groups)

    def batches(
        self, size: int, order: Tensor | Sequence[int] | None = None, drop_last: bool = False
    ) -> Iterator[Any]:
        """Yield structures like the one held, of `size` samples but for a ragged last one.

        Args:
            size: samples in a batch.
            order: indices to go through; all, in the order held, if None.
            drop_last: leave a ragged last batch out.

        Raises:
            ValueError: a size below 1.
        """
        for chosen in batch_indices(self.count, size, order, drop_last):
            yield self._cut(chosen)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by path."""
        return leaves(self.content, ROOT)

    def digest(self) -> str:
        """Return the SHA-256 over path, dtype, shape and bytes of all tensors, groups left out."""
        return digest_tensors((f"{path} ", part) for path, part in self.tensors().items())

    def _cut(self, chosen: slice | Tensor) -> Any:
        return cut(self.content, chosen, self.shared, ROOT)


def to_structure_split(content: Any, groups: Tensor | None, what: str) -> StructureSplit:
    """Check a structure of tensors; floating ones become float32, classes int64.

    Where it has targets, every tensor must have a row for each of them. Else samples are counted
    along dimension 0 of the first tensor that has one, and tensors of other lengths are shared.

    Args:
        content: The structure.
        groups: (N,) or None.
        what: for messages, as "data set 'x', train".

    Raises:
        DataError: names the tensor, what was expected, what was found and the remedy.
    """
    targets = inputs_and_targets(content).targets
    parts = leaves(content, ROOT)
    rows = [part for part in parts.values() if part.ndim] if targets is None else [targets]
    if not rows or not rows[0].ndim:
        raise DataError(
            f"{what}: expected tensors (samples, ...), got single numbers; stack the samples along "
            f"dimension 0"
        )
    count = len(rows[0])
    if count == 0:
        raise DataError(f"{what}: expected at least one sample, got none; look at the factory")
    other = [path for path, part in parts.items() if part.shape[:1] != (count,)]
    if other and targets is not None:
        raise DataError(
            f"{what}: expected as many rows in every tensor as the {count} targets, got "
            f"{tuple(parts[other[0]].shape)} in {other[0]}; give each sample its row, or leave the "
            f"targets out (a dict without labels) and take a `closure`"
        )

    def convert(path: str, part: Tensor) -> Tensor:
        if part is targets:
            return part.float() if part.is_floating_point() else part.long()
        if part.dtype == torch.uint8:
            raise DataError(
                f"{what}: expected floating inputs, int64 tokens or bool masks, got uint8 in "
                f"{path}; scale them in the factory, as x.float() / 255, or convert with .bool()"
            )
        return part.float() if part.is_floating_point() else part

    return StructureSplit(map_leaves(content, convert, ROOT), count, frozenset(other), groups)
