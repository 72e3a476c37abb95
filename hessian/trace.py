"""Stochastic trace estimation: XTrace, Hutch++ and Hutchinson's estimator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from isoloss.hessian.operators.protocol import LinearOperator, NonFiniteProductError, OperatorError
from isoloss.hessian.trace_samplers import METHODS, CountedOperator, RankReachedError
from isoloss.records.progress import Progress

# A standard error from 8 samples is itself known to about a quarter, 1 / sqrt(2 * 7): enough to
# say how many it takes,
PILOT = 8
# some more than that, so that it suffices as a rule,
MARGIN = 1.2
# and no fewer than this.
LEAST = 12


@dataclass(frozen=True)
class Trace:
    """An estimate of tr A.

    Attributes:
        value: The estimate.
        standard_error: Of the value, over test vectors; 2 of it cover the trace in about 95 of 100
            cases. 0 where nothing was sampled (the reason says so).
        samples: Number of values averaged, without the pilot's.
        products: Products with A that were spent.
        converged: Whether the standard error met the requested relative error.
        reason: Why it stopped, and what to do where it did not converge.
        method: Name of the method.
        settings: Arguments the result depends on.
    """

    value: float
    standard_error: float
    samples: int
    products: int
    converged: bool
    reason: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Trace(value={self.value:.6g}, standard_error={self.standard_error:.2g}, "
            f"samples={self.samples}, products={self.products}, converged={self.converged})"
        )


def trace(
    operator: LinearOperator,
    *,
    method: str = "xtrace",
    relative_error: float = 0.05,
    budget: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trace:
    """Estimate the trace of a symmetric matrix of size n.

    A pilot of 8 samples says how many fresh ones it takes for a standard error of
    `relative_error |value|`, at least 12 and as many as the budget allows; these estimate value
    and error. (To stop at the first moment where the error happens to look small biases it.) Where
    the error turns out larger than the pilot had it, more are added. The pilot's products
    stay in the bases; a budget of fewer than 20 samples goes without a pilot.

    The standard error includes that it is itself estimated (Student's t): an interval of 2
    standard errors is meant to cover the trace as often as for a Gaussian of known width, 95 %.

    - `"xtrace"` (Epperly, Tropp & Webber 2024, SIAM J. Matrix Anal. Appl. 45, section 2): each
      test vector in turn is left out of the basis that deflates A, and estimates what the basis
      misses; two products a sample. The values share their bases: the standard error counts their
      covariance, estimated without bias by leaving out pairs (`XTrace.estimate`).
    - `"hutch++"` (Meyer, Musco, Musco & Woodruff 2021, SOSA): one third of the products spans a
      deflating basis, one third finishes it, one third samples the rest. Given the basis the
      samples are independent: the standard error is the usual one.
    - `"hutchinson"` (Hutchinson 1990): mean of z^T A z over random signs z, independent samples,
      the usual standard error; it falls as 1 / sqrt(products) only.

    Where the budget allows n products, the diagonal is summed instead, which is exact. Where the
    basis of the first two methods reaches the rank of A, the value is exact to rounding.

    Example:
        >>> from isoloss.hessian.operators.matrix import MatrixOperator
        >>> trace(MatrixOperator(torch.diag(torch.tensor([1.0, 2.0])))).value
        3.0

    Args:
        operator: The symmetric matrix A.
        method: `"xtrace"`, `"hutch++"` or `"hutchinson"`.
        relative_error: Requested standard error over |value|.
        budget: Products to spend at most.
        seed: Seed of the test vectors.
        progress: Called as `progress(products, budget)`.

    Returns:
        The estimate; not converged, with the reason, where the budget did not suffice, and NaN
        where a product was not finite.

    Raises:
        OperatorError: For an unknown method or arguments out of range.
    """
    if method not in METHODS:
        raise OperatorError(f"expected a method among {', '.join(METHODS)}, got {method!r}")
    if not relative_error > 0:
        raise OperatorError(f"expected relative_error > 0, got {relative_error}")
    counted = CountedOperator(operator, budget, progress)
    settings = {"relative_error": relative_error, "budget": budget, "seed": seed}

    def result(value: float, error: float, samples: int, converged: bool, reason: str) -> Trace:
        return Trace(value, error, samples, counted.products, converged, reason, method, settings)

    sampler = METHODS[method](counted, seed)
    largest = budget // sampler.cost
    if largest < 2 and operator.size > budget:
        raise OperatorError(
            f"expected a budget of {2 * sampler.cost} products or more (two samples by {method}), "
            f"got {budget}"
        )
    try:
        if operator.size <= budget:
            value = _exact(counted)
            reason = f"exact: the diagonal was summed with {operator.size} unit-vector products"
            return result(value, 0.0, operator.size, True, reason)
        pilot = PILOT if largest >= PILOT + LEAST else 0
        count = largest
        if pilot:
            sampler.grow(pilot)
            count = pilot + _needed(*sampler.estimate(), PILOT, relative_error, largest - pilot)
        while True:
            sampler.grow(count)
            value, error = sampler.estimate(pilot)
            fresh = count - pilot
            if error <= relative_error * abs(value):
                reason = f"the standard error is within {relative_error:g} |value|"
                return result(value, error, fresh, True, reason)
            if count == largest:
                reason = (
                    f"the budget of {budget} products was spent at a relative error of "
                    f"{error / abs(value) if value else math.inf:.2g}\n"
                    "raise the budget or the requested relative error (a trace near 0, from "
                    "eigenvalues of both signs, has no small relative error)"
                )
                return result(value, error, fresh, False, reason)
            count = pilot + _needed(value, error, fresh, relative_error, largest - pilot)
    except RankReachedError as reached:
        return result(reached.value, 0.0, reached.rank, True, f"exact to rounding: {reached}")
    except NonFiniteProductError as failure:
        return result(math.nan, math.nan, 0, False, str(failure))


def _needed(value: float, error: float, samples: int, relative_error: float, largest: int) -> int:
    """Return how many samples should do, where `samples` of them had this error."""
    if error >= relative_error * abs(value) * math.sqrt(largest / samples):
        return largest
    ratio = error / (relative_error * abs(value))
    wanted = math.ceil(MARGIN * samples * ratio**2)
    return min(max(LEAST, wanted), largest)


def _exact(counted: CountedOperator) -> float:
    operator = counted.operator
    unit = torch.zeros(operator.size, dtype=operator.dtype, device=operator.device)
    diagonal = []
    for index in range(operator.size):
        unit[index] = 1
        diagonal.append(float(counted.product(unit)[index]))
        unit[index] = 0
    return math.fsum(diagonal)
