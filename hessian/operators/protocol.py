"""Symmetric linear operators: all that an estimator needs to know of a matrix."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from isoloss.errors import IsolossError

# Entries: a check of more at once makes copies of them.
FINITE_AT_A_TIME = 2**22


class OperatorError(IsolossError, ValueError):
    """A matrix or vector that does not fit a symmetric linear operator."""


class NonFiniteProductError(IsolossError, ArithmeticError):
    """A product with NaN or infinite entries: there is no spectrum to speak of."""


class LinearOperator(Protocol):
    """A real symmetric matrix A of shape (size, size), known by its products."""

    @property
    def size(self) -> int:
        """Number of rows, n."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the vectors, float32 or float64."""

    @property
    def device(self) -> torch.device:
        """Where the vectors live."""

    def matvec(self, vector: Tensor) -> Tensor:
        """Return A v, shape (n,), for v of shape (n,)."""

    def matmat(self, matrix: Tensor) -> Tensor:
        """Return A V, shape (n, k), for V of shape (n, k)."""


def check_vector(operator: LinearOperator, vector: Tensor) -> None:
    """Raise `OperatorError` unless the vector has the operator's size and dtype."""
    if vector.shape != (operator.size,):
        raise OperatorError(
            f"expected a vector of shape ({operator.size},), got shape {tuple(vector.shape)}"
        )
    _check_dtype(operator, vector)


def check_matrix(operator: LinearOperator, matrix: Tensor) -> None:
    """Raise `OperatorError` unless the columns have the operator's size and dtype."""
    if matrix.ndim != 2 or matrix.shape[0] != operator.size:
        raise OperatorError(
            f"expected vectors as the columns of shape ({operator.size}, k), "
            f"got shape {tuple(matrix.shape)}"
        )
    _check_dtype(operator, matrix)


def checked_product(operator: LinearOperator, vector: Tensor) -> Tensor:
    """Return A v.

    Raises:
        NonFiniteProductError: If an entry of the product is NaN or infinite. An operator that has
            a method `where_not_finite(product)` says where they come from.
    """
    product = operator.matvec(vector)
    if not all(bool(torch.isfinite(part).all()) for part in product.split(FINITE_AT_A_TIME)):
        where = getattr(operator, "where_not_finite", None)
        raise NonFiniteProductError(
            "a product with the operator has NaN or infinite entries"
            + (f" {where(product)}" if where is not None else "")
            + ": the loss or its derivatives are not finite at these weights"
        )
    return product


def unit_roundoff(operator: LinearOperator) -> float:
    """Return the machine epsilon of the operator's dtype."""
    return float(torch.finfo(operator.dtype).eps)


def _check_dtype(operator: LinearOperator, tensor: Tensor) -> None:
    if tensor.dtype != operator.dtype:
        raise OperatorError(
            f"expected {operator.dtype}, the operator's dtype, got {tensor.dtype}\n"
            f"convert it with .to({operator.dtype})"
        )
