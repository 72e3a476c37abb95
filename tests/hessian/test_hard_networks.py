"""Networks that products of second derivatives often get wrong, against dense matrices.

Fused attention, recurrence, message passing, shared and frozen weights, weights that are computed.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from isoloss.hessian.operators.ggn import GGNOperator
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.views import dense
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import flatten, unflatten
from isoloss.pyg import import_pyg
from tests.hessian.families import CLASSES, DOUBLE, batch_of, graphs

COUNT = 13


class Head(nn.Module):
    """A layer of sequences (batch, 3, 4), its last output, and a linear layer."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, CLASSES)

    def forward(self, x):
        found = self.layer(x)
        return self.head((found[0] if isinstance(found, tuple) else found)[:, -1])


class Fused(nn.Module):
    """torch's multi-head attention of a sequence with itself."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)


class Messages(nn.Module):
    """Two convolutions of a graph, its mean, and a linear layer."""

    def __init__(self, convolution, **options):
        super().__init__()
        self.first, self.second = convolution(4, 3, **options), convolution(3, 3, **options)
        self.pool, self.head = import_pyg().nn.MeanAggregation(), nn.Linear(3, CLASSES)

    def forward(self, x, edge_index, batch):
        x = torch.tanh(self.first(x, edge_index))
        return self.head(self.pool(torch.tanh(self.second(x, edge_index)), batch))


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder's weight, and a layer used twice."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 3), nn.Linear(4, 3)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        hidden = torch.tanh(self.encoder(x))
        return self.decoder(torch.tanh(F.linear(hidden, self.encoder.weight.T)))


def message_passing(kind):
    return lambda: Messages(getattr(import_pyg().nn, kind))


NETS = {
    "multi-head attention": (lambda: Head(Fused(), 4), (3, 4)),
    "encoder layer": (
        lambda: Head(nn.TransformerEncoderLayer(4, 2, 5, 0.0, batch_first=True), 4), (3, 4)
    ),
    "lstm": (lambda: Head(nn.LSTM(4, 3, num_layers=2, batch_first=True), 3), (3, 4)),
    "gru": (lambda: Head(nn.GRU(4, 3, batch_first=True, bidirectional=True), 6), (3, 4)),
    "rnn": (lambda: Head(nn.RNN(4, 3, batch_first=True), 3), (3, 4)),
    "GCNConv": (message_passing("GCNConv"), None),
    "GATConv": (message_passing("GATConv"), None),
    "GATv2Conv": (message_passing("GATv2Conv"), None),
    "tied weights": (Tied, (4,)),
    "spectral norm": (
        lambda: nn.Sequential(
            parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, CLASSES)
        ), (4,),
    ),
    "orthogonal": (
        lambda: nn.Sequential(
            parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, CLASSES)
        ), (4,),
    ),
    "older spectral norm": (
        lambda: nn.Sequential(
            nn.utils.spectral_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, CLASSES)
        ), (4,),
    ),
}  # fmt: skip


def network(name):
    """A network in float64, train mode as it is made, and its data."""
    make, shape = NETS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = make().double()
        for parameter in model.parameters():  # biases of attention and graphs begin at 0
            parameter.data += 0.1 * torch.randn_like(parameter)
    generator = torch.Generator().manual_seed(5)
    if shape is None:
        inputs = graphs(generator)
    else:
        inputs = torch.randn(COUNT, *shape, generator=generator, dtype=DOUBLE)
    return model, inputs, torch.randint(CLASSES, (COUNT,), generator=generator)


def columns(size):
    """Gaussian columns: where two matrices differ anywhere, their products with each do."""
    generator = torch.Generator().manual_seed(9)
    return torch.randn(size, 4, generator=generator, dtype=DOUBLE)


def products(outputs, targets, theta, V):
    """H V and G V: forward- over reverse-mode of the whole loss, and J^T (diag(p) - p p^T) J."""
    gradient = torch.func.grad(lambda vector: F.cross_entropy(outputs(vector), targets))
    H_V, G_V = [], []
    for v in V.T:
        H_V.append(torch.func.jvp(gradient, (theta,), (v,))[1])
        f, moved = torch.func.jvp(outputs, (theta,), (v,))
        p = f.softmax(1)
        curved = p * moved - p * (p * moved).sum(1, keepdim=True)
        G_V.append(torch.func.vjp(outputs, theta)[1](curved / len(f))[0])
    return torch.stack(H_V, 1), torch.stack(G_V, 1)


def products_of(model, inputs, targets, V):
    """H V and G V of a network in eval mode, all samples in one call."""
    whole = batch_of(inputs, targets, slice(None))
    tensors = isinstance(inputs, torch.Tensor)
    arguments = whole[:1] if tensors else (whole.x, whole.edge_index, whole.batch)
    point = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def outputs(vector):
        return torch.func.functional_call(model, unflatten(vector, point), arguments)

    training, fast = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return products(outputs, targets, flatten(point), V)
    finally:
        with torch.no_grad():
            model(*arguments)  # older wrappers keep the weight of the last call, with its graph
        model.train(training)
        torch.backends.mha.set_fastpath_enabled(fast)


def problem_of(model, inputs, targets, strategy="kept-graph", **options):
    batches = [batch_of(inputs, targets, part) for part in (slice(0, 9), slice(9, COUNT))]
    problem = Problem(model, nn.CrossEntropyLoss(), batches, dtype=DOUBLE, **options)
    problem.plan = replace(problem.plan, product_strategy=strategy, product_batch=5)
    return problem


@pytest.mark.parametrize("name", NETS)
def test_products_are_those_of_another_route(name):
    model, inputs, targets = network(name)
    V = columns(sum(p.numel() for p in model.parameters()))
    H_V, G_V = products_of(model, inputs, targets, V)
    for strategy in ("kept-graph", "recompute"):
        problem = problem_of(model, inputs, targets, strategy)
        for make, expected in ((HessianOperator, H_V), (GGNOperator, G_V)):
            with make(problem) as operator:
                torch.testing.assert_close(operator.matmat(V), expected, rtol=0, atol=1e-10)
    assert (H_V - G_V).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("wrapped", "g", "v"),
    [
        (parametrizations.weight_norm, "parametrizations.weight.original0",
         "parametrizations.weight.original1"),
        pytest.param(nn.utils.weight_norm, "weight_g", "weight_v", marks=pytest.mark.filterwarnings(
            "ignore:.*weight_norm. is deprecated")),
    ], ids=["parametrisation", "older"],
)  # fmt: skip
def test_weight_norm_is_that_of_its_formula(wrapped, g, v):
    # torch's own second derivatives of its weight norm lack terms.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = nn.Sequential(wrapped(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, CLASSES)).double()
    _, inputs, targets = network("tied weights")
    with torch.no_grad():
        model(inputs)
    point = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(vector):
        part = unflatten(vector, point)
        length, direction = part[f"0.{g}"], part[f"0.{v}"]
        W = length * direction / direction.norm(dim=1, keepdim=True)
        hidden = torch.tanh(F.linear(inputs, W, part["0.bias"]))
        return F.linear(hidden, part["2.weight"], part["2.bias"])

    theta = flatten(point)
    V = columns(len(theta))
    H_V, G_V = products(outputs, targets, theta, V)
    problem = problem_of(model, inputs, targets)
    for make, expected in ((HessianOperator, H_V), (GGNOperator, G_V)):
        torch.testing.assert_close(make(problem).matmat(V), expected, rtol=0, atol=1e-12)


def test_tied_weights_are_one_parameter_and_its_derivatives_a_sum():
    model, inputs, targets = network("tied weights")
    problem = problem_of(model, inputs, targets)
    assert [*problem.parameters] == ["encoder.weight", "encoder.bias", "decoder.bias"]

    def loss(vector):
        W, b, c = vector[:12].view(3, 4), vector[12:15], vector[15:]
        hidden = torch.tanh(F.linear(inputs, W, b))
        outputs = F.linear(torch.tanh(F.linear(hidden, W.T)), W, c)
        return F.cross_entropy(outputs, targets)

    H = torch.func.hessian(loss)(flatten(problem.parameters))
    torch.testing.assert_close(dense(HessianOperator(problem)), H, rtol=0, atol=1e-12)


def test_frozen_weights_are_fixed_and_may_be_chosen():
    model, inputs, targets = network("multi-head attention")
    V = columns(sum(p.numel() for p in model.parameters()))
    moving = torch.cat([
        torch.full((p.numel(),), name.startswith("head")) for name, p in model.named_parameters()
    ])  # fmt: skip
    H_V, G_V = products_of(model, inputs, targets, V * moving[:, None])
    model.layer.requires_grad_(False)
    problem = problem_of(model, inputs, targets)
    everything = problem_of(model, inputs, targets, parameters="*")
    for make, expected in ((HessianOperator, H_V), (GGNOperator, G_V)):
        found = make(problem).matmat(V[moving])
        torch.testing.assert_close(found, expected[moving], rtol=0, atol=1e-12)
        found = make(everything).matmat(V * moving[:, None])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert not any(p.requires_grad for p in model.layer.parameters())
