"""Operators as others know them: SciPy's, those of curvlinops, and dense matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.operators.protocol import LinearOperator, OperatorError

if TYPE_CHECKING:
    from curvlinops._torch_base import PyTorchLinearOperator
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


def to_curvlinops(operator: LinearOperator) -> PyTorchLinearOperator:
    """Return the operator as one of curvlinops, for its estimators, sums, inverses and norms.

    It takes flat vectors (n,) and matrices (n, k), as the operator does; where the operator knows
    the shapes of its parameters, lists of tensors of these shapes, too.

    Args:
        operator: A, symmetric.

    Raises:
        OperatorError: If curvlinops is not installed.
    """
    try:
        from curvlinops._torch_base import PyTorchLinearOperator
    except ImportError as error:
        raise OperatorError(
            f"expected the package curvlinops, got: {error}\npip install curvlinops-for-pytorch"
        ) from error

    class View(PyTorchLinearOperator):
        SELF_ADJOINT = True
        device = property(lambda self: operator.device)
        dtype = property(lambda self: operator.dtype)

        def _matmat(self, X: list[Tensor]) -> list[Tensor]:
            columns = torch.cat([x.reshape(-1, x.shape[-1]) for x in X])
            parts = operator.matmat(columns).split([shape.numel() for shape in shapes])
            return [part.reshape(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]

    known = getattr(operator, "shapes", {"": torch.Size([operator.size])})
    shapes = list(known.values())
    return View(shapes, shapes)
