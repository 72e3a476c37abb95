"""Batches with several inputs, and outputs with logits, for a plain loss in Python."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isoloss.landscape import Problem
from isoloss.landscape.batches import BatchError, as_batch

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(10, 4, generator=DRAWS, dtype=torch.float64)
Z = torch.randn(10, 2, generator=DRAWS, dtype=torch.float64)
Y = torch.arange(10) % 3
Named = namedtuple("Named", "label x z")
Plain = namedtuple("Plain", "x z last")


class Two(nn.Module):
    def __init__(self, wrap: Any = lambda logits: logits) -> None:
        super().__init__()
        self.a, self.b, self.wrap = nn.Linear(4, 3), nn.Linear(2, 3), wrap

    def forward(self, x: Tensor, z: Tensor) -> Any:
        return self.wrap(torch.tanh(self.a(x)) + self.b(z))


KINDS = {
    "triple": lambda s: (X[s], Z[s], Y[s]),
    "list": lambda s: [X[s], Z[s], Y[s]],
    "nested": lambda s: ((X[s], Z[s]), Y[s]),
    "dictionary and targets": lambda s: ({"z": Z[s], "x": X[s]}, Y[s]),
    "dictionary": lambda s: {"labels": Y[s], "z": Z[s], "x": X[s]},
    "named targets": lambda s: Named(Y[s], X[s], Z[s]),
    "named": lambda s: Plain(X[s], Z[s], Y[s]),
}


def problem(model: nn.Module, batches: list[Any]) -> Problem:
    return Problem(model, nn.CrossEntropyLoss(), batches, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_gradient_and_digest_do_not_depend_on_the_cut(kind: str) -> None:
    torch.manual_seed(0)
    model = Two().double()
    expected = nn.functional.cross_entropy(model(X, Z), Y)
    expected.backward()
    whole = problem(model, [KINDS[kind](slice(None))])
    parts = problem(model, [KINDS[kind](slice(4)), KINDS[kind](slice(4, 10))])
    assert whole.digest == parts.digest
    for found in (whole, parts):
        assert found.evaluate().loss == pytest.approx(expected.item(), abs=1e-12)
        gradient = found.gradient()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradient[name], parameter.grad, rtol=0, atol=1e-12)
    few = whole.part(torch.tensor([7, 2])).evaluate().loss
    expected = nn.functional.cross_entropy(model(X[[7, 2]], Z[[7, 2]]), Y[[7, 2]])
    assert few == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: OrderedDict(loss=logits.sum(), logits=logits),
        lambda logits: SimpleNamespace(logits=logits),
    ],
)
def test_logits_are_taken_out_of_what_holds_them(wrap: Any) -> None:
    torch.manual_seed(0)
    model = Two(wrap).double()
    model.wrap = lambda logits: logits
    expected = problem(model, [(X, Z, Y)]).evaluate()
    model.wrap = wrap
    assert problem(model, [(X, Z, Y)]).evaluate() == expected


def test_inputs_that_forward_does_not_take_are_refused() -> None:
    weights = torch.ones(10)
    with pytest.raises(
        BatchError, match=r"takes \(x: .*, got 3 inputs: .*\nof a tuple .* `closure`"
    ):
        problem(Two(), [(X, Z, Y, weights)])
    with pytest.raises(BatchError, match=r"got x, z, index: .*'index'\nleave out of the dict"):
        problem(Two(), [{"x": X, "z": Z, "index": Y, "labels": Y}])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (X, "got 10x4 float64\nfor data without targets, give a `closure`"),
        ((X,), r"tuple of \(10x4 float64\)\nfor data without targets"),
        ({"x": X, "labels": "a"}, r"labels, label, .*\ngot the keys x, labels; .* `closure`"),
        ((X, Z[:3], Y), r"inputs.1 of shape \(3, 2\) and targets .*\ngive each sample its row"),
        ((X, 2.0, Y), "got float in inputs.1\nleave out what is no tensor"),
    ],
)
def test_other_batches_are_refused_with_a_remedy(item: Any, message: str) -> None:
    with pytest.raises(BatchError, match=message):
        as_batch(item)
