"""Losses that see other weights than those they are given, or other samples, are refused."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from isoloss.landscape.determinism import ProblemError
from isoloss.landscape.probing import (
    CoupledSamplesError,
    OuterWeightsError,
    second_point,
)
from isoloss.landscape.problem import Problem
from isoloss.landscape.terms import LossShapeError

F64 = torch.float64
entropy = functools.partial(nn.functional.cross_entropy, reduction="none")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


X, Y = draw(40, 6), torch.arange(40) % 4


def mlp():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4), nn.Dropout(0.0)
    ).double()


def snapshot(model):
    tensors = [*model.parameters(), *model.buffers()]
    return (
        [(t, t.detach().clone(), t.requires_grad, t.grad) for t in tensors],
        [module.training for module in model.modules()],
    )


def bits(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def assert_untouched(model, before):
    tensors, modes = before
    now = [*model.parameters(), *model.buffers()]
    for tensor, (same, value, requires_grad, grad) in zip(now, tensors, strict=True):
        assert tensor is same
        assert torch.equal(bits(tensor), bits(value))  # NaN too
        assert tensor.requires_grad == requires_grad
        assert tensor.grad is grad
    assert modes == [module.training for module in model.modules()]


class HeldByALoss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, outputs, targets):
        return entropy(outputs, targets) + 0.01 * self.model[0].weight.square().sum()


class HeldByAModule(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, net, batch):
        return entropy(self.model(batch[0]), batch[1])


class HeldByAnObject:
    def __init__(self, model):
        self.model = model

    def __call__(self, model, batch):
        return entropy(self.model(batch[0]), batch[1])


def penalty(model, outputs, targets):
    return entropy(outputs, targets) + 5e-4 * sum(p.square().sum() for p in model.parameters())


OUTER = {
    "calls it": lambda m: {"loss": lambda o, t: entropy(m(X[: len(t)].to(o.dtype)), t)},
    "its penalty": lambda m: {"loss": functools.partial(penalty, m)},
    "held by a loss module": lambda m: {"loss": HeldByALoss(m)},
    "held by a closure": lambda m: {"closure": HeldByAnObject(m)},
    "held by a closure's module": lambda m: {"closure": HeldByAModule(m)},
    "a part of it": lambda m: {"closure": lambda net, b: entropy(m[3](net[:3](b[0])), b[1])},
    "its state": lambda m: {
        "closure": functools.partial(
            lambda state, net, b: entropy(net(b[0]), b[1]) + state["0.bias"].square().sum(),
            m.state_dict(),
        )
    },
}


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("case", OUTER)
def test_a_loss_of_the_network_outside_is_refused(case, dtype):
    model = mlp()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[3].bias.requires_grad_(False)
    # In training mode: calls from outside also move the running statistics.
    options = OUTER[case](model.to(dtype))
    before = snapshot(model)
    with pytest.raises(OuterWeightsError, match=r"closure\(model, batch\)") as caught:
        Problem(model, batches=[(X, Y)], dtype=dtype, **options)
    assert len(str(caught.value).splitlines()) == 3
    assert isinstance(caught.value, ProblemError)
    assert_untouched(model, before)


def test_a_network_of_lower_precision_is_put_back_bit_for_bit():
    model = mlp().float()
    with torch.no_grad():
        model[3].bias[0] = math.nan
        model[3].weight[0, 0] = -0.0
    before = snapshot(model)
    Problem(model, nn.CrossEntropyLoss(), [(X, Y)], dtype=F64)
    assert_untouched(model, before)
    with torch.no_grad():
        model[3].bias[0] = 1e-40  # a subnormal
    before = snapshot(model)
    with pytest.raises(OuterWeightsError):
        Problem(model, functools.partial(penalty, model), [(X, Y)], dtype=F64)
    assert_untouched(model, before)


@pytest.mark.parametrize("call", range(1, 6))
def test_the_network_is_put_back_when_a_closure_raises(call):
    model, calls = mlp(), 0
    before = snapshot(model)

    def closure(net, batch):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        model(batch[0])  # from outside, to no effect but on the running statistics
        return entropy(net(batch[0]), batch[1])

    with pytest.raises(KeyboardInterrupt):
        Problem(model, closure=closure, batches=[(X, Y)], dtype=F64)
    assert_untouched(model, before)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6, dtype=F64), nn.Linear(6, 6, dtype=F64)
        self.b.weight = self.a.weight
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=F64))
        self.zero = nn.Parameter(torch.zeros(6, dtype=F64))

    def forward(self, x):
        return self.b(self.a(x)).tanh() * self.scale.log() + self.zero


def frozen():
    model = mlp()
    model[0].requires_grad_(False)
    return model


def shared_head():
    model = mlp()
    return nn.Sequential(model, nn.Linear(4, 6, dtype=F64), model)


def normed():
    torch.manual_seed(0)
    return parametrizations.weight_norm(nn.Linear(6, 4, dtype=F64))


def spectral():
    torch.manual_seed(0)
    return parametrizations.spectral_norm(nn.Linear(6, 4, dtype=F64))


def expanded():
    model = nn.Linear(6, 4, dtype=F64)
    model.bias = nn.Parameter(torch.zeros(1, dtype=F64).expand(4))
    return model


GOOD = {
    "tied": Tied,
    "frozen": frozen,
    "a module used twice": shared_head,
    "weight norm": normed,
    "spectral norm": spectral,
    "expanded": expanded,
}


@pytest.mark.parametrize("case", GOOD)
def test_networks_of_every_kind_are_not_refused(case):
    model = GOOD[case]()
    before = snapshot(model)

    def closure(net, batch):
        return entropy(net(batch[0]), batch[1]) + 1e-3 * sum(p.sum() for p in net.parameters())

    for dtype in (torch.float32, F64):
        Problem(model, nn.CrossEntropyLoss(), [(X, Y)], dtype=dtype)
        Problem(model, closure=closure, batches=[(X, Y)], dtype=dtype, parameters="all")
    assert_untouched(model, before)


def test_constants_of_the_loss_are_its_own():
    """A frozen part of the network, a copy as a teacher, a loss with parameters."""
    model = mlp()
    teacher, probe = copy.deepcopy(model).eval(), nn.Linear(4, 4, dtype=F64)

    def distilled(net, batch):
        return (net(batch[0]) - teacher(batch[0])).square().sum(1)

    def probed(outputs, targets):
        return entropy(probe(outputs), targets)

    def through_the_frozen_part(net, batch):
        return entropy(net[1:](model[0](batch[0])), batch[1])

    Problem(model, closure=distilled, batches=[(X, Y)], dtype=F64)
    Problem(model, probed, [(X, Y)], dtype=F64)
    options = {"batches": [(X, Y)], "dtype": F64, "parameters": ["3.*"]}
    Problem(model, closure=through_the_frozen_part, **options)
    with pytest.raises(OuterWeightsError):
        Problem(model, closure=through_the_frozen_part, batches=[(X, Y)], dtype=F64)


def test_losses_that_are_not_finite_are_not_refused():
    model = mlp()

    def undefined(net, batch):
        return net(batch[0]).sum(1) * math.nan

    def infinite(net, batch):
        return torch.where(batch[1] == 0, math.inf, net(batch[0]).sum(1))

    def undefined_elsewhere(net, batch):
        if not torch.equal(net[0].weight, model[0].weight):
            raise torch.linalg.LinAlgError("the matrix is singular")
        return net(batch[0]).sum(1)

    for closure in (undefined, infinite, undefined_elsewhere):
        Problem(model, closure=closure, batches=[(X, Y)], dtype=F64)


def test_a_graph_of_the_callers_can_still_be_differentiated():
    model = mlp()
    loss = entropy(model(X), Y).sum()
    Problem(model, nn.CrossEntropyLoss(), [(X, Y)], dtype=F64)
    loss.backward()  # torch refuses this where a tensor that it saved was written to
    assert model[0].weight.grad is not None


def test_the_second_point_moves_every_weight_and_keeps_signs():
    theta = {"a": draw(50), "b": torch.zeros(3), "c": torch.tensor(-2.0)}
    moved = second_point(theta)
    assert all((moved[n] != t).all() for n, t in theta.items())
    assert all((moved[n] * t >= 0).all() for n, t in theta.items())
    assert all(((moved[n] - t).abs() <= 0.1 * t.abs() + 0.01).all() for n, t in theta.items())
    assert all(torch.equal(second_point(theta)[n], t) for n, t in moved.items())


def contrastive(net, batch):
    codes = nn.functional.normalize(net(batch[0]), dim=1)
    return entropy(codes @ codes.T / 0.5, torch.arange(len(codes)))


def mean_of_the_batch(net, batch):
    return entropy(net(batch[0]), batch[1]).mean().expand(len(batch[1]))


def normalised_by_the_batch(net, batch):
    weight = batch[1].double() + 1
    return entropy(net(batch[0]), batch[1]) * weight / weight.mean()


def noise_of_the_batch(net, batch):
    generator = torch.Generator().manual_seed(0)
    return entropy(net(batch[0] + torch.randn(batch[0].shape, generator=generator)), batch[1])


@pytest.mark.parametrize(
    "closure", [contrastive, mean_of_the_batch, normalised_by_the_batch, noise_of_the_batch]
)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_losses_that_depend_on_the_batch_are_refused(closure, dtype):
    with pytest.raises(CoupledSamplesError, match="single samples") as caught:
        Problem(mlp(), closure=closure, batches=[(X, Y)], dtype=dtype)
    assert len(str(caught.value).splitlines()) == 3
    Problem(mlp(), closure=closure, batches=[(X, Y)], dtype=dtype, bn="train", bn_batch=10)


def test_groups_as_samples_and_noise_in_the_data_are_accepted():
    def of_groups(net, groups):
        codes = nn.functional.normalize(net(groups.flatten(0, 1)), dim=1).view(len(groups), 5, 4)
        return entropy(codes @ codes.mT, torch.arange(5).expand(len(groups), 5)).mean(1)

    def denoising(net, batch):
        return entropy(net(batch[0] + batch[2]), batch[1])

    groups = Problem(mlp(), closure=of_groups, batches=[X.view(8, 5, 6)], dtype=F64)
    assert groups.count == 8
    Problem(mlp(), closure=denoising, batches=[(X, Y, draw(40, 6, seed=9))], dtype=F64)


def test_weights_that_move_with_the_network_are_refused():
    def focal(outputs, targets):
        weight = 1 - outputs.softmax(1).gather(1, targets[:, None])[:, 0].detach()
        return entropy(outputs, targets) * weight, weight

    with pytest.raises(LossShapeError, match="weights constant"):
        Problem(mlp(), focal, [(X, Y)], dtype=F64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_a_network_on_another_device():
    model = mlp().float().cuda()
    before = snapshot(model)
    Problem(model, nn.CrossEntropyLoss(), [(X, Y)])
    with pytest.raises(OuterWeightsError):
        Problem(model, lambda o, t: entropy(o, t) + model[0].weight.square().sum().cpu(), [(X, Y)])
    assert_untouched(model, before)
