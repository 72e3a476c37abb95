"""Networks of which only a part is trained, and weights that are shared."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from isoloss.experiments.subject import Subject
from isoloss.landscape import Problem


def own_loss(model, data):
    return cross_entropy(model(data[0]), data[1])


def classified():
    return torch.randn(30, 6), torch.arange(30) % 3


def test_a_frozen_backbone(check):
    model, data = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)), classified()
    model[0].requires_grad_(False)
    check(Subject(model, nn.CrossEntropyLoss(), train=data), model, own_loss, data)
    assert list(Problem(model, nn.CrossEntropyLoss(), [data]).parameters) == ["2.weight", "2.bias"]


class LowRank(nn.Module):
    """W + B A."""

    def __init__(self, rows, columns, rank=2):
        super().__init__()
        self.A = nn.Parameter(torch.randn(rank, columns))
        self.B = nn.Parameter(torch.randn(rows, rank))

    def forward(self, weight):
        return weight + self.B @ self.A


def test_low_rank_adaptation(check):
    model, data = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)), classified()
    model.requires_grad_(False)
    for layer in (model[0], model[2]):
        parametrize.register_parametrization(layer, "weight", LowRank(*layer.weight.shape))
    problem = Problem(model, nn.CrossEntropyLoss(), [data])
    check(problem, model, own_loss, data)
    assert {name.rpartition(".")[2] for name in problem.parameters} == {"A", "B"}


@pytest.mark.parametrize("change", [nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
def test_normalised_weights(check, change):
    model, data = nn.Sequential(change(nn.Linear(6, 9)), nn.Tanh(), nn.Linear(9, 3)), classified()
    check(Problem(model.eval(), nn.CrossEntropyLoss(), [data]), model, own_loss, data)


class Tied(nn.Module):
    """The next token from this one; the output layer has the embedding's weights."""

    def __init__(self):
        super().__init__()
        self.embedding, self.middle = nn.Embedding(12, 7), nn.Linear(7, 7)
        self.output = nn.Linear(7, 12, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(torch.tanh(self.middle(self.embedding(tokens))))


def test_tied_weights(check):
    model, data = Tied(), (torch.randint(12, (9, 5)), torch.randint(12, (9, 5)))
    problem = Problem(model, nn.CrossEntropyLoss(), [data])
    check(problem, model, lambda m, d: cross_entropy(m(d[0]).flatten(0, 1), d[1].flatten()), data)
    assert list(problem.parameters) == ["embedding.weight", "middle.weight", "middle.bias"]
