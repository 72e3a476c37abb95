"""Eigenvalues of a graph network, whose products are sums over scattered nodes, in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isoloss.datasets import load_data
from isoloss.hessian import HessianOperator, top_eigenpairs
from isoloss.landscape import Problem
from isoloss.models import create_model


@pytest.mark.slow
def test_float32_eigenvalues_of_a_trained_graph_network_are_those_of_float64(data_dir):
    if not (data_dir / "TUDataset" / "Mutagenicity").is_dir():
        pytest.skip(f"needs TUDataset/Mutagenicity/raw in {data_dir}")
    data = load_data("tu:Mutagenicity", data_dir=data_dir)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model("gcn", {}, data.info.model_context()).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(3):
            order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(epoch))
            for graphs in data.train.batches(64, order):
                optimizer.zero_grad()
                outputs = model(graphs.x, graphs.edge_index, graphs.batch)
                F.cross_entropy(outputs, graphs.y).backward()
                optimizer.step()
    part = list(data.train.stratified(100, 0).batches(100))
    found = []
    for dtype in (torch.float32, torch.float64):
        with HessianOperator(Problem(model, nn.CrossEntropyLoss(), part, dtype=dtype)) as operator:
            found.append(top_eigenpairs(operator, 3))
    single, double = found
    assert single.converged, single.reason
    assert single.reason.startswith(
        ("every residual is within", "converged to what float32 products allow")
    )
    assert double.converged, double.reason
    # Errors are of second order in the residuals, 1e-4 and less, over the gaps.
    assert single.eigenvalues.tolist() == pytest.approx(double.eigenvalues.tolist(), rel=1e-6)
