"""Extreme eigenpairs by thick-restart Lanczos."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isoloss.hessian.lanczos import LanczosBasis, Ritz
from isoloss.hessian.operators.protocol import (
    LinearOperator,
    NonFiniteProductError,
    OperatorError,
    unit_roundoff,
)
from isoloss.hessian.operators.vectors import norm
from isoloss.records.progress import Progress
from isoloss.records.tables import data_frame, eigenvalue_rows, eigenvalue_text

if TYPE_CHECKING:
    import pandas as pd

# The basis grows to what usually converges without a restart, within this memory.
BASIS_BYTES = 2 * 2**30
# Residuals below this many roundings of the norm are noise: no eigenvalue is asked for better.
ROUNDINGS = 10
# Residual asked for where no tolerance is given, relative to the eigenvalue,
DEFAULT_TOL = 1e-4
# of the smallest relative to the norm (their neighbours are near, what they are asked for is sign
# and size),
OF_THE_NORM = 1e-5
# and the largest asymmetry of products, in roundings of the norm, that then passes for rounding.
ATTAINABLE_ROUNDINGS = 10_000
# A start's component along a given direction is below this many of its root mean square, 1/sqrt(n),
# once in 1000: the chance that a search overlooks a copy.
OVERLOOKED = 0.00125
DISTINCT = "distinct eigenvalues: copies were not searched for"


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
        copies: `"searched"` where repeated eigenvalues were looked for and would be listed as
            often as they occur; `"not searched"` where the eigenvalues are distinct ones.
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
    copies: str = "not searched"
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return eigenvalue_text(self._rows(), self.converged, self.reason)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a pandas data frame with columns `end`, `eigenvalue` and `residual`."""
        return data_frame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        smallest = (self.smallest_eigenvalues, self.smallest_residuals)
        return eigenvalue_rows((self.eigenvalues, self.residuals), smallest)


def top_eigenpairs(
    operator: LinearOperator,
    k: int = 5,
    *,
    smallest: int = 0,
    tol: float | None = None,
    max_products: int = 300,
    max_basis: int | None = None,
    confirm: int = 30,
    seed: int = 0,
    progress: Progress | None = None,
) -> Eigenpairs:
    r"""Compute the algebraically largest eigenpairs, and the smallest where asked.

    Thick-restart Lanczos (Wu & Simon 2000) with full reorthogonalisation. A pair has converged
    when ||A u - lambda u|| <= max(tol |lambda|, 10 eps ||A||); the error of its eigenvalue is then
    at most that, and of second order in it where the eigenvalue stands apart. Convergence is
    looked for after every product. Products with some networks are symmetric to a few thousand
    roundings only, and no residual falls below their asymmetry: without a `tol`, twice what is
    measured of it counts as converged, too, up to 10,000 roundings of the norm; so does, of the
    smallest eigenvalues, which lie next to many others of their size, 1e-5 of the norm.

    A single start finds repeated eigenvalues once: the copies are orthogonal to its whole Krylov
    space. After convergence a new random start therefore searches the complement of the basis,
    until a copy shows (then the search starts again) or none can be there but with a component in
    the start so small as chance makes it once in 1000 (`LanczosBasis.unseen_weight`). On spectra
    with outliers this takes about a third as many products again; it is given up after `confirm`
    products where the eigenvalue wanted last lies in a dense bulk. `copies` says which.

    Example:
        >>> from isoloss.hessian.operators.matrix import MatrixOperator
        >>> pairs = top_eigenpairs(MatrixOperator(torch.diag(torch.tensor([1.0, 3.0, 2.0]))), k=2)
        >>> pairs.eigenvalues.round(decimals=6)
        tensor([3., 2.], dtype=torch.float64)

    Args:
        operator: The symmetric matrix A, of size n.
        k: Number of largest pairs, 1 to n.
        smallest: Number of algebraically smallest pairs, 0 to n.
        tol: Relative residual asked for. None: 1e-4, or what the products allow.
        max_products: Products after which to stop without convergence.
        max_basis: Vectors held at most. None: twice the number of pairs and 40 more, fewer where
            that exceeds 2 GiB. More needs fewer products.
        confirm: Products spent at most, after convergence, on each new random start in search of
            repeated eigenvalues. 0 where repetition is out of the question.
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
    if (tol is not None and not tol > 0) or confirm < 0:
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


@dataclass(frozen=True)
class _Found:
    """Converged pairs: what they are, and what they are within."""

    values: Tensor
    residuals: Tensor
    limits: Tensor
    within: str


class _Search:
    """The state of a search: a basis, the pairs wanted from it, and those found.

    Once the wanted pairs have converged they become the first rows of the basis, and stay there
    unchanged while a new random start looks for copies of them in their complement.
    """

    def __init__(
        self, basis: LanczosBasis, k: int, smallest: int, tol: float | None, confirm: int
    ) -> None:
        self.basis = basis
        self._k, self._smallest, self._tol, self._confirm = k, smallest, tol, confirm
        self._found: _Found | None = None  # what a new random start is to confirm
        self._began = 0  # row of the basis at which that start began
        self._ritz: Ritz | None = None
        self.converged = False
        self.copies_searched = False
        self.reason = ""

    def advance(self) -> None:
        """Spend one product, making room first where the basis is full."""
        if self.basis.full:
            self._restart()
        self.basis.step()

    def finished(self, max_products: int) -> bool:
        """Decide whether to stop, and begin a new start where one is due."""
        basis = self.basis
        if basis.count < min(self._k + self._smallest, basis.operator.size):
            return False
        ritz = self._ritz = basis.ritz()
        chosen = self._chosen(ritz)
        values, residuals, skews = (x[chosen] for x in (ritz.values, ritz.residuals, ritz.skews))
        limits = self._limits(values, skews)
        if basis.complete:
            self._found, self.converged, self.copies_searched = None, True, True
            self.reason = "the basis spans the whole space: the spectrum is exact to rounding"
            return True
        if self._found is not None:
            changes = (values - self._found.values).abs()
            if bool((changes <= self._found.residuals + limits).all()):
                return self._confirmed(max_products)
            self._found = None  # copies show: on until they, too, have converged
        met = residuals <= limits
        self.converged = bool(met.all())
        within = self._accuracy(values, residuals)
        if not self.converged and bool((met | (residuals < 2 * skews)).all()):
            self.reason = (
                f"the products are symmetric only to {float(skews.max()):.1g}, which tol = "
                f"{self._tol or DEFAULT_TOL:g} is below\nraise tol, or compute in float64"
            )
            return True
        if self.converged and not self._confirm:
            self.reason = f"{within}; {DISTINCT}, as asked"
            return True
        if basis.products >= max_products:
            self.reason = (
                f"{within}; {DISTINCT}, as max_products left none"
                if self.converged
                else f"{int(met.sum())} of {len(met)} pairs converged within {max_products} "
                "products\nraise max_products or tol, or ask for fewer pairs (those inside a "
                "dense bulk of eigenvalues converge slowly)"
            )
            return True
        # A new start leaves the residuals as they are: half of the tolerance is kept for what the
        # copies that it finds add to them.
        if bool((residuals <= torch.maximum(limits / 2, 2 * skews).minimum(limits)).all()):
            self._found = _Found(values, residuals, limits, within)
            self._start_anew(ritz, chosen)
            return False
        # On from where the residuals that are still too large point: an earlier start, perhaps.
        along = ritz.beyond[:, chosen[residuals > limits / 2]].square().sum(dim=1)
        if int(along.argmax()):
            basis.take_up(int(along.argmax()) - 1)
        return False

    def _confirmed(self, max_products: int) -> bool:
        """Stop where the present start has shown that there are no copies, or has had its share."""
        assert self._found is not None
        basis, values = self.basis, self._found.values
        # What lies within the limits of the last value wanted would not change the list.
        ends = [float((values + self._found.limits)[self._k - 1])]
        if self._tol is not None:  # else they are known to less, and not searched for copies
            ends += (values - self._found.limits)[self._k :][-1:].tolist()
        unseen = max(basis.unseen_weight(self._began, end) for end in ends)
        spent = basis.count - self._began
        if basis.broken or unseen <= OVERLOOKED**2 / (basis.operator.size - self._began):
            self.copies_searched = True
            largest = " of the largest" if self._smallest and self._tol is None else ""
            self.reason = (
                f"{self._found.within}, and a new random start found no further ones{largest}"
            )
            return True
        if spent < self._confirm and not basis.full and basis.products < max_products:
            return False
        self.reason = (
            f"{self._found.within}; {DISTINCT}, as {spent} products were too few for "
            "it\nraise confirm and max_basis where copies matter"
        )
        return True

    def result(self, settings: dict[str, Any]) -> Eigenpairs:
        """Assemble the pairs found, or else those of the last check."""
        assert self._ritz is not None
        k = self._k
        if self._found is None:
            chosen = self._chosen(self._ritz)
            values, residuals = self._ritz.values[chosen], self._ritz.residuals[chosen]
            coefficients = self._ritz.vectors[:, chosen]
        else:
            values, residuals = self._found.values, self._found.residuals
            coefficients = torch.eye(self.basis.count, len(values), dtype=torch.float64)
        rows = self.basis.combine(coefficients)
        rows = torch.stack([row / norm(row) for row in rows])
        largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
        columns = (rows * largest.sign()).T
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
            copies="searched" if self.copies_searched else "not searched",
            settings=settings,
        )

    def _limits(self, values: Tensor, skews: Tensor) -> Tensor:
        """Residuals at which the values count as converged."""
        rounding = unit_roundoff(self.basis.operator) * self.basis.norm
        limits = ((self._tol or DEFAULT_TOL) * values.abs()).clamp(min=ROUNDINGS * rounding)
        if self._tol is not None:
            return limits
        limits[self._k :] = limits[self._k :].clamp(min=OF_THE_NORM * self.basis.norm)
        return limits.maximum((2 * skews).clamp(max=ATTAINABLE_ROUNDINGS * rounding))

    def _accuracy(self, values: Tensor, residuals: Tensor) -> str:
        """Say in words what converged residuals are within."""
        tol = self._tol or DEFAULT_TOL
        over = residuals > tol * values.abs()
        within = f"every residual is within {tol:g} |lambda|"
        if self._tol is None and bool(over[self._k :].any()):
            over[self._k :] = False
            within += f", of the smallest within {OF_THE_NORM:g} of the norm"
        if not bool(over.any()):
            return within
        noise = ROUNDINGS * unit_roundoff(self.basis.operator) * self.basis.norm
        if float(residuals[over].max()) <= noise:
            return f"{within} or {ROUNDINGS} roundings of the norm"
        dtype = str(self.basis.operator.dtype).removeprefix("torch.")
        relative = float((residuals / values.abs())[over].max())
        return f"converged to what {dtype} products allow: {relative:.1g} |lambda|"

    def _chosen(self, ritz: Ritz) -> Tensor:
        """Positions of the wanted values: the k largest, descending, then the smallest ones."""
        m = len(ritz.values)
        return torch.cat([torch.arange(m - 1, m - 1 - self._k, -1), torch.arange(self._smallest)])

    def _start_anew(self, ritz: Ritz, chosen: Tensor) -> None:
        """Go on from a random vector, the found pairs and as many others as fit kept.

        What else the old start has found is of use: it does not hide from the new one what it
        looks for (copies are orthogonal to all of the old basis), and it is out of its way.
        """
        basis, wanted = self.basis, self._k + self._smallest
        room = min(self._confirm, basis.capacity - wanted)
        others = [i for i in range(basis.count) if i not in set(chosen.tolist())]
        ends = sorted(others, key=lambda i: min(basis.count - i, i if self._smallest else math.inf))
        kept = [*chosen.tolist(), *ends[: basis.capacity - room - wanted]]
        basis.restart(ritz.vectors[:, kept], fresh=True)
        self._began = basis.count

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
        copies="not searched",
        settings=settings,
    )
