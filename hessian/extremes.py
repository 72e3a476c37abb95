"""The extreme eigenvalues of the Hessian at each point of a surface."""

from __future__ import annotations

from typing import Any

import torch

from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.landscape.columns import Point, Problems, first

# Residual asked for in float64, relative to the eigenvalue.
IN_DOUBLE = 1e-6


class ExtremeEigenvalues:
    """`max_eig` and `min_eig`, algebraically largest and smallest, of the loss of the first split.

    Li et al. 2018 (section 6) map |min_eig / max_eig| over a plane: where it is small the loss is
    near to convex. `max_eig_residual` and `min_eig_residual` bound the errors of the solver: an
    eigenvalue of the Hessian lies within a residual's distance of each value. Where products did
    not suffice they are large; where a product is not finite all four are NaN.

    The Lanczos process starts from the same random vector at each point, so that a value depends on
    its point alone.

    Args:
        tol: Residual asked for, relative to the eigenvalue. None: 1e-6 in float64; otherwise 1e-4,
            of the smallest 1e-5 of the norm, or what the products allow (see
            `hessian.eigenpairs`). The error of an eigenvalue that stands apart is of second order
            in its residual.
        max_products: Products at a point after which to stop.
        seed: Of the start vector.
    """

    def __init__(self, *, tol: float | None = None, max_products: int = 300, seed: int = 0) -> None:
        self.tol, self.max_products, self.seed = tol, max_products, seed

    def names(self, problems: Problems) -> tuple[str, ...]:
        """Return the names of the columns."""
        return ("max_eig", "min_eig", "max_eig_residual", "min_eig_residual")

    def values(self, problems: Problems, point: Point) -> tuple[float, ...]:
        """Return both eigenvalues, then their residuals."""
        problem = first(problems)
        tol = IN_DOUBLE if self.tol is None and problem.dtype == torch.float64 else self.tol
        with HessianOperator(problem, at=point) as hessian:
            pairs = top_eigenpairs(
                hessian,
                k=1,
                smallest=1,
                tol=tol,
                max_products=self.max_products,
                confirm=0,  # copies of an extreme eigenvalue have its value
                seed=self.seed,
            )
        assert pairs.smallest_eigenvalues is not None
        assert pairs.smallest_residuals is not None
        ends = (
            pairs.eigenvalues, pairs.smallest_eigenvalues,
            pairs.residuals, pairs.smallest_residuals,
        )  # fmt: skip
        return tuple(float(end[0]) for end in ends)

    def settings(self) -> dict[str, Any]:
        """Return that they are there, and how they are computed."""
        made = {"tol": self.tol, "max_products": self.max_products, "seed": self.seed}
        return {"eigenvalues": made}
