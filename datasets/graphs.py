"""Graphs as a split: samples of different sizes, delivered as PyTorch Geometric batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from isoloss.datasets.catalogue import DataError
from isoloss.datasets.splits import Choosing, batch_slices, digest_tensors
from isoloss.pyg import import_pyg


@dataclass(frozen=True, eq=False)
class GraphSplit(Choosing):
    """Samples held as graphs, each a `torch_geometric.data.Data`.

    Attributes:
        graphs: each with `y` of shape (1, ...): (1,) int64 for a class label.
        groups: (N,) int64, what each graph belongs to; None where graphs are independent.
    """

    graphs: tuple[Any, ...]
    groups: Tensor | None = None
    handover_batch = 256  # nodes are many: some 8,000 in as many molecules

    def __len__(self) -> int:
        return len(self.graphs)

    @cached_property
    def targets(self) -> Tensor:  # type: ignore[override]
        """(N, ...), in the order of the graphs."""
        return torch.cat([graph.y for graph in self.graphs])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(), as graphs differ in size."""
        return ()

    @property
    def num_features(self) -> int:
        """Features of a node; 0 where nodes have none."""
        x = self.graphs[0].x
        return 0 if x is None else x.shape[1]

    def subset(self, indices: Tensor | Sequence[int]) -> GraphSplit:
        """Return the graphs of these indices, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        groups = None if self.groups is None else self.groups[chosen]
        return GraphSplit(tuple(self.graphs[index] for index in chosen.tolist()), groups)

    def batches(
        self, size: int, order: Tensor | Sequence[int] | None = None, drop_last: bool = False
    ) -> Iterator[Any]:
        """Yield `torch_geometric.data.Batch` of `size` graphs but for a ragged last one.

        A batch is one large graph of parts that are not connected, so what a network computes for
        a graph does not depend, beyond rounding, on the others beside it.

        Args:
            size: graphs in a batch.
            order: indices to go through; all, in the order held, if None.
            drop_last: leave a ragged last batch out.

        Raises:
            ValueError: a size below 1.
        """
        graphs = self.graphs if order is None else self.subset(order).graphs
        for part in batch_slices(len(graphs), size, drop_last):
            yield _batch(graphs[part])

    def digest(self) -> str:
        """Return the SHA-256 of all tensors (name, dtype, shape, bytes), the graphs end to end.

        Groups are left out.
        """
        batch = _batch(self.graphs)
        parts = ((name, batch[name]) for name in sorted(batch.keys()))
        return digest_tensors(
            (f"{name} ", part) for name, part in parts if isinstance(part, Tensor)
        )


def _batch(graphs: Sequence[Any]) -> Any:
    return import_pyg().data.Batch.from_data_list(list(graphs))


def is_graph(sample: Any) -> bool:
    """Return whether a sample is a graph of PyTorch Geometric, told without importing it."""
    return hasattr(sample, "edge_index") and hasattr(sample, "num_nodes")


def to_graph_split(dataset: Any, what: str) -> GraphSplit:
    """Check a list or dataset of graphs; the graphs themselves are not changed.

    Floating tensors become float32 and targets (1, ...).

    Args:
        dataset: of length N, graphs by index.
        what: for messages, as "data set 'tu:MUTAG', train".

    Raises:
        DataError: names the graph, what was expected and what was found.
    """
    graphs = tuple(
        _check_graph(dataset[index], f"{what}, graph {index}") for index in range(len(dataset))
    )
    first = _layout(graphs[0])
    for index, graph in enumerate(graphs):
        if (layout := _layout(graph)) != first:
            differing = [n for n in {**first, **layout} if first.get(n) != layout.get(n)]
            raise DataError(
                f"{what}: expected graphs that are alike in their fields, got for "
                f"{differing[0]!r} {first.get(differing[0], 'nothing')} in graph 0 and "
                f"{layout.get(differing[0], 'nothing')} in graph {index}"
            )
    return GraphSplit(graphs)


def _check_graph(graph: Any, what: str) -> Any:
    graph = checked_graph(graph, what)
    target = graph.y.reshape(1) if graph.y.numel() == 1 else graph.y
    if len(target) != 1:
        raise DataError(
            f"{what}: expected one target a graph, y of shape (1, ...), got {tuple(target.shape)}; "
            f"targets of nodes are taken of one graph with train_mask and test_mask: join several "
            f"with Batch.from_data_list(graphs)"
        )
    graph.y = target
    return graph


def checked_graph(graph: Any, what: str) -> Any:
    """Return a copy of a graph that is sound, floating tensors as float32, classes as int64.

    Raises:
        DataError: names what was expected and what was found.
    """
    if not is_graph(graph) or graph.edge_index is None or graph.y is None:
        lacking = [name for name in ("edge_index", "y") if getattr(graph, name, None) is None]
        raise DataError(
            f"{what}: expected a torch_geometric Data with edge_index and y, "
            f"got {type(graph).__name__} without {' and '.join(lacking)}; set it in the factory"
        )
    edges, nodes = graph.edge_index, graph.num_nodes
    if edges.ndim != 2 or len(edges) != 2 or edges.dtype != torch.int64:
        raise DataError(
            f"{what}: expected an edge_index of shape (2, edges) and int64, "
            f"got {tuple(edges.shape)} of {edges.dtype}; transpose or convert it, as "
            f"edge_index.t().contiguous().long()"
        )
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < nodes:
        raise DataError(
            f"{what}: expected edges between nodes 0 and {nodes - 1}, "
            f"got one from {int(edges.min())} to {int(edges.max())}; number the nodes from 0"
        )
    if graph.x is not None and (graph.x.ndim != 2 or len(graph.x) != nodes):
        raise DataError(
            f"{what}: expected node features x of shape ({nodes}, features), "
            f"got {tuple(graph.x.shape)}; give one feature as x[:, None]"
        )
    graph = copy.copy(graph)
    target = torch.as_tensor(graph.y)
    graph.y = target.float() if target.is_floating_point() else target.long()
    for name, value in graph.to_dict().items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        if not value.isfinite().all():
            raise DataError(f"{what} holds NaN or inf in {name}; mend or remove it")
        graph[name] = value.float()
    return graph


def _layout(graph: Any) -> dict[str, str]:
    """Return of each field what all graphs must share to be put side by side."""
    return {
        name: f"(., {', '.join(map(str, value.shape[1:]))}) {value.dtype}"
        if isinstance(value, Tensor) and name != "edge_index"
        else type(value).__name__
        for name, value in graph.to_dict().items()
    }
