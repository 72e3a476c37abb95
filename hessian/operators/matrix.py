"""Explicit symmetric matrices as operators."""

from __future__ import annotations

import torch
from torch import Tensor

from isoloss.hessian.operators.protocol import OperatorError, check_matrix, check_vector


class MatrixOperator:
    """An explicit symmetric matrix.

    Example:
        >>> operator = MatrixOperator(torch.diag(torch.tensor([3.0, 1.0])))
        >>> operator.matvec(torch.tensor([1.0, 1.0]))
        tensor([3., 1.])

    Args:
        matrix: Shape (n, n), float32 or float64, symmetric to 100 roundings of its largest entry.

    Raises:
        OperatorError: If the matrix is not square, real floating or symmetric.
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.numel():
            raise OperatorError(f"expected a square matrix, got shape {tuple(matrix.shape)}")
        if matrix.dtype not in (torch.float32, torch.float64):
            raise OperatorError(f"expected a float32 or float64 matrix, got {matrix.dtype}")
        skew = float((matrix - matrix.T).abs().max())
        largest = float(matrix.abs().max())
        if skew > 100 * torch.finfo(matrix.dtype).eps * largest:
            raise OperatorError(
                f"expected a symmetric matrix, got entries that differ from the transpose's by up "
                f"to {skew:.3g} (largest entry {largest:.3g})\n"
                "pass the symmetric part, (A + A.T) / 2"
            )
        self.matrix = matrix
        self.size = matrix.shape[0]
        self.dtype = matrix.dtype
        self.device = matrix.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Return A v, shape (n,), for v of shape (n,)."""
        check_vector(self, vector)
        return self.matrix @ vector

    def matmat(self, matrix: Tensor) -> Tensor:
        """Return A V, shape (n, k), for V of shape (n, k)."""
        check_matrix(self, matrix)
        return self.matrix @ matrix
