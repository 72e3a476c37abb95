"""Derivatives through re-estimated statistics: L(theta, s(theta)) written out as one function."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isoloss.hessian.operators.ggn import GGNOperator, ResidualOperator
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.landscape.batch_norm import BatchNormError
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import flatten, unflatten

F64 = torch.float64
COUNT, BATCH, EPS = 23, 8, 1e-5


def data(*shape):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(COUNT, *shape, generator=generator, dtype=F64)
    return inputs + 0.3, torch.randint(3, (COUNT,), generator=generator)


def conv_net():
    """Two batch norms, one behind the other, with a scale and without; a third that is unused."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Tanh(),
        nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3, affine=False), nn.Tanh(), nn.Flatten(),
        nn.Linear(12, 3),
    )  # fmt: skip
    net[0].spare = nn.BatchNorm1d(4)
    return net


def normalised(x, mean, variance, scale=None, shift=None):
    shape = (1, -1, 1, 1)
    y = (x - mean.view(shape)) / (variance.view(shape) + EPS).sqrt()
    return y if scale is None else y * scale.view(shape) + shift.view(shape)


def statistics(x):
    count = x.numel() / x.shape[1]
    mean = x.mean((0, 2, 3))
    biased = (x - mean.view(1, -1, 1, 1)).square().mean((0, 2, 3))
    return mean, biased, biased * count / (count - 1)


def composed(p, inputs, targets):
    return F.cross_entropy(composed_outputs(p, inputs), targets)


def composed_outputs(p, inputs):
    """f(theta, s(theta)) of `conv_net`, by the definition, from nothing but its tensors."""
    affine = p["1.weight"], p["1.bias"]
    s = [0.0] * 4
    for x in inputs.split(BATCH):
        share = len(x) / COUNT
        h = F.conv2d(x, p["0.weight"], p["0.bias"])
        mean, biased, unbiased = statistics(h)
        s[0], s[1] = s[0] + share * mean, s[1] + share * unbiased
        h = F.conv2d(torch.tanh(normalised(h, mean, biased, *affine)), p["3.weight"], p["3.bias"])
        mean, _, unbiased = statistics(h)
        s[2], s[3] = s[2] + share * mean, s[3] + share * unbiased
    h = torch.tanh(normalised(F.conv2d(inputs, p["0.weight"], p["0.bias"]), s[0], s[1], *affine))
    h = torch.tanh(normalised(F.conv2d(h, p["3.weight"], p["3.bias"]), s[2], s[3]))
    return F.linear(h.flatten(1), p["7.weight"], p["7.bias"])


def build(strategy="kept-graph", micro=5, **options):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = conv_net().double()
        nn.init.normal_(model[1].weight, 1.0, 0.3)
        nn.init.normal_(model[1].bias, 0.0, 0.3)
    options = {"bn": "recalibrate", "bn_batch": BATCH, **options}
    problem = Problem(model, nn.CrossEntropyLoss(), [data(1, 4, 4)], dtype=F64, **options)
    problem.plan = replace(
        problem.plan, product_strategy=strategy, product_batch=micro, micro_batch=micro
    )
    return problem


def oracle(problem, order):
    theta, samples = problem.parameters, data(1, 4, 4)

    def value(vector):
        return composed(unflatten(vector, theta), *samples)

    return order(value)(flatten(theta))


def dense(operator):
    return operator.matmat(torch.eye(operator.size, dtype=operator.dtype))


def test_value_and_gradient_are_those_of_the_composed_function():
    problem = build()
    expected = composed(problem.parameters, *data(1, 4, 4)).item()
    # Sums of some thousand float64 terms of order 1.
    assert problem.evaluate().loss == pytest.approx(expected, rel=1e-13)
    gradient = oracle(problem, torch.func.grad)
    torch.testing.assert_close(flatten(problem.gradient()), gradient, rtol=0, atol=1e-13)
    held = flatten(build(bn="eval").gradient())
    assert (held - gradient).abs().max() > 1e-2


@pytest.mark.parametrize(("strategy", "micro"), [("kept-graph", 5), ("recompute", 23)])
def test_products_are_those_of_the_composed_functions_hessian(strategy, micro):
    problem = build(strategy, micro)
    expected = oracle(problem, torch.func.hessian)
    operator = HessianOperator(problem)
    found = dense(operator)
    # Second derivatives of order 10 through two normalisations.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(dense(operator), found, rtol=0, atol=1e-13)


def test_gauss_newton_takes_the_jacobian_through_the_statistics():
    problem, (inputs, _) = build(), data(1, 4, 4)
    theta = problem.parameters

    def outputs(vector):
        return composed_outputs(unflatten(vector, theta), inputs)

    jacobian = torch.func.jacrev(outputs)(flatten(theta))
    p = outputs(flatten(theta)).softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("ica,icd,idb->ab", jacobian, curvature, jacobian) / COUNT
    chosen = torch.eye(len(expected), dtype=F64)[:, ::9]
    found = GGNOperator(problem).matmat(chosen)
    torch.testing.assert_close(found, expected @ chosen, rtol=0, atol=1e-12)
    rest = HessianOperator(problem).matmat(chosen) - found
    torch.testing.assert_close(ResidualOperator(problem).matmat(chosen), rest, rtol=0, atol=1e-12)
    held = GGNOperator(build(bn="eval")).matmat(chosen)
    assert (held - found).abs().max() > 1e-2


def test_a_choice_of_parameters_is_a_block():
    names = ["0.weight", "3.bias", "7.weight"]
    expected = oracle(build(), torch.func.hessian)
    sizes = {name: tensor.numel() for name, tensor in build().parameters.items()}
    chosen = torch.cat([torch.full((size,), name in names) for name, size in sizes.items()])
    block = expected[chosen][:, chosen]
    for operator in (HessianOperator(build(), names), HessianOperator(build(parameters=names))):
        torch.testing.assert_close(dense(operator), block, rtol=0, atol=1e-12)


def test_curvature_and_slope_are_those_of_a_surface():
    problem = build()
    generator = torch.Generator().manual_seed(1)
    d = {n: torch.randn(t.shape, generator=generator, dtype=F64)
         for n, t in problem.parameters.items()}  # fmt: skip
    h = 1e-3

    def at(x):
        return problem.evaluate({n: t + x * d[n] for n, t in problem.parameters.items()}).loss

    slope = (at(h) - at(-h)) / (2 * h)
    curvature = (at(h) - 2 * at(0) + at(-h)) / h**2
    v = flatten(d)
    # Central differences: h^2 times third and fourth derivatives along a d of length 10.
    assert float(flatten(problem.gradient()) @ v) == pytest.approx(slope, rel=1e-3)
    assert float(v @ HessianOperator(problem).matvec(v)) == pytest.approx(curvature, rel=1e-2)


class Twice(nn.Module):
    """A batch norm that is used twice has the mean of what it sees."""

    def __init__(self, sometimes=False):
        super().__init__()
        self.norm, self.head, self.sometimes = nn.BatchNorm1d(4), nn.Linear(4, 3), sometimes

    def forward(self, x):
        if self.sometimes and len(x) < BATCH:
            return self.head(x)
        return self.head(torch.tanh(self.norm(2 * torch.tanh(self.norm(x)))))


def test_a_layer_used_twice():
    x, y = data(4)
    model = Twice().double()
    problem = Problem(
        model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64, bn="recalibrate", bn_batch=COUNT
    )
    first = F.batch_norm(x, None, None, training=True)
    second = 2 * torch.tanh(first)
    plain = copy.deepcopy(model).eval()
    plain.norm.running_mean = (x.mean(0) + second.mean(0)) / 2
    plain.norm.running_var = (x.var(0) + second.var(0)) / 2
    expected = F.cross_entropy(plain(x), y).item()
    assert problem.evaluate().loss == pytest.approx(expected, rel=1e-12)


def test_a_layer_that_takes_part_in_some_batches_only_is_refused():
    with pytest.raises(BatchNormError, match=r"norm.running_mean saw 16 of 23 samples"):
        Problem(
            Twice(True).double(), nn.CrossEntropyLoss(), [data(4)],
            dtype=F64, bn="recalibrate", bn_batch=BATCH,
        )  # fmt: skip


def test_a_statistics_batch_of_one_is_refused_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BatchNormError, match="single sample"):
            Problem(
                Twice().double(), nn.CrossEntropyLoss(), [data(4)],
                dtype=F64, bn="recalibrate", bn_batch=COUNT - 1,
            )  # fmt: skip


def test_without_batch_norm_nothing_is_added():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double()
    pair = [
        Problem(model, nn.CrossEntropyLoss(), [data(4)], dtype=F64, bn=bn)
        for bn in ("eval", "recalibrate")
    ]
    vector = torch.ones(15, dtype=F64)
    products = [HessianOperator(problem).matvec(vector) for problem in pair]
    assert torch.equal(*products)
    assert torch.equal(*[flatten(problem.gradient()) for problem in pair])


def test_single_precision_follows_double():
    problem = build()
    single = Problem(
        problem._model, nn.CrossEntropyLoss(), [data(1, 4, 4)], bn="recalibrate", bn_batch=BATCH,
        parameters="all",
    )  # fmt: skip
    vector = torch.ones(flatten(problem.parameters).numel(), dtype=F64)
    exact = HessianOperator(problem).matvec(vector)
    rounded = HessianOperator(single).matvec(vector.float())
    # Some thousand float32 roundings of 6e-8 each, amplified by the normalisations.
    assert (rounded - exact).norm() / exact.norm() < 1e-4
