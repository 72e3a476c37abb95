"""The data's share of the error: how much curvature depends on which samples were drawn.

An eigenvalue's residual and a trace's standard error over probes are those of the Hessian of the
samples at hand. Another draw of as many samples has another Hessian.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.hessian.eigenpairs import CONFIRM, top_eigenpairs
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.of_problem import ProblemOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.vectors import probe_vector
from isoloss.landscape.batches import Samples
from isoloss.landscape.kernels import is_of_cudnn_recurrence, second_derivatives, without_cudnn
from isoloss.landscape.problem import Problem
from isoloss.landscape.terms import Terms
from isoloss.landscape.vectors import unflatten

# Test vectors of the trace: their own noise is taken out, 4 leave enough pairs for that.
PROBES = 4
# Far above the rounding of a batch's sum, far below a part that is missing.
SUM_TOLERANCE = 1e-2
# Of the halves' residuals: errors of eigenvalues are of second order in it.
HALF_TOL = 1e-3


class SampleErrorUnavailableError(IsolossError, RuntimeError):
    """A problem whose samples have no curvatures of their own, or none that can be computed."""


@dataclass(frozen=True)
class SampleError:
    """A mean over samples with its standard error over draws of as many.

    Attributes:
        value: The mean.
        standard_error: Of the value; NaN for a single sample.
        count: Number of samples.
    """

    value: float
    standard_error: float
    count: int


# u -> (u^T A_i u, w_i) of each sample, for a matrix A = sum_i A_i / sum_i w_i.
Curvatures = Callable[[Tensor], Terms]


def sample_error(
    problem: Problem,
    direction: Tensor,
    *,
    population: int | None = None,
    curvatures: Curvatures | None = None,
) -> SampleError:
    r"""Estimate u^T H u and its standard error over draws of the samples.

    With u an eigenvector of a simple eigenvalue lambda that of lambda, to first order in the
    change of H (the delta method): d lambda = u^T dH u. The first order suffices where the gap to
    the next eigenvalue is several standard errors; within a cluster of eigenvalues it is the
    error of u^T H u at fixed u only. With H = sum_i H_i / sum_i w_i,

        s.e. = sqrt(1/(n - 1) sum_i r_i^2 / n (1 - n/N)),   r_i = (u^T H_i u - lambda w_i) / mean w,

    which for weights of 1 is s / sqrt(n) times the finite-population factor (the ratio estimator;
    Cochran 1977, sections 2.6 and 6.3). It takes the samples as drawn at random without
    replacement: for a sample stratified by classes it errs on the large side.

    Args:
        problem: The loss over n samples, batch norm under `"eval"`.
        direction: u, shape (size,), in the order of the problem's parameters.
        population: N, samples of the split that the n are a part of; infinite where None.
        curvatures: Those of another matrix than the Hessian, as `OutputsOperator` has them.

    Raises:
        OperatorError: If there are fewer samples in the population than in the problem.
        SampleErrorUnavailableError: If samples are coupled by batch norm, or a function of the
            network has no third derivative.
    """
    of = curvatures or functools.partial(sample_curvatures, problem)
    sums, weights = of(direction)
    return _mean_over_samples(sums[:, None], weights, population)


def trace_sample_error(
    problem: Problem,
    *,
    probes: int = PROBES,
    seed: int = 0,
    population: int | None = None,
    curvatures: Curvatures | None = None,
) -> SampleError:
    r"""Estimate tr H and the standard error of tr H over draws of the samples.

    From v_j^T H_i v_j with the first test vectors v_j of `trace` by XTrace (of norm sqrt(size)).
    The squares r_i^2 of `sample_error` are replaced by the mean of r_ij r_ik over pairs of
    different probes, whose expectation over the probes is that of the traces themselves: the
    probes' noise does not enter. Where that comes out negative (curvatures of both signs, whose
    probes are noisy), the plain spread of the averages over probes is taken, which errs on the
    large side.

    Args:
        problem: The loss over n samples, batch norm under `"eval"`.
        probes: Number of test vectors, 2 or more; a pass over the samples for each.
        seed: Seed of the test vectors.
        population: N, samples of the split that the n are a part of; infinite where None.
        curvatures: Those of another matrix than the Hessian.

    Returns:
        Mean over samples and probes, and the standard error over draws of samples alone.

    Raises:
        OperatorError: For fewer than 2 probes, or a population smaller than the sample.
        SampleErrorUnavailableError: As `sample_error`.
    """
    if probes < 2:
        raise OperatorError(f"expected 2 probes or more, got {probes}")
    size = sum(tensor.numel() for tensor in problem.parameters.values())
    columns, of = [], curvatures or functools.partial(sample_curvatures, problem)
    for index in range(probes):
        sums, weights = of(probe_vector(size, seed, index) * math.sqrt(size))
        columns.append(sums)
    return _mean_over_samples(torch.stack(columns, dim=1), weights, population)


def sampling_bias(
    problem: Problem,
    eigenvalue: float,
    *,
    population: int | None = None,
    seed: int = 0,
    operator_of: Callable[[Problem], ProblemOperator[Any]] = HessianOperator,
    max_basis: int | None = None,
    confirm: int = CONFIRM,
) -> float:
    r"""Estimate how far the largest eigenvalue of n samples lies above the split's on average.

    The largest eigenvalue is convex in H: E lambda(n samples) exceeds that of the split, to
    leading order by c (1/n - 1/N). The two halves of a random division lie above the whole by c/n:

        bias ~ (mean lambda(half) - lambda) (1 - n/N).

    One division gives its size, not its digits.

    Args:
        problem: The loss over n samples in tensors or dicts, batch norm under `"eval"`.
        eigenvalue: lambda of the n samples.
        population: N, samples of the split that the n are a part of; infinite where None.
        seed: Seed of the division and of the start vectors.
        operator_of: Makes the matrix, linear in the samples, that the eigenvalue is of.
        max_basis: As that of `top_eigenpairs`.
        confirm: As that of `top_eigenpairs`.

    Returns:
        The bias, to be subtracted from lambda; NaN for fewer than 4 samples.

    Raises:
        ProblemError: If samples are coupled by batch norm.
        BatchError: If single samples cannot be cut out (graphs).
    """
    n = problem.count
    if n < 4:
        return math.nan
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    values = []
    for half in (order[: n // 2], order[n // 2 : 2 * (n // 2)]):
        with operator_of(problem.part(half.sort().values)) as operator:
            top = top_eigenpairs(
                operator, 1, tol=HALF_TOL, seed=seed, max_basis=max_basis, confirm=confirm
            )
            values.append(float(top.eigenvalues))
    part = 0.0 if population is None else n / population
    return (sum(values) / 2 - eigenvalue) * (1 - part)


def sample_curvatures(problem: Problem, direction: Tensor) -> Terms:
    r"""Return u^T H_i u, the second derivative of each sample's loss along u, and its weight.

    Exact, in one pass over the plan's product batches: u^T H(c) u with H(c) = sum_i c_i H_i is
    formed as for a product with H, and its derivative by c_i is u^T H_i u. (Forward
    differentiation twice would need less memory, but has no rule for some activations, and a wrong
    one for layer norm as of torch 2.15.) sum_i u^T H_i u / sum_i w_i = u^T H u.

    Args:
        problem: The loss, batch norm under `"eval"`.
        direction: u, shape (size,).

    Returns:
        Sums u^T H_i u and weights w_i, (count,) float64 on the CPU.

    Raises:
        OperatorError: If the direction does not fit.
        SampleErrorUnavailableError: As `sample_error`.
    """
    point = problem.parameters
    size = sum(tensor.numel() for tensor in point.values())
    if direction.shape != (size,):
        raise OperatorError(f"expected a direction of shape ({size},), got {direction.shape}")
    parts = unflatten(direction.detach().to(problem.device, problem.dtype), point)
    if problem.bn != "eval":
        raise SampleErrorUnavailableError(
            f"batch norm under the policy {problem.bn!r} couples the samples: none has a "
            "curvature of its own"
        )
    try:
        return _all_curvatures(problem, parts)
    except RuntimeError as error:
        if not is_of_cudnn_recurrence(error):
            if "derivative for" not in str(error):
                raise
            raise SampleErrorUnavailableError(
                f"a function of the network has no third derivative: {str(error).splitlines()[0]}"
            ) from error
    with without_cudnn():
        return _all_curvatures(problem, parts)


def _all_curvatures(problem: Problem, parts: dict[str, Tensor]) -> Terms:
    buffers = problem.buffers_at(problem.parameters)
    columns: list[Tensor] = []
    with torch.enable_grad(), second_derivatives():
        for batch in problem.product_batches():
            terms = _curvatures(problem, parts, batch, buffers)
            columns.append(torch.stack([t.cpu().double() for t in terms]))
    sums, weights = problem.group.side_by_side(torch.cat(columns, dim=1))
    return Terms(sums, weights)


def _curvatures(
    problem: Problem, parts: dict[str, Tensor], batch: Samples, buffers: dict[str, Tensor]
) -> Terms:
    """Return the terms of one batch."""
    leaves = {n: t.detach().requires_grad_() for n, t in problem.parameters.items()}
    terms = problem.loss_terms(leaves, batch, buffers)
    shares = torch.ones_like(terms.sums, requires_grad=True)
    form = (shares * terms.sums).sum()
    for _ in range(2):
        if not form.requires_grad:
            break
        gradients = torch.autograd.grad(
            form, list(leaves.values()), create_graph=True, materialize_grads=True
        )
        form = sum(
            ((g * u).sum() for g, u in zip(gradients, parts.values(), strict=True)),
            torch.zeros((), dtype=problem.dtype, device=problem.device),
        )
    curvatures = torch.zeros_like(terms.sums)
    if form.requires_grad:
        (curvatures,) = torch.autograd.grad(form, [shares], materialize_grads=True)
    whole, size = float(form.detach()), float(curvatures.abs().sum())
    if abs(float(curvatures.sum()) - whole) > SUM_TOLERANCE * max(size, abs(whole)):
        # torch leaves out, silently, what a function marked as differentiable once contributes.
        raise SampleErrorUnavailableError(
            "the curvatures of single samples do not add up to that of all: a function of the "
            "network has no third derivative"
        )
    return Terms(curvatures, terms.weights)


def _mean_over_samples(values: Tensor, weights: Tensor, population: int | None) -> SampleError:
    """Return the ratio estimate of values (n, probes) with its error over samples."""
    n, probes = values.shape
    if population is not None and population < n:
        raise OperatorError(f"expected a population of {n} or more samples, got {population}")
    total = float(weights.sum())
    means = values.sum(0) / total
    value = float(means.mean())
    if n < 2:
        return SampleError(value, math.nan, n)
    residuals = (values - means * weights[:, None]) * (n / total)
    squares = plain = float(residuals.mean(1).square().sum())
    if probes > 1:
        own = float(residuals.square().sum()) / probes**2
        squares = (plain - own) * probes / (probes - 1)
    part = 0.0 if population is None else n / population
    variance = (plain if squares < 0 else squares) / (n - 1) / n * (1 - part)
    return SampleError(value, math.sqrt(variance), n)
