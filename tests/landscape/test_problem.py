"""Problem: the mean over fixed data, its invariances, its policies, and what it refuses."""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from isoloss.landscape.batch_norm import BatchNormError
from isoloss.landscape.batches import BatchError
from isoloss.landscape.determinism import NotDeterministicError, ProblemError
from isoloss.landscape.losses import LossShapeError
from isoloss.landscape.problem import Problem
from isoloss.landscape.selection import SelectionError

F64 = torch.float64


def classification(n=37, features=6, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=F64)
    return x, torch.randint(classes, (n,), generator=generator)


def mlp(batch_norm=False, seed=1):
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(8)] if batch_norm else []
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, 4)).double()


def cuts(x, y, sizes):
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def snapshot(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    return state, modes, [p.requires_grad for p in model.parameters()]


def assert_unchanged(model, before):
    state, modes, grads = before
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert grads == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())


def test_linear_regression_has_its_closed_form():
    x, _ = classification()
    model = nn.Linear(6, 3, dtype=F64)
    y = torch.randn(37, 3, dtype=F64, generator=torch.Generator().manual_seed(5))
    problem = Problem(model, nn.MSELoss(), [(x, y)], dtype=F64)
    w, b = model.weight.detach().numpy(), model.bias.detach().numpy()
    residual = x.numpy() @ w.T + b - y.numpy()
    evaluation = problem.evaluate()
    # Means of 37 float64 numbers: rounding of a few 1e-16.
    assert evaluation.loss == pytest.approx(np.mean(residual**2), rel=1e-13)
    assert evaluation.loss_standard_deviation == pytest.approx(
        np.std(np.mean(residual**2, axis=1)), rel=1e-12
    )
    assert np.isnan(evaluation.accuracy)
    gradient = problem.gradient()
    np.testing.assert_allclose(
        gradient["weight"].numpy(), 2 / (37 * 3) * residual.T @ x.numpy(), rtol=1e-12, atol=1e-14
    )


def test_cutting_the_data_otherwise_changes_nothing():
    x, y = classification()
    model, loss = mlp(), nn.CrossEntropyLoss()
    whole = Problem(model, loss, [(x, y)], dtype=F64)
    for sizes in ([10, 10, 10, 7], [1] * 37, [36, 1]):
        other = Problem(model, loss, cuts(x, y, sizes), dtype=F64)
        assert other.digest == whole.digest
        assert other.evaluate().loss == pytest.approx(whole.evaluate().loss, abs=1e-14)
    for size in (1, 5, 36):
        plan = copy.copy(whole.plan)
        object.__setattr__(plan, "micro_batch", size)
        other = Problem(model, loss, [(x, y)], dtype=F64, plan=plan)
        assert other.evaluate().loss == pytest.approx(whole.evaluate().loss, abs=1e-14)
        for name, tensor in other.gradient().items():
            torch.testing.assert_close(tensor, whole.gradient()[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("policy", ["eval", "train", "recalibrate"])
def test_the_lent_model_is_never_changed(policy):
    x, y = classification()
    model = mlp(batch_norm=True).train()
    before = snapshot(model)
    problem = Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64, bn=policy, bn_batch=10)
    start = {name: tensor.clone() for name, tensor in problem.parameters.items()}
    problem.evaluate()
    problem.gradient()
    with pytest.raises(RuntimeError):
        problem.evaluate({**start, "0.weight": torch.zeros(3, 3, dtype=F64)})
    assert_unchanged(model, before)
    assert all(torch.equal(start[name], t) for name, t in problem.parameters.items())


def test_batch_norm_policies_equal_their_plain_forms():
    x, y = classification()
    loss = nn.CrossEntropyLoss(reduction="sum")  # of the plain forms
    model = mlp(batch_norm=True)
    parts = cuts(x, y, [10, 10, 10, 7])

    def problem(policy):
        return Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64, bn=policy, bn_batch=10)

    plain = copy.deepcopy(model).eval()
    assert problem("eval").evaluate().loss == pytest.approx(
        loss(plain(x), y).item() / 37, rel=1e-13
    )

    plain = copy.deepcopy(model).train()
    total = sum(loss(plain(a), b).item() for a, b in parts)
    assert problem("train").evaluate().loss == pytest.approx(total / 37, rel=1e-13)

    hidden = [model[0](a).detach() for a, _ in parts]
    weights = torch.tensor([len(h) / 37 for h in hidden], dtype=F64)
    plain = copy.deepcopy(model).eval()
    plain[1].running_mean = torch.einsum(
        "b,bf->f", weights, torch.stack([h.mean(0) for h in hidden])
    )
    plain[1].running_var = torch.einsum("b,bf->f", weights, torch.stack([h.var(0) for h in hidden]))
    assert problem("recalibrate").evaluate().loss == pytest.approx(
        loss(plain(x), y).item() / 37, rel=1e-13
    )
    for policy in ("train", "recalibrate"):
        parts = cuts(x, y, [36, 1])
        other = Problem(model, nn.CrossEntropyLoss(), parts, dtype=F64, bn=policy, bn_batch=10)
        assert other.evaluate().loss == pytest.approx(problem(policy).evaluate().loss, abs=1e-13)


def test_gradient_equals_autograd_under_every_policy():
    x, y = classification()
    model = mlp(batch_norm=True)
    for policy in ("eval", "train"):
        problem = Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64, bn=policy, bn_batch=37)
        plain = copy.deepcopy(model).train(policy == "train")
        nn.functional.cross_entropy(plain(x), y).backward()
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(problem.gradient()[name], parameter.grad)


class Graphs(SimpleNamespace):
    """What a graph batch looks like from outside."""

    def clone(self):
        return Graphs(**vars(self))

    def apply(self, function):
        for name, value in vars(self).items():
            if torch.is_tensor(value):
                setattr(self, name, function(value))
        return self

    def to_dict(self):
        return dict(vars(self))

    def keys(self):
        return list(vars(self))


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4, dtype=F64)

    def forward(self, x, mask=None):
        return self.linear(x if mask is None else x * mask[:, None])


class WholeBatch(ByName):
    def forward(self, data):
        return super().forward(data.x, data.mask)


def test_pairs_dictionaries_and_graph_batches_agree():
    x, y = classification()
    mask = torch.arange(37, dtype=F64) / 37
    model, loss = ByName(), nn.CrossEntropyLoss()
    expected = loss(model(x, mask), y).item()
    whole = WholeBatch()
    whole.load_state_dict(model.state_dict())
    graphs = Graphs(x=x, mask=mask, y=y, num_graphs=37)
    dictionaries = [
        {"x": a, "mask": m, "labels": b}
        for a, m, b in zip(x.split(10), mask.split(10), y.split(10), strict=True)
    ]
    for net, batches in ((model, dictionaries), (model, [graphs]), (whole, [graphs])):
        loss_value = Problem(net, loss, batches, dtype=F64).evaluate().loss
        assert loss_value == pytest.approx(expected, rel=1e-13)


def test_shared_weights_move_together():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6, bias=False, dtype=F64)
            self.b = nn.Linear(6, 6, bias=False, dtype=F64)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    x, _ = classification()
    problem = Problem(Tied(), nn.MSELoss(), [(x, x)], dtype=F64)
    assert list(problem.parameters) == ["a.weight"]
    doubled = problem.evaluate({"a.weight": 2 * torch.eye(6, dtype=F64)})
    assert doubled.loss == pytest.approx((9 * x**2).mean().item(), rel=1e-13)


def test_infinite_and_undefined_losses_stay_what_they_are():
    x, y = classification()
    problem = Problem(mlp(), nn.CrossEntropyLoss(), [(x, y)], dtype=F64)
    nan = {name: torch.full_like(t, torch.nan) for name, t in problem.parameters.items()}
    evaluation = problem.evaluate(nan)
    assert np.isnan(evaluation.loss)
    assert evaluation.accuracy == 0.0
    far = Problem(
        nn.Linear(6, 1, dtype=F64), nn.MSELoss(), [(x, torch.full((37, 1), 1e200, dtype=F64))]
    )
    assert far.evaluate().loss == np.inf


def test_accuracy_and_reduced_precision():
    x, y = classification(n=400)
    model = mlp().float()
    full = Problem(model, nn.CrossEntropyLoss(), [(x, y)])
    assert full.evaluate().accuracy == pytest.approx(
        (model(x.float()).argmax(1) == y).double().mean().item()
    )
    half = Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=torch.bfloat16)
    # bfloat16 keeps 8 bits: 2^-9 relative in each output.
    assert half.evaluate().loss == pytest.approx(full.evaluate().loss, rel=1e-2)


class NoisyForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4, dtype=F64)

    def forward(self, x):
        return nn.functional.dropout(self.linear(x))


def untracked():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4)
    ).double()


def normed():
    return mlp(batch_norm=True)


X, Y = classification()
REFUSED = {
    "shuffled": (mlp, DataLoader(TensorDataset(X, Y), 8, shuffle=True), {}, NotDeterministicError),
    "noise in forward": (NoisyForward, [(X, Y)], {}, NotDeterministicError),
    "no data": (mlp, [], {}, BatchError),
    "lengths differ": (mlp, [(X, Y[:5])], {}, BatchError),
    "no targets": (mlp, [{"x": X}], {}, BatchError),
    "unknown batch": (mlp, [X], {}, BatchError),
    "policy": (mlp, [(X, Y)], {"bn": "running"}, ValueError),
    "dtype": (mlp, [(X, Y)], {"dtype": torch.float16}, ProblemError),
    "a number in a batch": (mlp, [{"x": X, "scale": 2.0, "y": Y}], {}, BatchError),
    "no running statistics": (untracked, [(X, Y)], {}, BatchNormError),
    "a batch of one": (normed, [(X, Y)], {"bn": "train", "bn_batch": 36}, BatchNormError),
    "no parameters": (nn.Identity, [(X, Y)], {}, SelectionError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_function_of_the_weights_is_refused(case):
    factory, batches, options, error = REFUSED[case]
    with pytest.raises(error) as caught:
        Problem(factory(), nn.CrossEntropyLoss(), batches, **{"dtype": F64, **options})
    assert 1 <= len(str(caught.value).splitlines()) <= 3


def test_an_unshuffled_loader_is_accepted_and_a_scalar_loss_refused():
    loader = DataLoader(TensorDataset(X, Y), 8)
    model = mlp()
    value = Problem(model, nn.CrossEntropyLoss(), loader, dtype=F64).evaluate().loss
    assert value == pytest.approx(nn.functional.cross_entropy(model(X), Y).item(), rel=1e-13)
    with pytest.raises(LossShapeError, match="one value a sample"):
        Problem(model, nn.functional.cross_entropy, loader, dtype=F64)


def test_targets_that_would_be_broadcast_are_refused():
    model = nn.Linear(6, 1, dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        with pytest.raises(LossShapeError, match="compared with each other"):
            Problem(model, nn.MSELoss(), [(X, Y.double())], dtype=F64)


def test_what_happens_to_lent_data_and_generators_changes_nothing():
    x, y = X.clone(), Y.clone()
    model, loss = mlp(), nn.CrossEntropyLoss()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    problem = Problem(model, loss, DataLoader(TensorDataset(x, y), 8), dtype=F64)
    other = Problem(model, loss, [(x, y)], dtype=F64)
    assert torch.equal(torch.rand(3), expected)
    before = other.evaluate()
    x.zero_()
    y.zero_()
    assert other.evaluate() == before
    assert problem.evaluate().loss == pytest.approx(before.loss, abs=1e-14)
