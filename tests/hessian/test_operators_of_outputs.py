"""Gauss-Newton, Fisher and gradient matrices against Jacobians by another route, dense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, hessian, jacrev, vmap

from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.operators.combined import ShiftedOperator, SumOperator
from isoloss.hessian.operators.fisher import (
    EmpiricalFisherOperator,
    FisherOperator,
    GradientCovarianceOperator,
)
from isoloss.hessian.operators.ggn import GGNOperator, ResidualOperator
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.views import as_scipy
from isoloss.hessian.operators.views import dense as dense_matrix
from isoloss.landscape.losses import per_sample_loss
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import flatten, unflatten
from tests.hessian.test_hessian_operator import (
    DOUBLE,
    NETS,
    build,
    dense,
    dense_hessian,
    samples,
)

CLASSES = 3
OPERATORS = {
    "ggn": GGNOperator,
    "residual": ResidualOperator,
    "fisher": FisherOperator,
    "drawn": lambda problem, **options: FisherOperator(problem, draws=3, seed=5, **options),
    "empirical": EmpiricalFisherOperator,
    "covariance": GradientCovarianceOperator,
}


def outputs_of(problem, inputs):
    """f(theta) for all samples at once, (count, ...), as a function of the flat parameters."""
    model = problem.objective.model

    def outputs(vector):
        return functional_call(model, unflatten(vector, problem.parameters), (inputs,))

    return outputs


def jacobian_of(problem, inputs):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.jacobian(
            outputs_of(problem, inputs), flatten(problem.parameters)
        )


def sandwich(jacobian, matrix, count):
    """sum_i J_i^T M_i J_i / count, outputs flattened to (count, k)."""
    j = jacobian.flatten(1, -2)
    return torch.einsum("ica,icd,idb->ab", j, matrix, j) / count


def of_softmax(outputs):
    p = outputs.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


@pytest.mark.parametrize("strategy", ["kept-graph", "recompute"])
@pytest.mark.parametrize("name", NETS)
def test_gauss_newton_is_the_jacobians_product(name, strategy):
    problem = build(name, strategy=strategy)
    inputs, _ = samples(NETS[name][1])
    outputs = outputs_of(problem, inputs)(flatten(problem.parameters)).detach()
    expected = sandwich(jacobian_of(problem, inputs), of_softmax(outputs), len(inputs))
    with GGNOperator(problem) as operator:
        found = dense(operator)
        # Entries of order 1 in another order of sums; a second product uses kept graphs.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
        torch.testing.assert_close(dense(operator), found, rtol=0, atol=1e-14)
    torch.testing.assert_close(dense(FisherOperator(problem)), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["tanh-mlp", "batch-norm", "attention", "lstm"])
def test_residual_is_the_networks_curvature_weighted_by_the_losses_slope(name):
    problem = build(name)
    inputs, targets = samples(NETS[name][1])
    residual = dense(ResidualOperator(problem))
    difference = dense(HessianOperator(problem)) - dense(GGNOperator(problem))
    torch.testing.assert_close(residual, difference, rtol=0, atol=1e-13)
    theta = flatten(problem.parameters)
    outputs = outputs_of(problem, inputs)
    slope = outputs(theta).softmax(1) - F.one_hot(targets, CLASSES)
    total = torch.zeros(len(theta), len(theta), dtype=DOUBLE)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for k in range(CLASSES):
            for i in range(0, len(inputs), 11):
                chosen = slice(i, i + 11)
                part = torch.autograd.functional.hessian(
                    lambda v, k=k, c=chosen: slope.detach()[c, k] @ outputs(v)[c, k], theta
                )
                total += part
    torch.testing.assert_close(residual, total / len(inputs), rtol=0, atol=1e-12)
    assert residual.abs().max() > 1e-3  # these networks are curved


def test_a_linear_network_has_no_residual():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(4, 3).double()
    problem = Problem(model, nn.CrossEntropyLoss(), [samples((4,))], dtype=DOUBLE)
    assert dense(ResidualOperator(problem)).abs().max() == 0
    torch.testing.assert_close(dense(GGNOperator(problem)), dense_hessian(problem))


@pytest.mark.parametrize("kind", OPERATORS)
def test_products_do_not_depend_on_how_the_data_are_cut(kind):
    make = OPERATORS[kind]
    whole = dense(make(build("tanh-mlp", product_batch=23)))
    for cut in ({"product_batch": 1}, {"product_batch": 9, "strategy": "recompute"}, {"sizes": 4}):
        torch.testing.assert_close(dense(make(build("tanh-mlp", **cut))), whole, atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_choice_of_parameters_is_a_block_and_another_point_can_be_given(kind):
    problem, make = build("tanh-mlp"), OPERATORS[kind]
    ends = np.cumsum([t.numel() for t in problem.parameters.values()])
    names = list(problem.parameters)
    rows = np.r_[0 : ends[0], ends[1] : ends[2]]
    block = dense(make(problem, parameters=[names[0], names[2]]))
    torch.testing.assert_close(block, dense(make(problem))[rows][:, rows], rtol=0, atol=1e-13)
    moved = {name: tensor * 1.3 for name, tensor in problem.parameters.items()}
    there = dense(make(problem.at(moved)))
    torch.testing.assert_close(dense(make(problem, at=moved)), there, rtol=0, atol=1e-13)
    assert not torch.allclose(there, dense(make(problem)), rtol=1e-2)


def test_batch_norm_with_the_statistics_of_each_batch():
    problem = build("batch-norm", bn="train", bn_batch=8)
    difference = dense(HessianOperator(problem)) - dense(GGNOperator(problem))
    torch.testing.assert_close(dense(ResidualOperator(problem)), difference, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        dense(FisherOperator(problem)), dense(GGNOperator(problem)), rtol=0, atol=1e-13
    )
    eigenvalues = torch.linalg.eigvalsh(dense(GGNOperator(problem)))
    assert eigenvalues.min() > -1e-13


# Losses with weights: of classes, of targets that do not count, of tokens, of elements.
class Tokens(nn.Module):
    """Logits of 5 positions, (batch, positions, classes)."""

    def __init__(self, last):
        super().__init__()
        self.inner, self.last = nn.Linear(4, CLASSES), last

    def forward(self, x):
        logits = torch.tanh(self.inner(x)) * 2
        return logits if self.last else logits.transpose(1, 2)


def weighted(kind):
    """A problem, a dense output Hessian (count, k, k) by vmap of the plain loss, the weight W."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        mlp = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, CLASSES)).double()
        tokens = Tokens(last=kind == "tokens-last").double()
    inputs, targets = samples((4,))
    generator = torch.Generator().manual_seed(3)
    if kind == "classes":
        targets = targets.clone()
        targets[::5] = -100
        loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 4.0, 0.5], dtype=DOUBLE))
    elif kind.startswith("tokens"):
        inputs = torch.randn(23, 5, 4, generator=generator, dtype=DOUBLE)
        targets = torch.randint(0, CLASSES, (23, 5), generator=generator)
        targets[:, 3] = -100
        mlp, loss = tokens, nn.CrossEntropyLoss()
    elif kind == "binary":
        targets = torch.rand(23, CLASSES, generator=generator, dtype=DOUBLE)
        loss = nn.BCEWithLogitsLoss()
    elif kind == "square":
        targets = torch.randn(23, CLASSES, generator=generator, dtype=DOUBLE)
        loss = nn.MSELoss()
    elif kind == "smoothed":
        loss = nn.CrossEntropyLoss(label_smoothing=0.2)
    problem = Problem(mlp, loss, [(inputs, targets)], dtype=DOUBLE)
    problem.plan = replace(problem.plan, product_batch=6)
    return problem, loss, inputs, targets


@pytest.mark.parametrize(
    "kind", ["classes", "smoothed", "tokens-last", "tokens-first", "binary", "square"]
)
def test_weighted_losses_have_their_own_normalisation(kind):
    problem, loss, inputs, targets = weighted(kind)
    theta = flatten(problem.parameters)
    outputs = outputs_of(problem, inputs)(theta).detach()

    def mean(flat):  # torch's own mean of the whole data, of all outputs as one vector
        found = flat.view(outputs.shape)
        return loss(found.movedim(-1, 1) if kind == "tokens-last" else found, targets)

    curvature = hessian(mean)(outputs.flatten())
    j = jacobian_of(problem, inputs).reshape(outputs.numel(), -1)
    expected = j.T @ curvature @ j
    torch.testing.assert_close(dense(GGNOperator(problem)), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(dense(FisherOperator(problem)), expected, rtol=0, atol=1e-13)
    difference = dense_hessian_of(problem) - expected
    torch.testing.assert_close(dense(ResidualOperator(problem)), difference, rtol=0, atol=1e-13)


def dense_hessian_of(problem):
    return dense(HessianOperator(problem))


@pytest.mark.parametrize("kind", ["classes", "tokens-last", "tokens-first", "binary", "square"])
def test_drawn_fishers_scatter_about_the_exact_one(kind):
    problem, *_ = weighted(kind)
    exact = dense(FisherOperator(problem))
    drawn = torch.stack([dense(FisherOperator(problem, draws=4, seed=s)) for s in range(25)])
    mean, error = drawn.mean(0), drawn.std(0) / 25**0.5
    # Of some hundred entries that are normal about their expectation, none at 5 standard errors.
    assert ((mean - exact).abs() <= 5 * error + 1e-12).all()
    assert error.max() > 0
    # The errors are small enough to tell the exact one from the empirical one.
    empirical = dense(EmpiricalFisherOperator(problem))
    assert ((empirical - mean).abs() > 5 * error + 1e-12).any()
    # Rank at most draws x samples, no negative eigenvalue.
    eigenvalues = torch.linalg.eigvalsh(dense(FisherOperator(problem, draws=1)))
    assert eigenvalues.min() > -1e-12


def sample_gradients(problem):
    """Gradient of each sample's own mean loss, and its weight."""
    rows, weights = [], []
    for batch in problem.micro_batches(1):
        leaves = {n: t.clone().requires_grad_() for n, t in problem.parameters.items()}
        terms = problem.loss_terms(leaves, batch)
        weight = terms.weights.sum().item()
        weights.append(weight)
        found = torch.autograd.grad(terms.sums.sum(), list(leaves.values()))
        rows.append(torch.cat([t.reshape(-1) for t in found]) / (weight or 1.0))
    return torch.stack(rows), torch.tensor(weights, dtype=DOUBLE)


@pytest.mark.parametrize("kind", ["classes", "tokens-last", "binary", "square"])
def test_second_moment_and_covariance_of_gradients_are_those_of_the_samples(kind):
    problem, *_ = weighted(kind)
    gradients, weights = sample_gradients(problem)
    share = weights / weights.sum()
    moment = torch.einsum("i,ia,ib->ab", share, gradients, gradients)
    torch.testing.assert_close(dense(EmpiricalFisherOperator(problem)), moment)
    covariance = np.cov(gradients.T.numpy(), aweights=weights.numpy(), ddof=0)
    found = dense(GradientCovarianceOperator(problem)).numpy()
    np.testing.assert_allclose(found, covariance, rtol=0, atol=1e-13)
    assert abs(moment.numpy() - covariance).max() > 1e-6


def test_the_empirical_fisher_vanishes_at_a_perfect_fit_where_the_fisher_does_not():
    inputs, _ = samples((4,))
    model = nn.Linear(4, 2).double()
    targets = model(inputs).detach()
    problem = Problem(model, nn.MSELoss(), [(inputs, targets)], dtype=DOUBLE)
    assert dense(EmpiricalFisherOperator(problem)).abs().max() < 1e-30
    assert dense(FisherOperator(problem)).abs().max() > 0.1


def test_losses_that_have_no_such_matrix_are_refused():
    inputs, targets = samples((4,))
    model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)).double()
    linear = Problem(model, nn.NLLLoss(), [(inputs, targets)], dtype=DOUBLE)
    with pytest.raises(OperatorError, match=r"linear in them.*\n.*logits"):
        dense(GGNOperator(linear))

    def own(outputs, targets):
        return F.cross_entropy(outputs, targets, reduction="none").square()

    function = Problem(nn.Linear(4, 3).double(), own, [(inputs, targets)], dtype=DOUBLE)
    dense(GGNOperator(function))
    with pytest.raises(OperatorError, match="-log p of the targets, got own"):
        FisherOperator(function)
    said = per_sample_loss(
        lambda f, y: F.cross_entropy(f, y, reduction="none"), likelihood="categorical"
    )
    stated = Problem(nn.Linear(4, 3).double(), said, [(inputs, targets)], dtype=DOUBLE)
    torch.testing.assert_close(dense(FisherOperator(stated)), dense(GGNOperator(stated)))

    def closure(net, batch):
        return F.cross_entropy(net(batch[0]), batch[1], reduction="none")

    closed = Problem(nn.Linear(4, 3).double(), None, [(inputs, targets)], closure=closure)
    for make in (GGNOperator, EmpiricalFisherOperator, ResidualOperator):
        with pytest.raises(OperatorError, match="closure"):
            make(closed).matvec(torch.ones(15))
    with pytest.raises(OperatorError, match="1 draw or more"):
        FisherOperator(stated, draws=0)


def test_float32_products_are_those_of_float64_to_rounding():
    inputs, targets = samples((4,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    for make in OPERATORS.values():
        found, exact = (
            dense_matrix(make(Problem(model, nn.CrossEntropyLoss(), [(inputs, targets)], dtype=d)))
            for d in (torch.float32, torch.float64)
        )
        assert (found - exact).abs().max() <= 2e-6 * exact.abs().max()


def test_sums_shifts_and_views():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 6, generator=generator, dtype=DOUBLE) for _ in range(2))
    a, b = a + a.T, b + b.T
    both = SumOperator([(2.0, MatrixOperator(a)), (-1.0, MatrixOperator(b))])
    decayed = ShiftedOperator(both, 0.3)
    expected = 2 * a - b + 0.3 * torch.eye(6, dtype=DOUBLE)
    torch.testing.assert_close(dense_matrix(decayed, block=4), expected)
    torch.testing.assert_close(decayed.matvec(a[0]), expected @ a[0])
    from scipy.sparse.linalg import eigsh

    found = eigsh(as_scipy(decayed), k=2, which="LA", return_eigenvectors=False)
    top = top_eigenpairs(decayed, k=2, tol=1e-10).eigenvalues
    np.testing.assert_allclose(sorted(found), sorted(top.numpy()), rtol=1e-9)
    np.testing.assert_allclose(as_scipy(both) @ np.eye(6), (2 * a - b).numpy(), atol=1e-14)
    with pytest.raises(OperatorError, match="one size"):
        SumOperator([(1.0, MatrixOperator(a)), (1.0, MatrixOperator(b[:3, :3]))])
    with pytest.raises(OperatorError, match="none"):
        SumOperator([])


def test_vmapped_gradients_agree_with_the_empirical_fisher():
    problem = build("conv-relu-maxpool")
    inputs, targets = samples(NETS["conv-relu-maxpool"][1])
    theta = flatten(problem.parameters)

    def one(vector, x, y):
        return F.cross_entropy(outputs_of(problem, x[None])(vector), y[None])

    gradients = vmap(jacrev(one), (None, 0, 0))(theta, inputs, targets)
    expected = gradients.T @ gradients / len(inputs)
    torch.testing.assert_close(dense(EmpiricalFisherOperator(problem)), expected)
