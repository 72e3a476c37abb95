"""Samples in a fixed order, and seeded choices among them."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


class Choosing(ABC):
    """What every split has that knows its targets and how to pick samples by index."""

    targets: Tensor

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def subset(self, indices: Tensor | Sequence[int]) -> Self:
        """Return the samples of these indices, in this order."""

    def balanced(self, count: int, seed: int) -> Self:
        """Return a seeded subset with as many of each class as can be; see `balanced_indices`."""
        if count >= len(self):
            return self
        return self.subset(balanced_indices(self.targets, count, seed))

    def stratified(self, count: int, seed: int) -> Self:
        """Return a seeded subset that keeps each class's share; see `proportional_indices`."""
        if count >= len(self):
            return self
        return self.subset(proportional_indices(self.targets, count, seed))


@dataclass(frozen=True, eq=False)
class TensorSplit(Choosing):
    """Samples held as two tensors.

    Attributes:
        inputs: (N, ...).
        targets: (N, ...); class labels are int64 (N,).
        groups: (N,) int64, what each sample belongs to; None where samples are independent.
    """

    inputs: Tensor
    targets: Tensor
    groups: Tensor | None = None
    handover_batch = 10_000

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.inputs.shape[1:])

    @property
    def num_features(self) -> int:
        """Scalars in one sample."""
        return math.prod(self.input_shape)

    def __len__(self) -> int:
        return len(self.inputs)

    def subset(self, indices: Tensor | Sequence[int]) -> TensorSplit:
        """Return the samples of these indices, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        groups = None if self.groups is None else self.groups[chosen]
        return TensorSplit(self.inputs[chosen], self.targets[chosen], groups)

    def batches(
        self, size: int, order: Tensor | Sequence[int] | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs (inputs (b, ...), targets (b, ...)), b = size but for a ragged last one.

        Args:
            size: samples in a batch.
            order: indices to go through; all, in the order held, if None.
            drop_last: leave a ragged last batch out.

        Raises:
            ValueError: a size below 1.
        """
        for chosen in batch_indices(len(self), size, order, drop_last):
            yield self.inputs[chosen], self.targets[chosen]

    def digest(self) -> str:
        """Return the SHA-256 over dtype, shape and bytes of inputs and targets, groups left out."""
        return digest_tensors([("", self.inputs), ("", self.targets)])


def batch_indices(
    count: int, size: int, order: Tensor | Sequence[int] | None, drop_last: bool
) -> Iterator[slice | Tensor]:
    """Yield what picks each batch of `size` of `count` samples: slices, or parts of the order.

    Raises:
        ValueError: a size below 1.
    """
    indices = None if order is None else torch.as_tensor(order, dtype=torch.int64)
    for part in batch_slices(count if indices is None else len(indices), size, drop_last):
        yield part if indices is None else indices[part]


def batch_slices(count: int, size: int, drop_last: bool = False) -> Iterator[slice]:
    """Yield slices of `size` that cover `count` samples, the last one ragged or left out.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {size}; give a larger one")
    for start in range(0, count - size + 1 if drop_last else count, size):
        yield slice(start, min(start + size, count))


def digest_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 over name, dtype, shape and bytes of each, in order."""
    sha = hashlib.sha256()
    for name, tensor in tensors:
        sha.update(f"{name}{tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()


def balanced_indices(targets: Tensor, count: int, seed: int) -> Tensor:
    """Choose `count` samples without replacement, the same number of each class.

    Where a class is short, the others share what it lacks; what does not divide evenly goes to
    classes in a seeded order. A smaller count chooses a subset of what a larger one does. Targets
    that are no class labels are chosen from at random.

    Args:
        targets: (N,) class labels, or anything (N, ...).
        count: how many, from 1 to N.
        seed: of a generator of its own.

    Returns:
        Indices (count,), ascending.

    Raises:
        ValueError: a count out of range.
    """
    if not 1 <= count <= len(targets):
        raise ValueError(
            f"expected a count from 1 to {len(targets)} samples, got {count}; give another one"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)

    def quotas_of(sizes: Tensor) -> Tensor:
        sequence = torch.randperm(len(sizes), generator=generator)
        quotas = torch.zeros_like(sizes)
        while (left := count - int(quotas.sum())) > 0:
            below = sequence[(quotas < sizes)[sequence]]
            share = left // len(below)
            if share == 0:
                quotas[below[:left]] += 1
            else:
                quotas[below] = torch.minimum(quotas[below] + share, sizes[below])
        return quotas

    return _chosen_by_class(targets, count, order, quotas_of)


def proportional_indices(targets: Tensor, count: int, seed: int) -> Tensor:
    """Choose `count` samples without replacement, of each class in proportion to its number.

    Each class's number is within 1 of its exact share (largest remainders), so that plain means
    over the sample estimate those over all samples: they are off by what is rounded in the shares
    alone, at most half the number of classes in `count`. Targets that are no class labels are
    chosen from at random.

    Args:
        targets: (N,) class labels, or anything (N, ...).
        count: how many, from 0 to N.
        seed: of a generator of its own.

    Returns:
        Indices (count,), ascending.

    Raises:
        ValueError: a count out of range.
    """
    if not 0 <= count <= len(targets):
        raise ValueError(
            f"expected a count from 0 to {len(targets)} samples, got {count}; give another one"
        )
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))

    def quotas_of(sizes: Tensor) -> Tensor:
        exact = sizes.double() * count / len(targets)
        quotas = exact.floor().long()
        remainders = (exact - quotas).sort(descending=True, stable=True).indices
        quotas[remainders[: count - int(quotas.sum())]] += 1
        return quotas

    return _chosen_by_class(targets, count, order, quotas_of)


def _chosen_by_class(
    targets: Tensor, count: int, order: Tensor, quotas_of: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the first of each class in an order, as many as its quota; of no labels any."""
    if not _are_labels(targets):
        return order[:count].sort().values
    labels, sizes = targets.unique(return_counts=True)
    return _first_of_each(targets, labels, quotas_of(sizes), order)


def stratified_indices(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Set a seeded share of the samples aside, the same share of each class.

    round(fraction N) samples in all; each class's number is within 1 of its exact share (largest
    remainders). Targets that are no class labels are chosen from at random.

    Args:
        targets: (N,) class labels, or anything (N, ...).
        fraction: from 0 to 1.
        seed: of a generator of its own.

    Returns:
        Indices set aside and indices left, both ascending.
    """
    chosen = proportional_indices(targets, round(fraction * len(targets)), seed)
    kept = torch.ones(len(targets), dtype=torch.bool)
    kept[chosen] = False
    return chosen, kept.nonzero().flatten()


def _first_of_each(targets: Tensor, labels: Tensor, quotas: Tensor, order: Tensor) -> Tensor:
    ordered = targets[order]
    chosen = [order[ordered == label][:quota] for label, quota in zip(labels, quotas, strict=True)]
    return torch.cat(chosen).sort().values


def _are_labels(targets: Tensor) -> bool:
    return targets.ndim == 1 and not targets.is_floating_point()
