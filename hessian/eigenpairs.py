"""Extreme eigenpairs by thick-restart Lanczos."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isoloss.hessian.lanczos import LanczosBasis, Ritz
from isoloss.hessian.operators import (
    LinearOperator,
    NonFiniteProductError,
    OperatorError,
    Progress,
    norm,
    unit_roundoff,
)

# The basis grows to what usually converges without a restart, within this memory.
BASIS_BYTES = 2 * 2**30
# Residuals below this many roundings of the norm are noise: no eigenvalue is asked for better.
ROUNDINGS = 10


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenpairs of a symmetric matrix A of size n.

    Attributes:
        eigenvalues: (k,) float64, algebraically largest, descending.
        residuals: (k,) float64, bounds of ||A u - lambda u||. An eigenvalue of A lies within a
            residual's distance of each value.
        eigenvectors: (n, k) unit columns, the entry of largest magnitude positive.
        smallest_eigenvalues: (s,) float64, algebraically smallest, ascending; None if not asked.
        smallest_residuals: (s,) as `residuals`.
        smallest_eigenvectors: (n, s) as `eigenvectors`.
        converged: Whether every residual met the tolerance.
        reason: Why it stopped, and what to do where it did not converge.
        products: Products with A that were spent.
        settings: Arguments the result depends on.
    """

    eigenvalues: Tensor
    residuals: Tensor
    eigenvectors: Tensor
    smallest_eigenvalues: Tensor | None
    smallest_residuals: Tensor | None
    smallest_eigenvectors: Tensor | None
    converged: bool
    reason: str
    products: int
    settings: dict[str, Any] = field(default_factory=dict)


def top_eigenpairs(
    operator: LinearOperator,
    k: int = 5,
    *,
    smallest: int = 0,
    tol: float = 1e-4,
    max_products: int = 300,
    max_basis: int | None = None,
    confirm: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Eigenpairs:
    r"""Compute the algebraically largest eigenpairs, and the smallest where asked.

    Thick-restart Lanczos (Wu & Simon 2000) with full reorthogonalisation. A pair has converged
    when ||A u - lambda u|| <= max(tol |lambda|, 10 eps ||A||); the error of its eigenvalue is then
    at most that, and of second order in it where the eigenvalue stands apart. Convergence is
    looked for after every product.

    Where the Krylov space becomes invariant, the search goes on from fresh random vectors until
    one of them, too, ends in an invariant subspace without changing the result: repeated
    eigenvalues, full spectra of small matrices and the zero matrix are found so. A matrix with
    exactly repeated eigenvalues *and* many other ones never gets there, and any method that starts
    from a single vector then finds each of them once: `confirm` looks for further copies.

    Example:
        >>> from hessian.operators import MatrixOperator
        >>> pairs = top_eigenpairs(MatrixOperator(torch.diag(torch.tensor([1.0, 3.0, 2.0]))), k=2)
        >>> pairs.eigenvalues
        tensor([3., 2.], dtype=torch.float64)

    Args:
        operator: The symmetric matrix A, of size n.
        k: Number of largest pairs, 1 to n.
        smallest: Number of algebraically smallest pairs, 0 to n.
        tol: Relative residual asked for.
        max_products: Products after which to stop without convergence.
        max_basis: Vectors held at most. None: twice the number of pairs and 40 more, fewer where
            that exceeds 2 GiB. More needs fewer products.
        confirm: Products spent, after convergence, on a new random start orthogonal to the pairs
            found, in search of repeated eigenvalues. 0 where repetition is out of the question.
        seed: Seed of the starting vectors.
        progress: Called as `progress(products, max_products)`.

    Returns:
        The pairs; not converged, with the reason, where the products did not suffice, and NaN
        where a product was not finite.

    Raises:
        OperatorError: If the arguments ask for what cannot be.
    """
    n, wanted = operator.size, k + smallest
    least = min(n, wanted + 3)
    if not 1 <= k <= n or not 0 <= smallest <= n:
        raise OperatorError(
            f"expected k from 1 to {n} and smallest from 0 to {n}, the operator's size, "
            f"got k = {k} and smallest = {smallest}"
        )
    if tol <= 0 or confirm < 0:
        raise OperatorError(f"expected tol > 0 and confirm >= 0, got {tol} and {confirm}")
    if max_products < min(wanted, n):
        raise OperatorError(
            f"expected max_products of {min(wanted, n)} or more for {wanted} pairs, "
            f"got {max_products}"
        )
    if max_basis is None:
        affordable = BASIS_BYTES // (n * operator.dtype.itemsize)
        max_basis = max(least, min(2 * wanted + 40, affordable))
    if max_basis < least:
        raise OperatorError(
            f"expected max_basis of {least} or more for {wanted} pairs, got {max_basis}"
        )
    settings = {
        "k": k,
        "smallest": smallest,
        "tol": tol,
        "max_products": max_products,
        "max_basis": max_basis,
        "confirm": confirm,
        "seed": seed,
    }
    search = _Search(LanczosBasis(operator, max_basis, seed=seed), k, smallest, tol, confirm)
    try:
        while not search.finished(max_products):
            search.advance()
            if progress is not None:
                progress(search.basis.products, max_products)
    except NonFiniteProductError as error:
        return _not_finite(operator, k, smallest, str(error), search.basis.products + 1, settings)
    return search.result(settings)


class _Search:
    """The state of a search: a basis, and the pairs wanted from it."""

    def __init__(
        self, basis: LanczosBasis, k: int, smallest: int, tol: float, confirm: int
    ) -> None:
        self.basis = basis
        self._k, self._smallest, self._tol, self._confirm = k, smallest, tol, confirm
        self._repeats = confirm > 0  # whether repeated eigenvalues are looked for
        self._known: Tensor | None = None  # the wanted values when the present start was made
        self._started = 0  # products at that start
        # Products after which a start that has converged is ended; otherwise only a break ends it.
        self._due = 0.0 if confirm else math.inf
        self._ritz: Ritz | None = None
        self.converged = False
        self.reason = ""

    def advance(self) -> None:
        """Spend one product, making room first where the basis is full."""
        if self.basis.full:
            self._restart()
        self.basis.step()

    def finished(self, max_products: int) -> bool:
        """Decide whether to stop, and begin a new start where one is due."""
        basis = self.basis
        self._repeats |= basis.broken
        if basis.count < min(self._k + self._smallest, basis.operator.size):
            return False
        ritz = self._ritz = basis.ritz()
        chosen = self._chosen(ritz)
        values, residuals = ritz.values[chosen], ritz.residuals[chosen]
        noise = ROUNDINGS * unit_roundoff(basis.operator) * basis.norm
        limits = (self._tol * values.abs()).clamp(min=noise)
        met = residuals <= limits
        self.converged = bool(met.all())
        if basis.complete:
            self.converged = True
            self.reason = "the basis spans the whole space: the spectrum is exact to rounding"
            return True
        within = f"every residual is within {self._tol:g} |lambda|"
        if bool((residuals > self._tol * values.abs()).any()):
            within += f" or {ROUNDINGS} roundings of the norm"
        if self.converged and not self._repeats:
            self.reason = within
            return True
        spent = basis.products - self._started
        ended = basis.broken or (self.converged and spent >= self._due)
        changes = math.inf if self._known is None else (values - self._known).abs()
        if ended and self.converged and bool((changes <= residuals + limits).all()):
            self.reason = f"{within}, and a new random start found no further ones"
            return True
        floors = ritz.floors[chosen]
        if not self.converged and bool((met | (residuals < 2 * floors)).all()):
            self.reason = (
                f"the products are symmetric only to {float(floors.max()):.1g}, which tol = "
                f"{self._tol:g} is below\nraise tol, or compute in float64"
            )
            return True
        if basis.products >= max_products:
            self.reason = (
                f"{within}, but max_products left none to look for repeated eigenvalues"
                if self.converged
                else f"{int(met.sum())} of {len(met)} pairs converged within {max_products} "
                "products\nraise max_products or tol, or ask for fewer pairs (those inside a "
                "dense bulk of eigenvalues converge slowly)"
            )
            return True
        if ended:
            if not basis.broken:
                basis.restart(ritz.vectors[:, chosen.unique()], fresh=True)
            self._known, self._started = values, basis.products
            self._due = self._confirm or math.inf
        return False

    def result(self, settings: dict[str, Any]) -> Eigenpairs:
        """Assemble the pairs of the last check."""
        assert self._ritz is not None
        ritz, k = self._ritz, self._k
        chosen = self._chosen(ritz)
        rows = self.basis.combine(ritz.vectors[:, chosen])
        rows = torch.stack([row / norm(row) for row in rows])
        largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
        columns = (rows * largest.sign()).T
        values, residuals = ritz.values[chosen], ritz.residuals[chosen]
        asked = self._smallest > 0
        return Eigenpairs(
            eigenvalues=values[:k],
            residuals=residuals[:k],
            eigenvectors=columns[:, :k],
            smallest_eigenvalues=values[k:] if asked else None,
            smallest_residuals=residuals[k:] if asked else None,
            smallest_eigenvectors=columns[:, k:] if asked else None,
            converged=self.converged,
            reason=self.reason,
            products=self.basis.products,
            settings=settings,
        )

    def _chosen(self, ritz: Ritz) -> Tensor:
        """Positions of the wanted values: the k largest, descending, then the smallest ones."""
        m = len(ritz.values)
        return torch.cat([torch.arange(m - 1, m - 1 - self._k, -1), torch.arange(self._smallest)])

    def _restart(self) -> None:
        """Keep the wanted Ritz vectors and half of the others, next to the wanted ends."""
        ritz = self.basis.ritz()
        m = self.basis.count
        spare = max(0, min((m - self._k - self._smallest) // 2, m - self._k - self._smallest - 2))
        low = self._smallest + (spare // 2 if self._smallest else 0)
        high = self._k + spare - (low - self._smallest)
        kept = torch.cat([torch.arange(low), torch.arange(m - high, m)])
        self.basis.restart(ritz.vectors[:, kept])


def _not_finite(
    operator: LinearOperator,
    k: int,
    smallest: int,
    reason: str,
    products: int,
    settings: dict[str, Any],
) -> Eigenpairs:
    values = torch.full((k + smallest,), torch.nan, dtype=torch.float64)
    vectors = torch.full(
        (operator.size, k + smallest), torch.nan, dtype=operator.dtype, device=operator.device
    )
    asked = smallest > 0
    return Eigenpairs(
        eigenvalues=values[:k],
        residuals=values[:k],
        eigenvectors=vectors[:, :k],
        smallest_eigenvalues=values[k:] if asked else None,
        smallest_residuals=values[k:] if asked else None,
        smallest_eigenvectors=vectors[:, k:] if asked else None,
        converged=False,
        reason=reason,
        products=products,
        settings=settings,
    )
