from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isoloss.datasets import DataError, GraphSplit, load_data
from isoloss.datasets.conversion import convert
from isoloss.landscape import Problem
from isoloss.pyg import import_pyg

Data = import_pyg().data.Data
global_mean_pool = import_pyg().nn.global_mean_pool
GraphConv = import_pyg().nn.GraphConv


def graphs(count: int = 12, **changes: Any) -> list[Any]:
    """Rings of 3, 4, .. nodes; node features tell a graph apart."""
    made = []
    for index in range(count):
        nodes = torch.arange(3 + index)
        edges = torch.stack([nodes, nodes.roll(1)])
        x = torch.full((len(nodes), 2), float(index))
        made.append(Data(x=x, edge_index=edges, y=index % 3))
    for name, value in changes.items():
        made[4][name] = value
    return made


def split(made: list[Any] | None = None) -> GraphSplit:
    converted, _ = convert({"train": made or graphs(), "test": graphs(3)}, "data")
    assert isinstance(converted["train"], GraphSplit)
    return converted["train"]


def test_a_list_of_graphs_becomes_a_split_and_is_left_alone() -> None:
    made = [Data(x=g.x.double(), edge_index=g.edge_index, y=g.y) for g in graphs()]
    converted, info = convert({"train": made, "test": made[:3]}, "data")
    train = converted["train"]
    assert (len(train), train.targets.dtype) == (12, torch.int64)
    assert torch.equal(train.targets, torch.arange(12) % 3)
    assert (info.input_shape, info.num_features, info.num_classes) == ((), 2, 3)
    assert info.model_context()["input_shape"] is None
    assert next(train.batches(12)).x.dtype == torch.float32
    assert (made[0].x.dtype, made[1].y) == (torch.float64, 1)


@pytest.mark.parametrize(
    ("y", "shape"), [(0.5, (2,)), (torch.tensor(0.5), (2,)), (torch.ones(1, 3), (2, 3))]
)
def test_regression_targets(y: Any, shape: tuple[int, ...]) -> None:
    made = [Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]), y=y) for _ in range(2)]
    converted, info = convert({"train": made, "test": made}, "data")
    assert (info.task, tuple(converted["train"].targets.shape)) == ("regression", shape)


@pytest.mark.parametrize("order", [None, [9, 0, 3, 3], torch.arange(11, -1, -1)])
def test_batches_go_through_the_graphs_in_order(order: Any) -> None:
    data = split()
    expected = list(range(12)) if order is None else torch.as_tensor(order).tolist()
    batches = list(data.batches(5, order))
    assert [b.num_graphs for b in batches][:-1] == [5] * (len(batches) - 1)
    assert [int(g.x[0, 0]) for b in batches for g in b.to_data_list()] == expected
    assert (
        sum(b.num_graphs for b in data.batches(5, order, drop_last=True)) == len(expected) // 5 * 5
    )


def test_subsets_and_digest() -> None:
    data = split()
    part = data.balanced(6, seed=0)
    assert part.targets.bincount().tolist() == [2, 2, 2]
    assert data.balanced(12, seed=0) is data
    assert data.digest() == split().digest()
    assert data.digest() != data.subset([1, 0, *range(2, 12)]).digest()
    for change in ({"x": torch.zeros(7, 2)}, {"y": 2}, {"edge_index": torch.tensor([[0], [1]])}):
        assert split(graphs(**change)).digest() != data.digest()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConv(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.second(global_mean_pool(self.first(x, edge_index).tanh(), batch))


def test_how_graphs_are_cut_does_not_change_the_loss() -> None:
    torch.manual_seed(0)
    model = Network().double()
    loss = nn.CrossEntropyLoss(reduction="none")
    values, gradients = [], []
    for size in (1, 5, split().handover_batch):
        problem = Problem(model, loss, split().batches(size), dtype=torch.float64)
        values.append(problem.evaluate().loss)
        gradients.append(problem.gradient()["first.lin_rel.weight"])
    # sums of a dozen terms in another order
    assert max(values) - min(values) < 1e-14 * max(values)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_index": torch.tensor([[0], [7]])}, "graph 4: expected edges between nodes 0 and 6"),
        ({"edge_index": torch.tensor([[-1], [0]])}, "got one from -1 to 0"),
        ({"edge_index": torch.zeros(2, 3)}, r"int64, got \(2, 3\) of torch.float32"),
        ({"x": torch.full((7, 2), torch.nan)}, "graph 4 holds NaN or inf in x"),
        ({"edge_attr": torch.full((7, 1), torch.inf)}, "graph 4 holds NaN or inf in edge_attr"),
        ({"x": torch.ones(7)}, r"expected node features x of shape \(7, features\), got \(7,\)"),
        ({"x": torch.ones(7, 3)}, r"alike in their fields, got for 'x' \(., 2\) .* in graph 4"),
        ({"edge_attr": torch.ones(7, 1)}, "for 'edge_attr' nothing in graph 0 and"),
        ({"y": torch.tensor([0, 1])}, r"one target a graph, y of shape \(1, ...\), got \(2,\)"),
        ({"y": -1}, "train: expected labels from 0 to 2, got -1 at index 4"),
        ({"y": None}, "graph 4: expected a torch_geometric Data with edge_index and y"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(graphs(**change))


def test_graphs_and_tensors_do_not_mix() -> None:
    with pytest.raises(
        DataError, match="got train graphs; test pairs of tensors; give every split"
    ):
        convert({"train": graphs(), "test": (torch.ones(2, 1), torch.tensor([0, 1]))}, "data")
    with pytest.raises(DataError, match=r"graph 1: expected .* Data .*, got tuple"):
        convert({"train": [graphs()[0], (1, 2)], "test": graphs()}, "data")


def test_a_plug_in_may_return_graphs(tmp_path: Path) -> None:
    (tmp_path / "rings.py").write_text(
        "import torch\n"
        "from torch_geometric.data import Data\n\n"
        "def make(data_dir):\n"
        "    edges = torch.tensor([[0, 1], [1, 0]])\n"
        "    rings = [Data(x=torch.ones(2, 1) * i, edge_index=edges, y=i % 2) for i in range(20)]\n"
        "    return {'train': rings[:10], 'test': rings[10:], 'facts': {'from': 'nowhere'}}\n"
    )
    data = load_data(f"{tmp_path / 'rings.py'}:make", val_fraction=0.2, fraction=0.5)
    assert (len(data.train), len(data.val), len(data.test)) == (4, 1, 10)
    assert data.provenance["source"] == {"from": "nowhere"}
    assert copy.deepcopy(data.train).digest() == data.train.digest()
