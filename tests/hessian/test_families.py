"""Curvature of every kind of network that Isoloss has, shrunken, against dense matrices."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoloss.hessian.density import spectral_density
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.operators.fisher import FisherOperator
from isoloss.hessian.operators.ggn import GGNOperator, ResidualOperator
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.views import dense
from isoloss.hessian.trace import trace
from isoloss.landscape.vectors import flatten, unflatten
from tests.hessian.families import (
    CLASSES,
    COUNT,
    DOUBLE,
    FAMILIES,
    hessian_of,
    jacobian_of,
    subject,
)

SMALLEST = "fashion-cnn"
# Seed 2 gives a graph network whose last rectifiers are all off: hardly a Hessian to test.
SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _without_fused_inference():
    """Keep torch's encoder layers from their fused path, which has no derivatives."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@cache
def dense_hessian(name: str, seed: int) -> Tensor:
    it = subject(name, seed)
    return hessian_of(it.loss, it)


@cache
def gauss_newton(name: str, seed: int) -> Tensor:
    """1/N sum_i J_i^T (diag(p) - p p^T) J_i."""
    it = subject(name, seed)
    p = it.outputs(it.theta).detach().softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    j = jacobian_of(it)
    return torch.einsum("ica,icd,idb->ab", j, curvature, j) / COUNT


def columns(size: int) -> Tensor:
    """Gaussian columns: where two matrices differ anywhere, their products with each do."""
    generator = torch.Generator().manual_seed(9)
    return torch.randn(size, 8, generator=generator, dtype=DOUBLE)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_extreme_eigenvalues_are_those_of_the_dense_hessian(name, seed):
    H = dense_hessian(name, seed)
    exact = torch.linalg.eigvalsh(H)
    with HessianOperator(subject(name, seed).problem()) as operator:
        assert 200 <= operator.size <= 2000
        V = columns(operator.size)
        torch.testing.assert_close(operator.matmat(V), H @ V, rtol=0, atol=1e-10)
        pairs = top_eigenpairs(operator, 5, smallest=5, tol=1e-9, max_products=1000)
    assert pairs.converged, pairs.reason
    scale = 1e-8 * float(exact[-1])
    torch.testing.assert_close(pairs.eigenvalues, exact.flip(0)[:5], rtol=0, atol=scale)
    torch.testing.assert_close(pairs.smallest_eigenvalues, exact[:5], rtol=0, atol=scale)
    # The test would not see a matrix that is all but 0.
    assert exact[-1] > 0.05
    assert exact[0] < -0.01


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_gauss_newton_and_fisher_are_the_jacobians_product(name, seed):
    expected, problem = gauss_newton(name, seed), subject(name, seed).problem()
    V = columns(len(expected))
    for make in (GGNOperator, FisherOperator):
        with make(problem) as operator:
            torch.testing.assert_close(operator.matmat(V), expected @ V, rtol=0, atol=1e-10)
    assert (dense_hessian(name, seed) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_residual_is_the_networks_curvature_weighted_by_the_losses_slope(seed):
    it = subject(SMALLEST, seed)
    slope = it.outputs(it.theta).detach().softmax(1) - F.one_hot(it.targets, CLASSES)
    # sum_k (dl/df_k) Hess f_k, the slopes held: one Hessian a class.
    terms = [
        hessian_of(lambda v, k=k: slope[:, k] @ it.outputs(v)[:, k], it) for k in range(CLASSES)
    ]
    with ResidualOperator(it.problem()) as operator:
        torch.testing.assert_close(dense(operator), sum(terms) / COUNT, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "name", [SMALLEST, *(pytest.param(n, marks=pytest.mark.slow) for n in list(FAMILIES)[1:])]
)
def test_drawn_fishers_scatter_about_the_exact_one(name):
    problem, exact = subject(name, 0).problem(), gauss_newton(name, 0)
    v = columns(len(exact))[:, 0]
    drawn = torch.stack([FisherOperator(problem, draws=2, seed=s).matvec(v) for s in range(40)])
    error = drawn.std(0) / 40**0.5
    # Of a few hundred entries, normal about their expectation, none at 5 standard errors.
    assert ((drawn.mean(0) - exact @ v).abs() <= 5 * error + 1e-12).all()
    assert error.max() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_choice_of_parameters_is_a_block(name):
    problem = subject(name, 0).problem()
    entries = torch.arange(len(subject(name, 0).theta))
    positions = unflatten(entries, problem.parameters)
    chosen = list(problem.parameters)[1::2]
    rows = torch.cat([positions[key].flatten() for key in chosen])
    V = columns(len(rows))
    for make, matrix in ((HessianOperator, dense_hessian), (GGNOperator, gauss_newton)):
        block = matrix(name, 0)[rows][:, rows]
        found = make(problem, chosen).matmat(V)
        torch.testing.assert_close(found, block @ V, rtol=0, atol=1e-10)


# Batch norm that follows the weights, written out.


class WrittenOut(nn.BatchNorm2d):
    """Batch norm by its definition: of a batch's own statistics, or of the mean of several's."""

    collect = True
    shares: list[float]

    def forward(self, x):
        view = (1, -1, 1, 1)
        if self.collect:
            count = x.numel() / x.shape[1]
            mean = x.mean((0, 2, 3))
            variance = (x - mean.view(view)).square().mean((0, 2, 3))
            self.seen.append((mean, variance * count / (count - 1)))
        else:
            mean, variance = (
                sum(share * s[i] for share, s in zip(self.shares, self.seen, strict=True))
                for i in range(2)
            )
        y = (x - mean.view(view)) / (variance.view(view) + self.eps).sqrt()
        return y * self.weight.view(view) + self.bias.view(view)


@pytest.fixture
def written_out():
    """The wide residual network with batch norms by their definition, until the test ends."""
    model = subject("wide-resnet", 0).model
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]

    def become(kind, **attributes):
        for module in norms:
            module.__class__ = kind
            vars(module).update(attributes)
            module.seen = []

    yield become
    become(nn.BatchNorm2d)


BATCH = 5


def by_the_statistics_of_batches(it, become):
    """f(theta) under the policy "train": each batch of 5 has its own statistics."""

    def outputs(vector):
        become(WrittenOut, collect=True)
        shapes = dict(it.model.named_parameters())
        point = unflatten(vector, {key: p.detach() for key, p in shapes.items()})
        parts = it.inputs.split(BATCH)
        return torch.cat([torch.func.functional_call(it.model, point, (x,)) for x in parts])

    return outputs


def by_the_mean_statistics(it, become):
    """f(theta, s(theta)) under the policy "recalibrate"."""

    def outputs(vector):
        by_the_statistics_of_batches(it, become)(vector)
        shares = [len(x) / COUNT for x in it.inputs.split(BATCH)]
        for module in it.model.modules():
            if isinstance(module, WrittenOut):
                vars(module).update(collect=False, shares=shares)
        return it.outputs(vector)

    return outputs


@pytest.mark.parametrize(
    ("policy", "route"),
    [("train", by_the_statistics_of_batches), ("recalibrate", by_the_mean_statistics)],
)
def test_batch_norm_that_follows_the_weights(policy, route, written_out):
    it = subject("wide-resnet", 0)
    problem = it.problem(sizes=(8, 5), bn=policy, bn_batch=BATCH)
    V = columns(len(it.theta))[:, :3]
    found = {make: make(problem).matmat(V) for make in (HessianOperator, GGNOperator)}
    outputs = route(it, written_out)
    gradient = torch.func.grad(lambda v: F.cross_entropy(outputs(v), it.targets))
    H_V = torch.stack([torch.func.jvp(gradient, (it.theta,), (v,))[1] for v in V.T], 1)
    j = torch.autograd.functional.jacobian(outputs, it.theta)
    p = outputs(it.theta).detach().softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    G = torch.einsum("ica,icd,idb->ab", j, curvature, j) / COUNT
    scale = 1e-10 * float(H_V.abs().max())
    torch.testing.assert_close(found[HessianOperator], H_V, rtol=0, atol=scale)
    torch.testing.assert_close(found[GGNOperator], G @ V, rtol=0, atol=scale)
    held = dense_hessian("wide-resnet", 0)
    assert (H_V - held @ V).abs().max() > 1e-2


# What may change nothing.


def spectrum(problem) -> tuple[Tensor, float, Tensor]:
    with HessianOperator(problem) as operator:
        top = top_eigenpairs(operator, 5, tol=1e-9).eigenvalues
        value = trace(operator, method="hutchinson", budget=10).value
        nodes = spectral_density(operator, probes=1, steps=10).nodes
    return top, value, torch.as_tensor(nodes)


@pytest.mark.parametrize(
    "name", [SMALLEST, *(pytest.param(n, marks=pytest.mark.slow) for n in list(FAMILIES)[1:])]
)
def test_how_the_work_is_done_changes_nothing(name):
    it = subject(name, 0)
    values, value, nodes = spectrum(it.problem())
    scale = 1e-10 * float(values[0])
    ways = {
        "batches": {"sizes": (1, 10, 2)},
        "chunks": {"product_batch": 1},
        "fresh graphs": {"strategy": "recompute"},
        "two threads": {"product_batch": COUNT},
    }
    for way, options in ways.items():
        threads = torch.get_num_threads()
        torch.set_num_threads(2 if way == "two threads" else threads)
        try:
            found = spectrum(it.problem(**options))
        finally:
            torch.set_num_threads(threads)
        assert (found[0] - values).abs().max() <= scale, way
        # Of the order of n lambda_max at most.
        assert abs(found[1] - value) <= scale * len(it.theta), way
        assert (found[2] - nodes).abs().max() <= scale, way


def test_the_shrunken_networks_are_of_the_families():
    for name in FAMILIES:
        it = subject(name, 0)
        assert flatten(it.problem().parameters).equal(it.theta)
