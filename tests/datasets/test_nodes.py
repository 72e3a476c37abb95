"""Nodes of one graph as samples: masks, batches that hold the whole graph, choices, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from isoloss.datasets import DataError, NodeSplit
from isoloss.datasets.conversion import convert
from isoloss.landscape import Problem
from isoloss.landscape.batches import BatchError
from isoloss.pyg import import_pyg

PYG = import_pyg()


def graph(**fields: Any) -> Any:
    draws = torch.Generator().manual_seed(0)
    data = PYG.data.Data(
        x=torch.randn(12, 4, generator=draws, dtype=torch.float64),
        edge_index=torch.randint(12, (2, 20), generator=draws),
        y=torch.arange(12) % 3,
        train_mask=torch.arange(12) < 6,
        val_mask=(torch.arange(12) >= 6) & (torch.arange(12) < 8),
        test_mask=torch.arange(12) >= 8,
    )
    for name, value in fields.items():
        data[name] = value
    return data


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = PYG.nn.GCNConv(4, 3)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.convolution(x, edge_index)


def made(data: Any = None, **returned: Any) -> dict[str, Any]:
    data = graph() if data is None else data
    return convert({"train": data, "test": data, **returned}, "data set 'x'")[0]


def test_splits_are_the_masks() -> None:
    for data in (graph(), [graph()], graph(y=torch.arange(12)[:, None] % 3)):
        splits = made(data)
        assert [(name, len(splits[name])) for name in splits] == [
            ("train", 6), ("val", 2), ("test", 4),
        ]  # fmt: skip
        assert torch.equal(splits["test"].nodes, torch.arange(8, 12))
        assert torch.equal(splits["test"].targets, torch.arange(8, 12) % 3)
    assert len({split.digest() for split in splits.values()}) == 3
    empty = torch.zeros(12, dtype=torch.bool)
    assert list(made(graph(val_mask=empty))) == ["train", "test"]
    info = convert({"train": graph(), "test": graph()}, "x")[1]
    assert (info.num_features, info.num_classes, info.input_shape) == (4, 3, ())


def test_batches_hold_the_whole_graph_and_their_nodes_in_order() -> None:
    train = made()["train"]
    (whole,) = train.batches(2)
    assert whole.num_nodes == 12
    assert torch.equal(whole.sample_index, torch.arange(6))
    order = torch.tensor([5, 0, 3])
    parts = [batch.sample_index.tolist() for batch in train.batches(2, order=order)]
    assert parts == [[5, 0], [3]]
    assert isinstance(train, NodeSplit)
    assert "sample_index" not in train.graph
    chosen = train.subset([4, 2])
    assert torch.equal(chosen.targets, torch.tensor([1, 2]))
    assert train.stratified(3, 0).targets.sort().values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("cut", [6, 2])
def test_the_loss_is_the_mean_over_the_nodes_of_the_mask(cut: int) -> None:
    torch.manual_seed(0)
    data, model = graph(), Network().double()
    train = made(data)["train"]
    batches = list(train.batches(cut, order=range(6)))
    problem = Problem(model, nn.CrossEntropyLoss(), batches, dtype=torch.float64)
    with torch.no_grad():
        logits = model(data.x.float().double(), data.edge_index)[data.train_mask]
        expected = nn.functional.cross_entropy(logits, data.y[data.train_mask])
        hits = (logits.argmax(1) == data.y[data.train_mask]).double().mean()
    found = problem.evaluate()
    assert problem.count == 6
    assert found.loss == pytest.approx(float(expected), abs=1e-12)
    assert found.accuracy == pytest.approx(float(hits))


def test_a_network_that_pools_and_a_graph_without_samples_are_refused() -> None:
    (batch,) = made()["train"].batches(6)

    class Pooled(Network):
        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return super().forward(x, edge_index).mean(0, keepdim=True)

    with pytest.raises(BatchError, match=r"each of the graph's 12 nodes, got .*\nleave out"):
        Problem(Pooled(), nn.CrossEntropyLoss(), [batch])
    with pytest.raises(BatchError, match=r"\n.*`sample_index`, as data\.train_mask\.nonzero"):
        Problem(Network(), nn.CrossEntropyLoss(), [graph()])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (graph(train_mask=torch.ones(12, 10, dtype=torch.bool)), r"one of its 10 .* as train_mask"),
        (graph(train_mask=torch.arange(12)), "bool of shape .* got torch.int64 .*; set data"),
        (graph(test_mask=torch.zeros(12, dtype=torch.bool)), "nodes in test_mask, got none; leave"),
        (graph(y=torch.arange(5)), r"each of 12 nodes .* got y of shape \(5,\); .* label -100"),
        (PYG.data.Data(x=torch.ones(3, 1), edge_index=torch.zeros(2, 1).long(), y=torch.arange(3)),
         "expected train_mask in the graph, bool of shape .*, got none; set data.train_mask"),
        ([graph(), graph()], r"one target a graph, .* got \(12,\); .* Batch.from_data_list"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_remedy(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(data)
