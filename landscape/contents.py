"""Batches of any structure, as closures are handed them.

A batch is a tensor, a mapping, a list, a (named) tuple or a dataclass of such, nested at will, or a
graph batch. Its samples are counted along dimension 0 of its first tensor that has one. They are
cut along dimension 0 of every tensor of that length (of that length in every batch, where there are
several), and so are lists of as many strings. All else (other tensors, numbers, text, objects)
belongs to all samples alike and is passed along.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoloss.landscape.batches import BatchError, Samples
from isoloss.structure import NODES, cut, is_graph, is_text, leaves, map_leaves, rows_of

PLAIN = (str, bytes, int, float, complex, bool, type(None))


@dataclass(frozen=True)
class Content(Samples):
    """A batch as it was given.

    Attributes:
        content: The batch.
        count: Number of samples.
        shared: Paths of the parts (`"batch.mask"`, `"batch.0"`) that belong to all samples alike.
    """

    content: Any
    count: int
    shared: frozenset[str]

    @property
    def sliceable(self) -> bool:
        """Whether single samples can be cut out: not of graphs."""
        return not any(map(is_graph, leaves(self.content).values()))

    @property
    def images(self) -> bool:
        """Whether the first tensor is images."""
        tensors = (leaf for leaf in leaves(self.content).values() if isinstance(leaf, Tensor))
        return any(tensor.ndim == 4 for tensor in [*tensors][:1])

    def __getitem__(self, part: slice | Tensor) -> Content:
        count = len(range(self.count)[part]) if isinstance(part, slice) else len(part)
        return Content(cut(self.content, part, self.shared), count, self.shared)

    def map(self, change: Callable[[Tensor], Tensor]) -> Content:
        """Return the batch with every tensor changed."""

        def apply(path: str, leaf: Any) -> Any:
            if is_graph(leaf):
                return leaf.clone().apply(change)
            return change(leaf) if isinstance(leaf, Tensor) else leaf

        return dataclasses.replace(self, content=map_leaves(self.content, apply))

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by path; plain values as empty tensors whose names say the value."""
        found: dict[str, Tensor] = {}
        for path, leaf in leaves(self.content).items():
            if isinstance(leaf, Tensor):
                found[path] = leaf
            elif is_graph(leaf):
                parts = {k: v for k, v in leaf.to_dict().items() if isinstance(v, Tensor)}
                found |= {f"{path}.{key}": parts[key] for key in sorted(parts)}
            elif isinstance(leaf, PLAIN) or is_text(leaf):
                found[f"{path} = {leaf!r}"] = torch.empty(0)
        return found

    @staticmethod
    def merge(batches: Sequence[Content]) -> list[Content]:
        """Return the batches as one where they agree but for their samples."""
        shared = frozenset[str]().union(*(batch.shared for batch in batches))
        batches = [dataclasses.replace(batch, shared=shared) for batch in batches]
        first = batches[0]
        if len(batches) < 2 or not first.sliceable:
            return batches
        parts = [leaves(batch.content) for batch in batches]
        if not all(_continues(part, parts[0], shared) for part in parts[1:]):
            return batches

        def join(path: str, leaf: Any) -> Any:
            if path in shared:
                return leaf
            if isinstance(leaf, Tensor):
                return torch.cat([part[path] for part in parts])
            return [text for part in parts for text in part[path]]

        count = sum(batch.count for batch in batches)
        return [Content(map_leaves(first.content, join), count, shared)]


def as_content(item: Any) -> Content:
    """Find the samples of one batch.

    Raises:
        BatchError: If it holds no tensor to count them by, or arrays that are no tensors.
    """
    if isinstance(item, Content):
        return item
    parts = leaves(item)
    counts = []
    for path, leaf in parts.items():
        if (nodes := rows_of(leaf)) is not None:
            counts.append(len(nodes))
        elif is_graph(leaf) and hasattr(leaf, "num_graphs"):
            counts.append(int(leaf.num_graphs))
        elif isinstance(leaf, Tensor) and leaf.ndim:
            counts.append(leaf.shape[0])
        elif hasattr(leaf, "__array__") and getattr(leaf, "ndim", False):
            raise BatchError(
                f"expected tensors in a batch, got {type(leaf).__name__} at {path}\n"
                "turn arrays into tensors with torch.as_tensor"
            )
    if not counts:
        found = ", ".join(f"{path} {_describe(leaf)}" for path, leaf in [*parts.items()][:6])
        raise BatchError(
            "expected a tensor (samples, ...) or a graph batch in every batch, to count its "
            f"samples by, got {found or 'an empty batch'}\n"
            "give the samples dimension 0 of its first tensor (a single graph: "
            f"Batch.from_data_list([data]); of its nodes: indices in its field `{NODES}`)"
        )
    whole = {path for path, leaf in parts.items() if not _is_of_samples(leaf, counts[0])}
    return Content(item, counts[0], frozenset(whole))


def _is_of_samples(leaf: Any, count: int) -> bool:
    if isinstance(leaf, Tensor):
        return leaf.ndim > 0 and leaf.shape[0] == count
    return is_graph(leaf) or (is_text(leaf) and len(leaf) == count)


def _continues(part: Mapping[str, Any], first: Mapping[str, Any], shared: frozenset[str]) -> bool:
    """Return whether a batch has the parts of the first one, of the same kinds."""
    return part.keys() == first.keys() and all(
        _same(part[path], leaf) if path in shared else _same_kind(part[path], leaf)
        for path, leaf in first.items()
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    return a is b or (isinstance(a, PLAIN) and isinstance(b, PLAIN) and a == b)


def _same_kind(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.dtype, a.shape[1:], a.device) == (b.dtype, b.shape[1:], b.device)
    return type(a) is type(b)


def _describe(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        return f"of shape {tuple(leaf.shape)}"
    return type(leaf).__name__
