"""A problem at other weights is the problem that is made of them from the start."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from isoloss.hessian import HessianOperator, top_eigenpairs
from isoloss.landscape import Problem
from isoloss.landscape.determinism import ProblemError

POLICIES = ("eval", "train", "recalibrate")


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(48, 6, generator=generator)
    return [(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())]


def network(seed):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)]
    model = nn.Sequential(*layers)
    model[0].bias.requires_grad_(False)
    model.train()
    for _ in range(3):  # running statistics of its own
        model(torch.randn(32, 6))
    return model


def problem(model, **settings):
    settings = {"bn_batch": 16, "dtype": torch.float64} | settings
    return Problem(model, nn.CrossEntropyLoss(), data(), **settings)


@pytest.mark.parametrize("bn", POLICIES)
def test_it_is_the_problem_made_of_these_weights(bn):
    first, other = network(1), network(2)
    moved, made = problem(first, bn=bn).at(other), problem(other, bn=bn)
    assert moved.evaluate() == made.evaluate()
    assert moved.identity() == made.identity()
    assert moved.total_weight == made.total_weight
    for ours, theirs in zip(moved.gradient().values(), made.gradient().values(), strict=True):
        assert torch.equal(ours, theirs)
    with HessianOperator(moved) as a, HessianOperator(made) as b:
        vector = torch.ones(a.size, dtype=torch.float64)
        assert torch.equal(a.matvec(vector), b.matvec(vector))


@pytest.mark.parametrize("bn", POLICIES)
def test_neither_problem_nor_network_changes(bn):
    model, other = network(1), network(2)
    before = copy.deepcopy(other.state_dict())
    whole = problem(model, bn=bn)
    loss, identity = whole.evaluate().loss, whole.identity()
    moved = whole.at(other)
    assert moved.evaluate().loss != loss
    assert whole.evaluate().loss == loss
    assert whole.identity() == identity
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[name])
    at = moved.evaluate().loss
    with torch.no_grad():  # trained on: what was taken stays
        for parameter in other.parameters():
            parameter.add_(1)
    assert moved.evaluate().loss == at


def test_a_state_dictionary_and_a_closure_will_do():
    def closure(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    other = network(2)
    whole = Problem(network(1), closure=closure, batches=data(), dtype=torch.float64)
    expected = problem(other).evaluate().loss
    assert whole.at(other.state_dict()).evaluate().loss == pytest.approx(expected, rel=1e-12)


def test_buffers_that_no_state_dictionary_has_are_those_of_the_network():
    class Shifted(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("shift", torch.tensor(shift), persistent=False)

        def forward(self, x):
            return self.layer(x) + self.shift * torch.arange(3)

    other = Shifted(2.0)
    assert problem(Shifted(1.0)).at(other).evaluate() == problem(other).evaluate()


def test_data_are_shared_and_nothing_is_read_again():
    class Counted(list):
        passes = 0

        def __iter__(self):
            Counted.passes += 1
            return super().__iter__()

    whole = Problem(network(1), nn.CrossEntropyLoss(), Counted(data()))
    passes = Counted.passes
    moved = whole.at(network(2))
    assert Counted.passes == passes
    assert moved.plan is whole.plan
    assert moved.digest is whole.digest
    tensors = [next(p.micro_batches()).tensors().values() for p in (whole, moved)]
    assert [t.data_ptr() for t in tensors[0]] == [t.data_ptr() for t in tensors[1]]


def test_what_was_known_of_the_old_weights_is_not_said_of_the_new_ones():
    whole = problem(network(1), about={"checkpoint_sha256": "a", "split": "train"})
    identity = whole.at(network(2)).identity()
    assert "checkpoint_sha256" not in identity
    assert identity["split"] == "train"
    assert identity["weights_sha256"] != whole.identity()["weights_sha256"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4)), "3.weight"),
        (nn.Sequential(nn.Linear(6, 3)), "3.weight"),
    ],
)
def test_weights_of_another_architecture_are_refused(other, named):
    with pytest.raises(ProblemError, match="names and shapes of Sequential") as caught:
        problem(network(1)).at(other)
    assert named in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_the_largest_eigenvalue_along_a_training_is_that_of_dense_autodiff():
    model = nn.Linear(6, 3, bias=False)
    whole = problem(model)
    (x, y), *_ = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        with HessianOperator(whole.at(model)) as hessian:
            found = top_eigenpairs(hessian, 1).eigenvalues[0].item()

        def loss(flat):
            return nn.functional.cross_entropy(x.double() @ flat.reshape(3, 6).T, y)

        at = model.weight.detach().double().flatten()
        dense = torch.autograd.functional.hessian(loss, at)
        assert found == pytest.approx(torch.linalg.eigvalsh(dense)[-1].item(), rel=1e-6)
