"""The curvature at one moment of a training, its search begun where the one before ended."""

from __future__ import annotations

import math
from dataclasses import dataclass

from isoloss.hessian.asked import Measured, Searched
from isoloss.hessian.eigenpairs import Eigenpairs, top_eigenpairs, warm_start
from isoloss.hessian.operators.combined import ShiftedOperator
from isoloss.hessian.operators.named import named_operator
from isoloss.hessian.operators.protocol import LinearOperator
from isoloss.hessian.trace import Trace, trace
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import norm
from isoloss.records.progress import Progress

# Apart from the seeds of the searches before, which count up from the seed asked for.
_COLD = 10**6


@dataclass(frozen=True)
class Moment:
    """The curvature at the weights of one moment.

    Attributes:
        loss: L, without weight decay.
        gradient_norm: ||grad L||, without weight decay.
        pairs: Largest eigenpairs of A + s I; None where the loss is not finite.
        trace: Of A + s I; None if not asked for, or where the loss is not finite.
    """

    loss: float
    gradient_norm: float
    pairs: Eigenpairs | None
    trace: Trace | None


def curvature_at(
    problem: Problem,
    wanted: Measured,
    *,
    shift: float = 0.0,
    index: int = 0,
    before: Eigenpairs | None = None,
    progress: Progress | None = None,
) -> Moment:
    """Compute loss, gradient norm, largest eigenpairs and trace of A + s I at a problem's weights.

    Args:
        problem: The loss as a function of the weights, at those of the moment.
        wanted: What to compute.
        shift: s, the coefficient of a coupled weight decay.
        index: Of the moment: each has random vectors of its own, of one seed.
        before: Eigenpairs at the moment before, which the search begins from; random where None.
        progress: Called as `progress(products, max_products)`.

    Raises:
        OperatorError: For arguments out of range.
    """
    loss = problem.evaluate().loss
    if not math.isfinite(loss):
        return Moment(loss, math.nan, None, None)
    length = norm(problem.gradient())
    seed = wanted.seed + index
    with named_operator(problem, wanted.operator, wanted.seed) as plain:
        operator = ShiftedOperator(plain, shift) if shift else plain
        pairs = largest_pairs(operator, wanted, seed, before, progress)
        found = None
        if wanted.trace_budget:
            found = trace(
                operator,
                relative_error=wanted.trace_error,
                budget=wanted.trace_budget,
                seed=seed,
            )
    return Moment(loss, length, pairs, found)


def cold_pairs(
    problem: Problem, wanted: Measured, *, shift: float = 0.0, progress: Progress | None = None
) -> Eigenpairs:
    """Compute the eigenpairs of `curvature_at` from a random vector: what a warm start saves."""
    with named_operator(problem, wanted.operator, wanted.seed) as plain:
        operator = ShiftedOperator(plain, shift) if shift else plain
        return largest_pairs(operator, wanted, wanted.seed + _COLD, None, progress)


def largest_pairs(
    operator: LinearOperator,
    wanted: Searched,
    seed: int,
    before: Eigenpairs | None = None,
    progress: Progress | None = None,
) -> Eigenpairs:
    """Compute largest eigenpairs, beginning from those at weights nearby where there are any.

    Args:
        operator: The matrix.
        wanted: What to compute, the seed excepted.
        seed: Of random vectors.
        before: Eigenpairs nearby; a random start where None.
        progress: Called as `progress(products, max_products)`.

    Raises:
        OperatorError: For arguments out of range.
    """
    return top_eigenpairs(
        operator,
        wanted.top,
        tol=wanted.tol,
        max_products=max(wanted.max_products, wanted.top),
        seed=seed,
        start=None if before is None else warm_start(before, seed),
        progress=progress,
    )
