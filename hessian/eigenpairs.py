"""Extreme eigenpairs by thick-restart Lanczos."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isoloss.hessian.lanczos import LanczosBasis
from isoloss.hessian.operators.protocol import (
    LinearOperator,
    NonFiniteProductError,
    OperatorError,
    check_vector,
)
from isoloss.hessian.operators.vectors import norm, probe_vector
from isoloss.hessian.search import Search
from isoloss.records.progress import Progress
from isoloss.records.tables import data_frame, eigenvalue_rows, eigenvalue_text

if TYPE_CHECKING:
    import pandas as pd

# The basis grows to what usually converges without a restart, within this memory.
BASIS_BYTES = 2 * 2**30
# Products spent at most on each search for repeated eigenvalues.
CONFIRM = 30
# The random part of a warm start, beside a unit vector, and its number among probes of the seed.
WARM_RANDOM, WARM_INDEX = 0.1, 10**6


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
    confirm: int = CONFIRM,
    seed: int = 0,
    start: Tensor | None = None,
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
        start: Vector to begin with, (n,), as `warm_start` makes it; random where None.
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
    basis = LanczosBasis(operator, max_basis, seed=seed, start=_checked_start(operator, start))
    search = Search(basis, k, smallest, tol, confirm)
    try:
        while not search.finished(max_products):
            search.advance()
            if progress is not None:
                progress(search.basis.products, max_products)
    except NonFiniteProductError as error:
        return _not_finite(operator, k, smallest, str(error), search.basis.products + 1, settings)
    values, residuals, vectors = search.pairs()
    return assembled(
        k,
        smallest,
        values,
        residuals,
        vectors,
        converged=search.converged,
        reason=search.reason,
        products=search.basis.products,
        copies="searched" if search.copies_searched else "not searched",
        settings=settings,
    )


def warm_start(pairs: Eigenpairs, seed: int = 0) -> Tensor:
    r"""Return a vector to begin with at weights near those that eigenpairs are of.

    s = sum_k u_k / sqrt(K) + WARM_RANDOM r with a random unit vector r, u_k all pairs given, those
    of the smallest eigenvalues too. Only what has a component in the start can be found: r keeps
    directions in it that were not among the extreme ones before.

    Args:
        pairs: At the weights before.
        seed: Of r, another one for each use.
    """
    vectors = pairs.eigenvectors
    if pairs.smallest_eigenvectors is not None:
        vectors = torch.cat([vectors, pairs.smallest_eigenvectors], dim=1)
    n, count = vectors.shape
    random = probe_vector(n, seed, WARM_INDEX, dtype=vectors.dtype, device=vectors.device)
    return vectors.sum(1) / math.sqrt(count) + WARM_RANDOM * random


def _checked_start(operator: LinearOperator, start: Tensor | None) -> Tensor | None:
    if start is None:
        return None
    check_vector(operator, start)
    length = norm(start)
    if not (math.isfinite(length) and length > 0):
        raise OperatorError(f"expected a start of finite length above 0, got {length}")
    return start.to(operator.device)


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
    return assembled(
        k,
        smallest,
        values,
        values,
        vectors,
        converged=False,
        reason=reason,
        products=products,
        copies="not searched",
        settings=settings,
    )


def assembled(
    k: int, smallest: int, values: Tensor, residuals: Tensor, vectors: Tensor, **account: Any
) -> Eigenpairs:
    """Return pairs that are listed one after the other, the k largest first, as they are kept.

    Args:
        k: Largest pairs.
        smallest: Smallest pairs, None of which are listed where 0.
        values: (k + smallest,).
        residuals: (k + smallest,).
        vectors: (n, k + smallest) unit columns.
        account: The other attributes of `Eigenpairs`.
    """
    asked = smallest > 0
    return Eigenpairs(
        eigenvalues=values[:k],
        residuals=residuals[:k],
        eigenvectors=vectors[:, :k],
        smallest_eigenvalues=values[k:] if asked else None,
        smallest_residuals=residuals[k:] if asked else None,
        smallest_eigenvectors=vectors[:, k:] if asked else None,
        **account,
    )
