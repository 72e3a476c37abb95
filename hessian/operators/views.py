"""Operators as others know them: SciPy's, and dense matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.operators.protocol import LinearOperator, OperatorError

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyOperator

# A float64 matrix of this many rows takes 3.2 GB.
LARGEST_DENSE = 20_000


def dense(operator: LinearOperator, *, block: int = 64) -> Tensor:
    """Return the matrix (A + A^T) / 2 itself, (n, n) float64 on the CPU, from n products.

    Args:
        operator: A, of at most `LARGEST_DENSE` rows.
        block: Columns that are asked for at once.

    Raises:
        OperatorError: If it is larger.
    """
    check_dense(operator)
    columns = []
    for start in range(0, operator.size, block):
        chosen = range(start, min(start + block, operator.size))
        identity = torch.zeros(operator.size, len(chosen), dtype=operator.dtype)
        identity[list(chosen), range(len(chosen))] = 1.0
        columns.append(operator.matmat(identity.to(operator.device)).cpu().double())
    matrix = torch.cat(columns, dim=1)
    return (matrix + matrix.T) / 2


def check_dense(operator: LinearOperator) -> None:
    """Refuse an operator that is too large for a dense matrix.

    Raises:
        OperatorError: If it has more than `LARGEST_DENSE` rows.
    """
    if operator.size > LARGEST_DENSE:
        raise OperatorError(
            f"expected at most {LARGEST_DENSE:,} rows for a dense matrix, got {operator.size:,}\n"
            "choose fewer parameters, or use the estimators, which need products only"
        )


def as_scipy(operator: LinearOperator) -> ScipyOperator:
    """Return the operator as SciPy's, for `scipy.sparse.linalg.eigsh` and its kin.

    Arrays go in and out in the operator's dtype.
    """
    from scipy.sparse import linalg  # a quarter of a second, which nobody else needs

    def product(array: np.ndarray, method: Any) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(operator.device, operator.dtype)
        result: np.ndarray = method(tensor).cpu().numpy()
        return result

    return linalg.LinearOperator(
        shape=(operator.size, operator.size),
        matvec=lambda v: product(v.reshape(-1), operator.matvec),
        rmatvec=lambda v: product(v.reshape(-1), operator.matvec),
        matmat=lambda m: product(m, operator.matmat),
        dtype=torch.empty(0, dtype=operator.dtype).numpy().dtype,
    )
