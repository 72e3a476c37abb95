"""The whole spectrum of a small operator: its dense matrix and all of its eigenvalues."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.eigenpairs import Eigenpairs, assembled
from isoloss.hessian.operators.protocol import (
    LinearOperator,
    NonFiniteProductError,
    checked_product,
    unit_roundoff,
)
from isoloss.hessian.operators.views import check_dense
from isoloss.hessian.trace import Trace
from isoloss.records.exact_spectra import ExactData
from isoloss.records.progress import Progress
from isoloss.records.smoothing import smooth
from isoloss.records.spectra import DensityData

METHOD = "exact"
# Float64 matrices of n rows that are held at once: the products, the matrix, its eigenvectors and
# the workspace of two of LAPACK's divide and conquer.
MATRICES = 5


def exact_bytes(rows: int) -> int:
    """Return the bytes that the spectrum of a matrix of so many rows takes."""
    return MATRICES * 8 * rows * rows


@dataclass(frozen=True)
class ExactSpectrum:
    """A symmetric matrix A of size n with all of its eigenpairs, in float64 on the CPU.

    A is the symmetric part of its products M = [A e_1, .., A e_n], which are symmetric to rounding
    of the operator's dtype.

    Attributes:
        matrix: M, (n, n).
        eigenvalues: (n,) ascending; NaN where a product was not finite.
        eigenvectors: (n, n) unit columns.
        rounding: One rounding of the operator's dtype, relative.
        products: Products that were spent.
        reason: How it was computed, or why it is NaN.
    """

    matrix: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    rounding: float
    products: int
    reason: str

    @property
    def finite(self) -> bool:
        """Whether all products were finite."""
        return bool(self.eigenvalues.isfinite().all())

    @property
    def norm(self) -> float:
        """The largest |lambda|, ||A||."""
        return float(self.eigenvalues.abs().max())

    @property
    def asymmetry(self) -> float:
        """The largest entry of |M - M^T| / 2: what the products' rounding amounts to."""
        return max(
            float((row - column).abs().max()) / 2
            for row, column in zip(self.matrix, self.matrix.T, strict=True)
        )

    def pairs(self, k: int, smallest: int = 0) -> Eigenpairs:
        """Return the extreme eigenpairs.

        Residuals are ||M u - lambda u|| and one rounding of ||A||: in float64 that of LAPACK and
        of the products, in float32 mostly the asymmetry of the products.

        Args:
            k: Number of largest pairs.
            smallest: Number of smallest ones.
        """
        last = len(self.eigenvalues) - 1
        chosen = torch.cat([torch.arange(last, last - k, -1), torch.arange(smallest)])
        values, vectors = self.eigenvalues[chosen], self.eigenvectors[:, chosen]
        rest = torch.linalg.vector_norm(self.matrix @ vectors - vectors * values, dim=0)
        residuals = rest + self.rounding * self.norm
        peaks = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
        vectors = vectors * peaks.sign()
        return assembled(
            k,
            smallest,
            values,
            residuals,
            vectors,
            converged=self.finite,
            reason=self.reason,
            products=self.products,
            copies="searched",
            settings={"k": k, "smallest": smallest, "method": METHOD},
        )

    def trace(self) -> Trace:
        """Return the trace, the sum of the diagonal, without an error."""
        return _exact_trace(math.fsum(self.matrix.diagonal().tolist()), self)

    def scaled(self, scale: Tensor) -> tuple[Eigenpairs, Trace]:
        """Return the largest eigenpair and the trace of T A T.

        Args:
            scale: The diagonal of T, (n,).
        """
        scale = scale.cpu().double()
        scaled = self.matrix * scale[:, None] * scale
        found = _decomposed(scaled, self.rounding, self.products, self.reason)
        return found.pairs(1), _exact_trace(math.fsum(scaled.diagonal().tolist()), self)

    def density(self, points: int = 1001) -> DensityData:
        """Return the spectrum smoothed by Gaussians, each eigenvalue at the weight 1/n.

        Args:
            points: Of the grid.
        """
        nodes = self.eigenvalues.numpy()[None]
        weights = np.full(nodes.shape, 1 / nodes.size if self.finite else math.nan)
        grid, (curve,), width = smooth(nodes, weights, points=points)
        account = {
            "method": METHOD,
            "bandwidth": width,
            "products": self.products,
            "reason": self.reason,
            "settings": {"points": points},
        }
        return DensityData(nodes, weights, grid, curve, curve, curve, account)

    def stored(self) -> ExactData:
        """Return all eigenvalues as files keep them."""
        account = {
            "converged": self.finite,
            "reason": self.reason,
            "products": self.products,
            "asymmetry": self.asymmetry,
        }
        return ExactData(self.eigenvalues.flip(0).numpy(), account)


def exact_spectrum(operator: LinearOperator, progress: Progress | None = None) -> ExactSpectrum:
    """Compute all eigenvalues and eigenvectors of a symmetric matrix of size n, from n products.

    Example:
        >>> from isoloss.hessian.operators.matrix import MatrixOperator
        >>> exact_spectrum(MatrixOperator(torch.diag(torch.tensor([1.0, 3.0])))).eigenvalues
        tensor([1., 3.], dtype=torch.float64)

    Args:
        operator: A, of at most `operators.views.LARGEST_DENSE` rows.
        progress: Called as `progress(products, n)`.

    Returns:
        The spectrum; NaN, with the reason, where a product was not finite.

    Raises:
        OperatorError: If it is larger.
    """
    check_dense(operator)
    n, rounding = operator.size, unit_roundoff(operator)
    rows = torch.empty(n, n, dtype=torch.float64)  # the products are the rows of M^T
    unit = torch.zeros(n, dtype=operator.dtype, device=operator.device)
    for index in range(n):
        unit[index] = 1
        try:
            rows[index] = checked_product(operator, unit)
        except NonFiniteProductError as error:
            return _decomposed(rows.fill_(torch.nan), rounding, index + 1, str(error))
        unit[index] = 0
        if progress is not None:
            progress(index + 1, n)
    reason = f"exact: all {n} eigenvalues of the dense matrix, from {n} products"
    return _decomposed(rows.T, rounding, n, reason)


def _decomposed(matrix: Tensor, rounding: float, products: int, reason: str) -> ExactSpectrum:
    if bool(matrix.isfinite().all()):
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    else:
        values, vectors = torch.full_like(matrix[0], torch.nan), torch.full_like(matrix, torch.nan)
    return ExactSpectrum(matrix, values, vectors, rounding, products, reason)


def _exact_trace(value: float, spectrum: ExactSpectrum) -> Trace:
    return Trace(
        value=value,
        standard_error=0.0 if spectrum.finite else math.nan,
        samples=len(spectrum.eigenvalues),
        products=spectrum.products,
        converged=spectrum.finite,
        reason=spectrum.reason,
        method=METHOD,
        settings={},
    )
