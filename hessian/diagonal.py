"""The diagonal of a matrix known by its products: XDiag."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to import
from torch import Tensor

from isoloss.hessian.operators.protocol import LinearOperator, NonFiniteProductError, OperatorError
from isoloss.hessian.operators.vectors import sign_vector
from isoloss.hessian.trace_samplers import CountedOperator, Range, RankReachedError, left_out
from isoloss.records.progress import Progress


@dataclass(frozen=True)
class Diagonal:
    """An estimate of the diagonal of a symmetric matrix of size n.

    Attributes:
        values: (n,) float64 on the CPU.
        standard_errors: (n,) float64, of each entry over test vectors; 2 of it cover an entry in
            about 95 of 100 cases. 0 where nothing was sampled (the reason says so).
        samples: Number of values averaged for each entry.
        products: Products with A that were spent.
        reason: What the errors are of; why the values are NaN.
        settings: Arguments the result depends on.
    """

    values: Tensor
    standard_errors: Tensor
    samples: int
    products: int
    reason: str
    settings: dict[str, Any] = field(default_factory=dict)


def diagonal(
    operator: LinearOperator, *, budget: int = 60, seed: int = 0, progress: Progress | None = None
) -> Diagonal:
    r"""Estimate the diagonal of a symmetric matrix of size n by XDiag.

    With random signs Omega (n, m), A Omega = Q R and Q_i Q_i^T the projection onto the products
    without the i-th (Epperly, Tropp & Webber 2024, SIAM J. Matrix Anal. Appl. 45, section 2.4),

        d_i = diag(Q_i Q_i^T A) + omega_i * (I - Q_i Q_i^T) A omega_i      (* entry by entry)

    has the diagonal as its mean for each i, and the estimate is the mean over i. Two products each.
    The values share their bases: as in `trace`, the standard error of an entry counts their
    covariance, estimated without bias from values with two vectors left out, and Student's factor.

    Where the budget allows n products, or the products span A's range, the diagonal is exact to
    rounding. Four arrays of size (n, budget / 2) are held, two of them in float64.

    Example:
        >>> from isoloss.hessian.operators.matrix import MatrixOperator
        >>> diagonal(MatrixOperator(torch.diag(torch.tensor([1.0, 2.0])))).values
        tensor([1., 2.], dtype=torch.float64)

    Args:
        operator: The symmetric matrix A.
        budget: Products to spend at most, 6 or more, or n.
        seed: Seed of the test vectors.
        progress: Called as `progress(products, budget)`.

    Returns:
        The estimate; NaN, with the reason, where a product was not finite.

    Raises:
        OperatorError: If the budget allows fewer than 3 samples.
    """
    size, count = operator.size, budget // 2
    if count < 3 and size > budget:
        raise OperatorError(f"expected a budget of 6 products or more, got {budget}")
    counted = CountedOperator(operator, budget, progress)
    settings = {"budget": budget, "seed": seed}

    def result(values: Tensor, errors: Tensor, samples: int, reason: str) -> Diagonal:
        return Diagonal(values, errors, samples, counted.products, reason, settings)

    none = torch.zeros(size, dtype=torch.float64)
    try:
        if size <= budget:
            reason = f"exact: {size} unit-vector products"
            return result(_exact(counted), none, size, reason)
        basis, images = Range(counted), []
        try:
            for index in range(count):
                product = counted.product(sign_vector(operator, seed, index))
                images += [image.cpu().double() for image in basis.extend([product])]
        except RankReachedError as reached:
            rows = basis.rows.cpu().double()
            values = sum(((q * image) for q, image in zip(rows, images, strict=True)), none)
            return result(values, none, len(images), f"exact to rounding: {reached}")
    except NonFiniteProductError as error:
        nan = torch.full_like(none, math.nan)
        return result(nan, nan, 0, str(error))
    signs = torch.stack([sign_vector(operator, seed, i).cpu().double() for i in range(count)])
    values, errors = _leave_one_out(basis.rows.cpu().double(), torch.stack(images), basis.R, signs)
    return result(values, errors, count, f"standard errors over {count} test vectors")


def _exact(counted: CountedOperator) -> Tensor:
    """Return the diagonal by products with the unit vectors."""
    operator = counted.operator
    unit = torch.zeros(operator.size, dtype=operator.dtype, device=operator.device)
    values = torch.zeros(operator.size, dtype=torch.float64)
    for index in range(operator.size):
        unit[index] = 1
        values[index] = float(counted.product(unit)[index])
        unit[index] = 0
    return values


def _leave_one_out(rows: Tensor, images: Tensor, R: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the leave-one-out values and its standard errors, (n,) each.

    Q_i Q_i^T is Q Q^T - (Q s_i) (Q s_i)^T, with s_i of `left_out`; A omega_i lies in the range of
    Q, so that the rest of it beside Q_i is (Q s_i) (s_i^T R e_i).

    Args:
        rows: Q^T, (m, n).
        images: (A Q)^T, (m, n).
        R: Q^T A Omega, (m, m).
        signs: Omega^T, (m, n).
    """
    m, S = len(R), left_out(R)
    free, moved = S.T @ rows, S.T @ images  # Q s_i, A Q s_i
    whole, seen = (rows * images).sum(0), S.T @ R
    values = whole - free * moved + signs * free * seen.diagonal()[:, None]
    covariance = torch.zeros_like(whole)
    for i in range(m):
        for j in range(i):
            # Without both the basis lacks s_i and s_j: the second made orthogonal to the first.
            cosine = float(S[:, i] @ S[:, j])
            scale = 1 / math.sqrt(1 - cosine**2)
            second, image = ((x[j] - cosine * x[i]) * scale for x in (free, moved))
            shared = whole - free[i] * moved[i] - second * image
            # s_i^T R e_j = 0 for j other than i: the coordinates of A omega_i and A omega_j.
            of_i = free[i] * seen[i, i] - second * (cosine * scale * seen[i, i])
            of_j = second * (scale * seen[j, j])
            covariance += (values[i] - shared - signs[i] * of_i) * (
                values[j] - shared - signs[j] * of_j
            )
    covariance *= 2 / (m * (m - 1))
    factor = float(stdtrit(m - 1, ndtr(2))) / 2
    variance = values.var(0) / m + covariance.clamp(min=0)
    return values.mean(0), factor * variance.sqrt()
