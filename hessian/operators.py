"""Symmetric linear operators: all that an estimator needs to know of a matrix."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from isoloss.errors import IsolossError


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
    if not bool(torch.isfinite(product).all()):
        where = getattr(operator, "where_not_finite", None)
        raise NonFiniteProductError(
            "a product with the operator has NaN or infinite entries"
            + (f" {where(product)}" if where is not None else "")
            + ": the loss or its derivatives are not finite at these weights"
        )
    return product


def probe_vector(
    operator: LinearOperator | int,
    seed: int,
    index: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return a random vector, uniform on the unit sphere.

    It depends on size, seed and index alone: neither on how many probes are asked for, nor on
    earlier calls, nor (but for rounding) on dtype and device.

    Args:
        operator: An operator, whose dtype and device are then taken, or a size n.
        seed: Seed of a run, 0 or more.
        index: Number of the probe, 0 or more.
        dtype: Floating type where a size is given.
        device: Device where a size is given.

    Returns:
        Shape (n,), norm 1.
    """
    if not isinstance(operator, int):
        return probe_vector(
            operator.size, seed, index, dtype=operator.dtype, device=operator.device
        )
    generator = _generator(seed, index)
    vector = torch.randn(operator, generator=generator, dtype=torch.float64)
    return (vector / torch.linalg.vector_norm(vector)).to(dtype).to(device)


def sign_vector(operator: LinearOperator, seed: int, index: int) -> Tensor:
    """Return a vector of independent random signs (Rademacher), shape (n,), norm sqrt(n)."""
    generator = _generator(seed, index)
    bits = torch.randint(0, 2, (operator.size,), generator=generator, dtype=torch.int8)
    return (2 * bits - 1).to(operator.dtype).to(operator.device)


def norm(vector: Tensor) -> float:
    """Return ||v||, squares formed where neither 1e20 overflows nor 1e-25 vanishes.

    In float64; on Apple's GPUs, which have none, after division by the largest entry.
    """
    if vector.device.type != "mps":
        return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    largest = float(vector.abs().max())
    if not largest:
        return 0.0
    return largest * float(torch.linalg.vector_norm(vector / largest))


def inner(a: Tensor, b: Tensor) -> float:
    """Return a^T b, accumulated in float64."""
    if a.device.type == "mps":
        a, b = a.cpu(), b.cpu()
    return float(torch.dot(a.double(), b.double()))


def projections(rows: Tensor, vector: Tensor) -> Tensor:
    """Return Q v for rows Q of norm 1 each, shape (m,), float64 on the CPU, whatever v's scale."""
    length = norm(vector)
    return (rows @ (vector / (length or 1.0))).cpu().double() * length


def unit_roundoff(operator: LinearOperator) -> float:
    """Return the machine epsilon of the operator's dtype."""
    return float(torch.finfo(operator.dtype).eps)


def _generator(seed: int, index: int) -> torch.Generator:
    if seed < 0 or index < 0:
        raise OperatorError(f"expected seed and index of 0 or more, got {seed} and {index}")
    # SeedSequence mixes the pair, so that (0, 1) and (1, 0) give unrelated streams.
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _check_dtype(operator: LinearOperator, tensor: Tensor) -> None:
    if tensor.dtype != operator.dtype:
        raise OperatorError(
            f"expected {operator.dtype}, the operator's dtype, got {tensor.dtype}\n"
            f"convert it with .to({operator.dtype})"
        )
