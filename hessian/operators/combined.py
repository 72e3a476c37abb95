"""Sums, shifts and squares of operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isoloss.hessian.operators.protocol import (
    LinearOperator,
    OperatorError,
    check_matrix,
    check_vector,
)


class SumOperator:
    r"""sum_k c_k A_k of symmetric operators of one size, dtype and device.

    Example:
        >>> from isoloss.hessian.operators.matrix import MatrixOperator
        >>> one = MatrixOperator(torch.eye(2))
        >>> SumOperator([(2.0, one), (-1.0, one)]).matvec(torch.tensor([1.0, 3.0]))
        tensor([1., 3.])

    Args:
        terms: Pairs (c_k, A_k), one or more.

    Raises:
        OperatorError: If there are none, or they do not fit together.
    """

    def __init__(self, terms: Sequence[tuple[float, LinearOperator]]) -> None:
        kinds = {(operator.size, operator.dtype) for _, operator in terms}
        if len(kinds) != 1:
            found = ", ".join(f"{size} of {dtype}" for size, dtype in kinds) or "none"
            raise OperatorError(f"expected operators of one size and dtype, got {found}")
        self.terms = list(terms)
        first = terms[0][1]
        self.size, self.dtype, self.device = first.size, first.dtype, first.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Return sum_k c_k A_k v, shape (n,), for v of shape (n,), summed in float64."""
        check_vector(self, vector)
        return self._sum([operator.matvec(vector) for _, operator in self.terms])

    def matmat(self, matrix: Tensor) -> Tensor:
        """Return sum_k c_k A_k V, shape (n, k), for V of shape (n, k)."""
        check_matrix(self, matrix)
        return self._sum([operator.matmat(matrix) for _, operator in self.terms])

    def _sum(self, products: Sequence[Tensor]) -> Tensor:
        # Apple's GPUs have no float64.
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.zeros(products[0].shape, dtype=wide, device=self.device)
        for (coefficient, _), product in zip(self.terms, products, strict=True):
            total += coefficient * product.to(self.device, wide)
        return total.to(self.dtype)


class ShiftedOperator:
    """A + s I: with s the coefficient of a coupled weight decay, the Hessian of the decayed loss.

    Args:
        operator: A.
        shift: s.
    """

    def __init__(self, operator: LinearOperator, shift: float) -> None:
        self.operator, self.shift = operator, shift
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Return A v + s v, shape (n,), for v of shape (n,)."""
        return self.operator.matvec(vector) + self.shift * vector.to(self.device)

    def matmat(self, matrix: Tensor) -> Tensor:
        """Return A V + s V, shape (n, k), for V of shape (n, k)."""
        return self.operator.matmat(matrix) + self.shift * matrix.to(self.device)


class SquaredOperator:
    """A^2, two products with A each.

    Args:
        operator: A.
    """

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Return A A v, shape (n,), for v of shape (n,)."""
        return self.operator.matvec(self.operator.matvec(vector))

    def matmat(self, matrix: Tensor) -> Tensor:
        """Return A A V, shape (n, k), for V of shape (n, k)."""
        return self.operator.matmat(self.operator.matmat(matrix))
