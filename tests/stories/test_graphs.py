"""PyTorch Geometric: one label a graph, and one a node."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool

from isoloss.experiments.subject import Subject
from isoloss.landscape import Problem


def graph(nodes, y):
    edges = torch.randint(nodes, (2, 3 * nodes))
    return Data(x=torch.randn(nodes, 4), edge_index=edges, y=y)


class Network(nn.Module):
    def __init__(self, pooled):
        super().__init__()
        self.first, self.second = GCNConv(4, 8), GCNConv(8, 3)
        self.pooled = pooled

    def forward(self, x, edge_index, batch=None):
        x = self.second(self.first(x, edge_index).tanh(), edge_index)
        return global_mean_pool(x, batch) if self.pooled else x


def test_graphs_are_classified(check):
    graphs = [graph(n, torch.tensor([n % 3])) for n in range(3, 13)]
    model = Network(pooled=True)

    def own_loss(model, graphs):
        return cross_entropy(torch.cat([model(g.x, g.edge_index) for g in graphs]), labels)

    labels = torch.cat([g.y for g in graphs])
    check(Subject(model, nn.CrossEntropyLoss(), train=graphs), model, own_loss, graphs)
    problem = Problem(model, nn.CrossEntropyLoss(), DataLoader(graphs, batch_size=4))
    check(problem, model, own_loss, graphs)


def test_nodes_are_classified(check):
    data = graph(20, torch.arange(20) % 3)
    data.train_mask = torch.arange(20) < 12
    model = Network(pooled=False)

    def closure(model, graphs):
        """The sum over the nodes that are trained on, and their number, of the one graph."""
        mask = graphs.train_mask
        losses = cross_entropy(
            model(graphs.x, graphs.edge_index)[mask], graphs.y[mask], reduction="sum"
        )
        return losses[None], mask.sum()[None]

    def own_loss(model, data):
        outputs = model(data.x, data.edge_index)
        return cross_entropy(outputs[data.train_mask], data.y[data.train_mask])

    problem = Problem(model, closure=closure, batches=[Batch.from_data_list([data])])
    check(problem, model, own_loss, data)
