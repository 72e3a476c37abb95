from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from isoloss.datasets import Data, DataError, GraphSplit, TensorSplit, load_data
from isoloss.errors import IsolossError
from isoloss.pyg import import_pyg

SOURCES = ["synthetic-ecg", "synthetic-images", "synthetic-graphs"]


@pytest.mark.parametrize("name", SOURCES)
def test_seeded_balanced_and_labelled_synthetic(name: str) -> None:
    data = load_data(name, {"samples": 200})
    assert len(data.train) + len(data.val) + len(data.test) == 200
    counts = data.test.targets.bincount()
    assert counts.max() == counts.min()
    torch.manual_seed(5)
    assert load_data(name, {"samples": 200}).info.digest == data.info.digest
    assert load_data(name, {"samples": 200, "seed": 1}).info.digest != data.info.digest
    assert data.provenance["notes"][0].startswith("synthetic data")
    with pytest.raises(DataError, match="10 samples of each, got 5 samples"):
        load_data(name, {"samples": 5})


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_ranges(channels: int) -> None:
    arguments = {"samples": 60, "channels": channels, "size": 16, "classes": 4}
    data = load_data("synthetic-images", arguments)
    assert isinstance(data.train, TensorSplit)
    assert (data.info.input_shape, data.info.num_classes) == ((channels, 16, 16), 4)
    assert 0 <= data.train.inputs.min() < data.train.inputs.max() <= 1
    data = load_data("synthetic-ecg", {"samples": 60})
    assert isinstance(data.train, TensorSplit)
    assert (data.info.input_shape, data.info.class_names) == ((187, 1), tuple("NSVFQ"))
    assert (data.train.inputs.amin((1, 2)) == 0).all()
    assert (data.train.inputs.amax((1, 2)) == 1).all()


def accuracy(data: Data, model: nn.Module, call: Any, epochs: int) -> float:
    """Of a small network on the test split, trained with Adam on the whole train split."""
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(epochs):
        for batch in data.train.batches(100):
            outputs, targets = call(model, batch)
            optimizer.zero_grad()
            nn.functional.cross_entropy(outputs, targets).backward()
            optimizer.step()
    with torch.no_grad():
        outputs, targets = call(model.eval(), next(data.test.batches(len(data.test))))
    return float((outputs.argmax(1) == targets).float().mean())


def of_pair(model: nn.Module, batch: Any) -> Any:
    return model(batch[0]), batch[1]


def test_series_can_be_learned() -> None:
    torch.manual_seed(0)
    data = load_data("synthetic-ecg", {"samples": 1000})
    model = nn.Sequential(nn.Flatten(), nn.Linear(187, 32), nn.ReLU(), nn.Linear(32, 5))
    assert accuracy(data, model, of_pair, epochs=15) > 0.9  # by chance 0.2


def test_images_can_be_learned() -> None:
    torch.manual_seed(0)
    data = load_data("synthetic-images", {"samples": 1000, "classes": 4})
    model = nn.Sequential(
        nn.Conv2d(1, 8, 7, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )  # fmt: skip
    assert accuracy(data, model, of_pair, epochs=12) > 0.8  # by chance 0.25


def test_graphs_can_be_learned_from_their_edges_only() -> None:
    geometric = import_pyg()
    data = load_data("synthetic-graphs", {"samples": 600})
    assert isinstance(data.train, GraphSplit)

    class Network(nn.Module):
        def __init__(self, with_edges: bool) -> None:
            super().__init__()
            self.with_edges = with_edges
            self.conv = geometric.nn.GraphConv(4, 16)
            self.head = nn.Linear(16, 2)

        def forward(self, graphs: Any) -> Any:
            edges = graphs.edge_index if self.with_edges else graphs.edge_index[:, :0]
            hidden = self.conv(graphs.x, edges).relu()
            return self.head(geometric.nn.global_add_pool(hidden, graphs.batch))

    scores = []
    for with_edges in (True, False):
        torch.manual_seed(0)
        call: Any = lambda model, batch: (model(batch), batch.y)  # noqa: E731
        scores.append(accuracy(data, Network(with_edges), call, epochs=20))
    assert scores[0] > 0.9
    assert scores[1] < 0.65  # chance is 0.5, 120 test graphs have a standard error of 0.046


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("synthetic-images", {"size": -1}, "size and channels of 1 or more, got -1 and 1"),
        ("synthetic-images", {"channels": 0}, "size and channels of 1 or more, got 28 and 0"),
        ("synthetic-images", {"samples": 10**15}, "made in memory, got 1,000,000,000,000,000"),
        ("synthetic-images", {"size": 10**6}, "expected up to 0 samples of this size"),
        ("synthetic-ecg", {"samples": 10**9}, "made in memory, got 1,000,000,000"),
        ("synthetic-graphs", {"samples": 10**9}, "made in memory, got 1,000,000,000"),
        ("synthetic-ecg", {"seed": 2**63}, "seed expects int, got 9223372036854775808"),
    ],
)
def test_sizes_are_checked_before_anything_is_made(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(IsolossError, match=message):
        load_data(name, arguments)
