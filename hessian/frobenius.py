"""The Frobenius norm of a matrix known by its products."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isoloss.hessian.operators.combined import SquaredOperator
from isoloss.hessian.operators.protocol import LinearOperator
from isoloss.hessian.trace import trace
from isoloss.records.progress import Progress
from isoloss.records.spectral_sums import Estimate, root


@dataclass(frozen=True)
class FrobeniusNorm:
    """An estimate of ||A||_F = sqrt(sum_i lambda_i^2).

    Attributes:
        value: The estimate.
        standard_error: Of the value, over test vectors, by the delta method.
        samples: Number of values averaged.
        products: Products with A that were spent.
        converged: Whether the standard error met the requested relative error.
        reason: Why it stopped; its products and errors are those of A^2.
        settings: Arguments the result depends on.
    """

    value: float
    standard_error: float
    samples: int
    products: int
    converged: bool
    reason: str
    settings: dict[str, Any] = field(default_factory=dict)


def frobenius_norm(
    operator: LinearOperator,
    *,
    method: str = "xtrace",
    relative_error: float = 0.05,
    budget: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> FrobeniusNorm:
    """Estimate the Frobenius norm of a symmetric matrix of size n.

    The root of tr A^2, by XTrace (`trace`), whose products with A^2 are two with A each: its
    deflation matters the more as squares set a few eigenvalues apart. Exact for budgets of 2 n.

    Example:
        >>> import torch
        >>> from isoloss.hessian.operators.matrix import MatrixOperator
        >>> frobenius_norm(MatrixOperator(torch.diag(torch.tensor([3.0, -4.0])))).value
        5.0

    Args:
        operator: The symmetric matrix A.
        method: Of `trace`.
        relative_error: Requested standard error over the value.
        budget: Products with A to spend at most.
        seed: Seed of the test vectors.
        progress: Called as `progress(products, budget)`.

    Returns:
        The estimate; not converged, with the reason, where the budget did not suffice, and NaN
        where a product was not finite.

    Raises:
        OperatorError: For an unknown method, or arguments out of range, such as a budget below 8
            and 2 n.
    """
    doubled = None if progress is None else lambda done, total: progress(2 * done, 2 * total)
    squared = trace(
        SquaredOperator(operator),
        method=method,
        relative_error=2 * relative_error,  # of a square: twice that of its root
        budget=budget // 2,
        seed=seed,
        progress=doubled,
    )
    found = root(Estimate(squared.value, squared.standard_error))
    return FrobeniusNorm(
        value=found.value,
        standard_error=found.standard_error or 0.0,
        samples=squared.samples,
        products=2 * squared.products,
        converged=squared.converged,
        reason=squared.reason,
        settings={"relative_error": relative_error, "budget": budget, "seed": seed}
        | ({} if method == "xtrace" else {"method": method}),
    )
