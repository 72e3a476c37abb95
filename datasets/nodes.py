"""Nodes of one graph as a split: the samples are those of a mask, messages pass over all."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from isoloss.datasets.catalogue import DataError
from isoloss.datasets.graphs import checked_graph, is_graph
from isoloss.datasets.splits import Choosing, batch_indices, digest_tensors
from isoloss.structure import NODES


@dataclass(frozen=True, eq=False)
class NodeSplit(Choosing):
    """Some nodes of one `torch_geometric.data.Data`.

    Attributes:
        graph: with `y` of shape (nodes, ...): (nodes,) int64 for class labels.
        nodes: (N,) int64, indices of the samples.
        groups: (N,) int64, what each of them belongs to; None where they are independent.
    """

    graph: Any
    nodes: Tensor
    groups: Tensor | None = None
    handover_batch = 10_000

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def targets(self) -> Tensor:  # type: ignore[override]
        """(N, ...), in the order of the nodes."""
        targets: Tensor = self.graph.y[self.nodes]
        return targets

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(), as for all graphs."""
        return ()

    @property
    def num_features(self) -> int:
        """Features of a node; 0 where nodes have none."""
        x = self.graph.x
        return 0 if x is None else x.shape[1]

    def subset(self, indices: Tensor | Sequence[int]) -> NodeSplit:
        """Return the nodes of these indices among those of the split, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        groups = None if self.groups is None else self.groups[chosen]
        return NodeSplit(self.graph, self.nodes[chosen], groups)

    def batches(
        self, size: int, order: Tensor | Sequence[int] | None = None, drop_last: bool = False
    ) -> Iterator[Any]:
        """Yield the whole graph with the nodes of the batch in its field `sample_index`.

        Args:
            size: nodes in a batch. Without an order all come at once: each batch takes a pass over
                the whole graph.
            order: indices to go through; all, in the order held, if None.
            drop_last: leave a ragged last batch out.

        Raises:
            ValueError: a size below 1.
        """
        size = max(size, len(self)) if order is None and size > 0 else size
        for chosen in batch_indices(len(self), size, order, drop_last):
            graph = copy.copy(self.graph)
            graph[NODES] = self.nodes[chosen]
            yield graph

    def digest(self) -> str:
        """Return the SHA-256 of all tensors of the graph (name, dtype, shape, bytes) and the nodes.

        Masks and groups are left out.
        """
        held = self.graph.to_dict()
        names = [n for n in sorted(held) if isinstance(held[n], Tensor) and n[-5:] != "_mask"]
        parts = [(f"{name} ", held[name]) for name in names]
        return digest_tensors([*parts, (f"{NODES} ", self.nodes)])


def graph_of_nodes(data: Any) -> Any:
    """Return the one graph whose nodes are samples, None where graphs are samples or there is none.

    Args:
        data: a graph, or a list or dataset of one, with masks or a target for each node.
    """
    if not is_graph(data):
        if isinstance(data, Mapping | Tensor) or not hasattr(data, "__getitem__"):
            return None
        if not hasattr(data, "__len__") or len(data) != 1 or not is_graph(data[0]):
            return None
        data = data[0]
    targets = getattr(data, "y", None)
    if isinstance(targets, Tensor) and targets.ndim and len(targets) == data.num_nodes > 1:
        return data
    return data if any(f"{name}_mask" in data for name in ("train", "val", "test")) else None


def to_node_split(graph: Any, name: str, what: str) -> NodeSplit:
    """Return the nodes of a graph under the mask of a split, `train_mask` for the train split.

    Args:
        graph: with y (nodes, ...) or (nodes, 1), and the mask (nodes,), bool.
        name: of the split.
        what: for messages, as "data set 'x', train".

    Raises:
        DataError: names what was expected and what was found.
    """
    key = f"{name}_mask"
    graph, nodes = checked_graph(graph, what), graph.num_nodes
    if graph.y.ndim == 2 and graph.y.shape[1] == 1 and not graph.y.is_floating_point():
        graph.y = graph.y[:, 0]
    if graph.y.shape[:1] != (nodes,):
        raise DataError(
            f"{what}: expected a target for each of {nodes} nodes in a graph with masks, got y of "
            f"shape {tuple(graph.y.shape)}; give nodes without one the label -100"
        )
    mask = getattr(graph, key, None)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (nodes,):
        got = "none" if mask is None else f"{getattr(mask, 'dtype', type(mask).__name__)}"
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else ()
        column = f"; choose one of its {shape[1]} divisions, as {key}[:, 0]" if shape[1:] else ""
        raise DataError(
            f"{what}: expected {key} in the graph, bool of shape ({nodes},), got {got}"
            f"{f' of shape {shape}' if shape else ''}"
            + (column or f"; set data.{key} in the factory, True for the nodes of the split")
        )
    if not mask.any():
        raise DataError(
            f"{what}: expected nodes in {key}, got none; leave the split out or fill the mask"
        )
    return NodeSplit(graph, mask.nonzero().flatten())
