from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from isoloss.hessian.density import spectral_density
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.of_problem import NotTwiceDifferentiableError, ParameterNameError
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.trace import trace
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import flatten, unflatten

DOUBLE = torch.float64


class Attention(nn.Module):
    """Tokens of width 4, one block of fused self-attention, mean over tokens."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v).mean(1))


class Unused(nn.Module):
    """A network with a parameter that no output depends on."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 3)
        self.spare = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return torch.tanh(self.used(x))


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )


def batch_norm_net():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    )
    with torch.no_grad():
        net[1].running_mean.copy_(torch.tensor([0.1, -0.2]))
        net[1].running_var.copy_(torch.tensor([0.5, 2.0]))
        net[1].weight.copy_(torch.tensor([1.5, 0.7]))
    return net


NETS = {
    "tanh-mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (4,)),
    "conv-relu-maxpool": (conv_net, (1, 4, 4)),
    "batch-norm": (batch_norm_net, (1, 4, 4)),
    "lstm": (
        lambda: nn.Sequential(nn.LSTM(4, 2, batch_first=True), LastOutput(), nn.Linear(2, 3)),
        (3, 4),
    ),
    "attention": (Attention, (3, 4)),
    "unused-parameter": (Unused, (4,)),
}


class LastOutput(nn.Module):
    """The last output of a recurrent layer."""

    def forward(self, outputs):
        return outputs[0][:, -1]


def samples(shape, count=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=generator, dtype=DOUBLE)
    return inputs, torch.randint(0, 3, (count,), generator=generator)


def build(name, *, sizes=(23,), seed=0, strategy="kept-graph", product_batch=7, **kwargs):
    """A small problem on 23 samples, given in batches of `sizes`."""
    make, shape = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().double()
    inputs, targets = samples(shape)
    batches = list(zip(inputs.split(sizes), targets.split(sizes), strict=True))
    problem = Problem(model, nn.CrossEntropyLoss(), batches, dtype=DOUBLE, **kwargs)
    problem.plan = replace(problem.plan, product_strategy=strategy, product_batch=product_batch)
    return problem


def dense_hessian(problem, buffers=None):
    """The Hessian by autodiff of the whole mean loss, (n, n)."""
    theta = flatten(problem.parameters)
    buffers = problem.buffers_at(problem.parameters) if buffers is None else buffers

    def loss(vector):
        point = unflatten(vector, problem.parameters)
        batches = problem.micro_batches(problem.count)
        return sum(problem.loss_sum(point, batch, buffers) for batch in batches) / problem.count

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss, theta)


def dense(operator):
    return operator.matmat(torch.eye(operator.size, dtype=operator.dtype))


@pytest.mark.parametrize("strategy", ["kept-graph", "recompute"])
@pytest.mark.parametrize("name", NETS)
def test_equals_the_dense_hessian(name, strategy):
    problem = build(name, strategy=strategy)
    with HessianOperator(problem) as operator:
        found = dense(operator)
    expected = dense_hessian(problem)
    # Entries of order 1 summed in another order: rounding only.
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)
    assert operator.products == operator.size


def test_batch_norm_with_the_statistics_of_each_batch():
    problem = build("batch-norm", bn="train", bn_batch=8)
    found = dense(HessianOperator(problem))
    assert torch.allclose(found, dense_hessian(problem), rtol=0, atol=1e-13)
    assert not torch.allclose(found, dense_hessian(build("batch-norm")), rtol=0, atol=1e-3)


@pytest.mark.parametrize("strategy", ["kept-graph", "recompute"])
@pytest.mark.parametrize(
    ("sizes", "product_batch"), [((23,), 5), ((10, 10, 3), 23), ((1, 22), 4), ((8, 8, 7), 1)]
)
def test_how_the_data_is_cut_changes_nothing(sizes, product_batch, strategy):
    reference = dense(HessianOperator(build("conv-relu-maxpool", product_batch=23)))
    problem = build(
        "conv-relu-maxpool", sizes=sizes, product_batch=product_batch, strategy=strategy
    )
    # The contract's bound; equal weights for a ragged last batch would be off by 1e-2.
    assert torch.allclose(dense(HessianOperator(problem)), reference, rtol=0, atol=1e-10)


def test_extreme_eigenvalues_of_a_network():
    problem = build("tanh-mlp")
    values = torch.linalg.eigvalsh(dense_hessian(problem))
    pairs = top_eigenpairs(HessianOperator(problem), 5, smallest=2, tol=1e-10)
    # tol bounds the relative error; rounding of the dense Hessian adds 1e-13.
    assert torch.allclose(pairs.eigenvalues, values.flip(0)[:5], rtol=1e-8)
    assert torch.allclose(pairs.smallest_eigenvalues, values[:2], rtol=1e-8)


def test_trace_of_a_network():
    problem = build("tanh-mlp")
    exact = float(torch.trace(dense_hessian(problem)))
    result = trace(HessianOperator(problem), budget=100)
    assert result.value == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("names", [["2.weight", "0.bias"], ["0.weight"]])
def test_a_subset_is_a_block_of_the_hessian(names):
    problem = build("tanh-mlp")
    operator = HessianOperator(problem, names)
    entries = torch.arange(sum(tensor.numel() for tensor in problem.parameters.values()))
    positions = unflatten(entries, problem.parameters)
    rows = torch.cat([positions[name].flatten() for name in operator.shapes])
    assert set(operator.shapes) == set(names)
    block = dense_hessian(problem)[rows][:, rows]
    assert torch.allclose(dense(operator), block, rtol=0, atol=1e-13)


def test_other_weights_than_those_of_the_network():
    problem, elsewhere = build("tanh-mlp"), build("tanh-mlp", seed=1)
    found = dense(HessianOperator(problem, at=elsewhere.parameters))
    assert torch.allclose(found, dense_hessian(elsewhere), rtol=0, atol=1e-13)


def test_linear_model_in_closed_form():
    inputs, _ = samples((4,))
    model = nn.Linear(4, 1, bias=False).double()
    problem = Problem(
        model, nn.MSELoss(), [(inputs, torch.zeros(23, 1, dtype=DOUBLE))], dtype=DOUBLE
    )
    # L = mean (x w)^2, so H = 2 X^T X / N.
    expected = 2 * inputs.T @ inputs / 23
    assert torch.allclose(dense(HessianOperator(problem)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "loss",
    [lambda outputs, targets: outputs.sum(1), lambda outputs, targets: targets.double()],
    ids=["linear", "constant"],
)
def test_no_curvature_is_zero_curvature(loss):
    problem = Problem(nn.Linear(4, 3), loss, [samples((4,))], dtype=DOUBLE)
    assert not dense(HessianOperator(problem)).any()


def test_bfloat16_autocast_stays_close_to_single_precision():
    make, shape = NETS["tanh-mlp"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
    data = [samples(shape)]
    exact, rounded = (
        HessianOperator(Problem(model, nn.CrossEntropyLoss(), data, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded.dtype == torch.float32
    vector = torch.ones(exact.size)
    error = (rounded.matvec(vector) - exact.matvec(vector)).norm() / exact.matvec(vector).norm()
    # bfloat16 rounds to 4e-3; some ten rounded operations lie one after the other.
    assert float(error) < 0.05


def test_kept_graphs_are_freed_and_rebuilt():
    operator = HessianOperator(build("tanh-mlp"))
    vector = torch.ones(operator.size, dtype=DOUBLE)
    with operator:
        first = operator.matvec(vector)
        assert operator._kept
    assert operator._kept is None
    assert torch.equal(operator.matvec(vector), first)


def test_products_under_no_grad():
    operator = HessianOperator(build("tanh-mlp"))
    vector = torch.ones(operator.size, dtype=DOUBLE)
    with torch.no_grad():
        inside = operator.matvec(vector)
    assert torch.equal(operator.matvec(vector), inside)


@pytest.mark.parametrize("name", NETS)
def test_the_lent_model_stays_as_it_was(name):
    make, shape = NETS[name]
    model = make().double().train()
    before = copy.deepcopy(model.state_dict())
    problem = Problem(model, nn.CrossEntropyLoss(), [samples(shape)], dtype=DOUBLE)
    theta = {key: tensor.clone() for key, tensor in problem.parameters.items()}
    operator = HessianOperator(problem)
    top_eigenpairs(operator, 1, max_products=5)
    trace(operator, budget=4)
    spectral_density(operator, probes=1, steps=3)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(torch.equal(theta[key], tensor) for key, tensor in problem.parameters.items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training
    assert not any(tensor.requires_grad for tensor in problem.parameters.values())


def test_weights_that_diverged_give_an_account_not_an_exception():
    problem = build("tanh-mlp")
    point = {name: tensor * math.nan for name, tensor in problem.parameters.items()}
    operator = HessianOperator(problem, at=point)
    pairs = top_eigenpairs(operator, 2)
    assert pairs.eigenvalues.isnan().all()
    assert "not finite at these weights" in pairs.reason


class Once(torch.autograd.Function):
    """Twice the input, with a gradient that cannot be differentiated again."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * gradient


class OnceNet(nn.Linear):
    def forward(self, x):
        return Once.apply(super().forward(x))


def test_gradients_that_cannot_be_differentiated_are_refused():
    # torch itself would return zeros here.
    problem = Problem(OnceNet(4, 3), nn.CrossEntropyLoss(), [samples((4,))], dtype=DOUBLE)
    operator = HessianOperator(problem)
    with pytest.raises(NotTwiceDifferentiableError, match="second derivatives"):
        operator.matvec(torch.ones(operator.size, dtype=DOUBLE))


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["0.wieght"], ParameterNameError, "'0.wieght' among 4\ndid you mean 0.weight"),
        (["zzz"], ParameterNameError, "known: 0.weight, 0.bias, 2.weight, 2.bias"),
        ([], OperatorError, "at least one parameter"),
        ("0.bias", OperatorError, "pass \\['0.bias'\\]"),
    ],
)
def test_unfit_names_are_refused(names, error, message):
    with pytest.raises(error, match=message):
        HessianOperator(build("tanh-mlp"), names)


@pytest.mark.parametrize(
    ("vector", "message"),
    [(torch.zeros(43), "torch.float64.*torch.float32"), (torch.zeros(42).double(), r"\(43,\)")],
)
def test_unfit_vectors_are_refused(vector, message):
    with pytest.raises(OperatorError, match=message):
        HessianOperator(build("tanh-mlp")).matvec(vector)
