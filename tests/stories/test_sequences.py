"""Recurrent networks and attention, whose fast kernels have no second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isoloss.landscape import Problem

KINDS = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "two ways": lambda n, m, **k: nn.LSTM(n, m, 2, bidirectional=True, **k),
}


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.recurrent = KINDS[kind](3, 5, batch_first=True)
        self.head = nn.Linear(10 if kind == "two ways" else 5, 2)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_classifier(check, kind):
    model, data = Recurrent(kind), (torch.randn(20, 6, 3), torch.arange(20) % 2)
    problem = Problem(model, nn.CrossEntropyLoss(), [data])
    check(problem, model, lambda m, d: nn.functional.cross_entropy(m(d[0]), d[1]), data)


class Packed(nn.Module):
    """Sequences of different lengths; beside them in the batch, and in the network's order."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return self.head(self.recurrent(packed)[1][-1])


def test_packed_sequences(check):
    x, lengths = torch.randn(12, 6, 3), torch.randint(1, 7, (12,))
    data = {"x": x, "lengths": lengths, "labels": torch.arange(12) % 2}
    model = Packed()
    problem = Problem(model, nn.CrossEntropyLoss(), [data], batch_size=5)

    def own_loss(model, data):
        return nn.functional.cross_entropy(model(data["x"], data["lengths"]), data["labels"])

    check(problem, model, own_loss, data)


class Attending(nn.Module):
    """Self-attention over vectors, then the mean of them."""

    def __init__(self, weights=False):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head, self.weights = nn.Linear(8, 2), weights

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=self.weights)[0].mean(1))


@pytest.mark.parametrize("weights", [False, True])
def test_multihead_attention(check, weights):
    model, data = Attending(weights), (2 * torch.randn(12, 5, 8), torch.arange(12) % 2)
    problem = Problem(model, nn.CrossEntropyLoss(), [data])
    check(problem, model, lambda m, d: nn.functional.cross_entropy(m(d[0]), d[1]), data)


class Encoder(nn.Module):
    """Tokens, 0 being padding; the mean goes over all places, as in many a repository."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.tokens, self.encoder = nn.Embedding(11, 8), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.tokens(x), src_key_padding_mask=x == 0).mean(1))


def test_an_encoder_with_padding(check):
    """In `eval` mode and without gradients torch's encoder puts out other values at padded places.

    Training, gradients and Hessians are of the function with gradients; so is the surface.
    """
    x = torch.randint(1, 11, (12, 5)) * (torch.arange(5) < torch.randint(2, 6, (12, 1)))
    model, data = Encoder(), (x, torch.arange(12) % 3)
    problem = Problem(model, nn.CrossEntropyLoss(), [data])
    check(problem, model, lambda m, d: nn.functional.cross_entropy(m(d[0]), d[1]), data)


def test_derivatives_by_inputs_through_attention(check):
    """A penalty on the gradient: first derivatives of the loss are second ones of the kernel."""
    model, data = Attending(), torch.randn(8, 5, 8)

    def closure(model, x):
        x.requires_grad_()
        outputs = model(x)
        (slope,) = torch.autograd.grad(outputs[:, 0].sum(), x, create_graph=True)
        return outputs.square().sum(1) + slope.square().sum((1, 2))

    def own_loss(model, x):
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
            return closure(model, x.clone()).mean()

    problem = Problem(model, closure=closure, batches=[data])
    check(problem, model, own_loss, data)
    slope = problem.gradient()["head.bias"]
    (expected,) = torch.autograd.grad(own_loss(model, data), model.head.bias)
    torch.testing.assert_close(slope, expected)
