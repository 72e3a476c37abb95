from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isoloss.models import ModelError, create_model
from isoloss.pyg import import_pyg

EDGES = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
GRAPH = torch.tensor([0, 0, 0, 1, 1])  # a path of three nodes and one of two


def inputs() -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def adjacency() -> Tensor:
    A = torch.zeros(5, 5, dtype=torch.float64)
    A[EDGES[1], EDGES[0]] = 1
    return A


def by_matrices(model: nn.Module, x: Tensor, form: str) -> Tensor:
    A = adjacency()
    count = 5 if form == "standard" else 4
    for i in range(1, count + 1):
        layer = getattr(model, f"conv{i}")
        x = A @ x @ layer.lin_rel.weight.T + layer.lin_rel.bias + x @ layer.lin_root.weight.T
        if i < 4 or form == "standard":
            x = x.clamp(min=0)
    y = torch.stack([x[:3].mean(0), x[3:].mean(0)]) @ model.lin1.weight.T + model.lin1.bias
    if form == "standard":
        y = y.clamp(min=0)
    return y @ model.lin2.weight.T + model.lin2.bias


@pytest.mark.parametrize("form", ["standard", "sam-project"])
def test_forward_by_dense_matrices(form: str) -> None:
    model = create_model("gcn", {"num_features": 3, "hidden": 4, "form": form}).double().eval()
    # The same sums in float64, in another order.
    torch.testing.assert_close(
        model(inputs(), EDGES, GRAPH), by_matrices(model, inputs(), form), rtol=1e-12, atol=1e-12
    )


def test_gcn_convolution_normalises_by_degrees() -> None:
    model = create_model("gcn", {"num_features": 3, "hidden": 4, "conv": "gcn"}).double()
    A = adjacency() + torch.eye(5)
    scale = A.sum(1).rsqrt()
    expected = scale[:, None] * A * scale @ inputs() @ model.conv1.lin.weight.T + model.conv1.bias
    torch.testing.assert_close(model.conv1(inputs(), EDGES), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("conv", ["graph", "gcn"])
def test_graphs_do_not_see_each_other(conv: str) -> None:
    model = create_model("gcn", {"num_features": 3, "hidden": 4, "conv": conv}).double().eval()
    together = model(inputs(), EDGES, GRAPH)
    alone = model(inputs()[:3], EDGES[:, :4])
    torch.testing.assert_close(together[:1], alone, rtol=1e-12, atol=1e-12)


def test_state_dict_of_the_sam_project_fits() -> None:
    layers = import_pyg().nn
    widths = [(14, 64), (64, 128), (128, 128), (128, 128), (128, 128)]
    theirs = {f"conv{i}": layers.GraphConv(*w) for i, w in enumerate(widths, start=1)}
    theirs |= {"lin1": nn.Linear(128, 64), "lin2": nn.Linear(64, 2)}
    state = nn.ModuleDict(theirs).state_dict()
    for form in ("standard", "sam-project"):
        model = create_model("gcn", {"form": form}, {"num_features": 14, "num_classes": 2})
        model.load_state_dict(state)  # strict: the same names and shapes
    assert model.dropout.p == 0.8


def test_fifth_convolution_is_unused_in_the_form_of_the_sam_project() -> None:
    model = create_model("gcn", {"num_features": 3, "hidden": 4, "form": "sam-project"}).double()
    model(inputs(), EDGES, GRAPH).sum().backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert unused == {f"conv5.lin_{part}" for part in ("rel.weight", "rel.bias", "root.weight")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conv": "gat"}, "conv of gcn is one of graph, gcn; got 'gat'"),
        ({"form": "sam"}, "form of gcn is one of"),
        ({"num_features": 0}, "at least 1 feature a node"),
    ],
)
def test_misuse(arguments: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("gcn", arguments)
