"""Products against those of curvlinops, another library, on the same data."""

from __future__ import annotations

import builtins

import pytest
import torch
from torch import nn

from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.operators.fisher import EmpiricalFisherOperator, FisherOperator
from isoloss.hessian.operators.ggn import GGNOperator
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.views import to_curvlinops
from tests.hessian.families import subject

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
# Without layer norm: through it, products of batched columns lack terms in torch 2.15.
NAMES = ["fashion-cnn", "se-cnn-residual", "wide-resnet"]


@pytest.fixture
def curvlinops():
    return pytest.importorskip("curvlinops", reason="needs curvlinops-for-pytorch (extra `bench`)")


def arguments(it, sizes=(8, 5)):
    """The network, loss, parameters and data, cut into uneven batches."""
    data = list(zip(it.inputs.split(sizes), it.targets.split(sizes), strict=True))
    return it.model, nn.CrossEntropyLoss(), list(it.model.parameters()), data


def columns(size):
    generator = torch.Generator().manual_seed(9)
    return torch.randn(size, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_products_are_those_of_curvlinops(name, curvlinops):
    it = subject(name, 0)
    V = columns(len(it.theta))
    pairs = {
        HessianOperator: curvlinops.HessianLinearOperator,
        GGNOperator: curvlinops.GGNLinearOperator,
        EmpiricalFisherOperator: curvlinops.EFLinearOperator,
    }
    for ours, theirs in pairs.items():
        expected = theirs(*arguments(it)) @ V
        found = ours(it.problem()).matmat(V)
        assert (found - expected).norm() <= 1e-6 * expected.norm(), ours.__name__
        assert expected.norm() > 1e-3


def test_drawn_fishers_of_both_have_one_expectation(curvlinops):
    # The draws differ, so that their means are compared, with their errors; and both with the
    # expectation itself.
    it = subject("fashion-cnn", 0)
    v = columns(len(it.theta))[:, 0]
    problem, exact = it.problem(), FisherOperator(it.problem()).matvec(v)
    ours = torch.stack([FisherOperator(problem, draws=4, seed=s).matvec(v) for s in range(25)])
    theirs = torch.stack([
        curvlinops.FisherMCLinearOperator(*arguments(it), mc_samples=4, seed=s) @ v
        for s in range(25)
    ])  # fmt: skip
    for drawn in (ours, theirs):
        error = drawn.std(0) / 25**0.5
        # Of some 200 entries that are normal about their expectation, none at 5 standard errors.
        assert ((drawn.mean(0) - exact).abs() <= 5 * error + 1e-12).all()
    # One definition, so one spread: root mean squares of 25 draws of 220 entries.
    assert float(ours.std(0).norm() / theirs.std(0).norm()) == pytest.approx(1, abs=0.25)


def test_an_operator_as_one_of_curvlinops(curvlinops):
    it = subject("fashion-cnn", 0)
    V = columns(len(it.theta))
    with HessianOperator(it.problem()) as operator:
        view = to_curvlinops(operator)
        assert view.shape == (operator.size, operator.size)
        torch.testing.assert_close(view @ V, operator.matmat(V))
        torch.testing.assert_close(view @ V[:, 0], operator.matvec(V[:, 0]))
        parts = [p.detach().clone() for p in it.model.parameters()]
        products = view @ parts
        assert [p.shape for p in products] == [p.shape for p in parts]
        flat = torch.cat([p.reshape(-1) for p in products])
        torch.testing.assert_close(flat, operator.matvec(it.theta))
        both = view + 2.0 * view.adjoint()
        torch.testing.assert_close(both @ V, 3 * operator.matmat(V))
        # Of a diagonal matrix each sample of random signs is exact.
        small = to_curvlinops(MatrixOperator(torch.diag(torch.tensor([1.0, 2.0, 4.0]).double())))
        assert float(curvlinops.hutchinson_trace(small, 2)) == pytest.approx(7, rel=1e-12)
        from scipy.sparse.linalg import eigsh

        (largest,) = eigsh(view.to_scipy(), k=1, which="LA", tol=1e-10, return_eigenvectors=False)
        assert largest == pytest.approx(float(top_eigenpairs(operator, 1).eigenvalues[0]), rel=1e-7)


def test_without_curvlinops_the_view_says_what_to_install(monkeypatch):
    def without(name, *rest):
        if name.startswith("curvlinops"):
            raise ImportError(f"No module named {name!r}")
        return known(name, *rest)

    known = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OperatorError, match="pip install curvlinops-for-pytorch"):
        to_curvlinops(MatrixOperator(torch.eye(2)))
