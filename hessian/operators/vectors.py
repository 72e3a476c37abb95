"""Flat vectors of an operator: random ones, and norms and products summed in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.operators.protocol import LinearOperator, OperatorError

# Entries of a vector that are copied to float64, or otherwise, at a time.
PIECE = 2**22


def pieces(size: int) -> Iterator[slice]:
    """Yield slices that make up a vector, so that work on it needs no copy of the whole."""
    for start in range(0, size, PIECE):
        yield slice(start, min(start + PIECE, size))


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
    vector /= torch.linalg.vector_norm(vector)
    return vector.to(dtype).to(device)


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
        parts = (vector[piece] for piece in pieces(len(vector)))
        return math.hypot(*(float(torch.linalg.vector_norm(p, dtype=torch.float64)) for p in parts))
    largest = float(vector.abs().max())
    if not largest:
        return 0.0
    return largest * float(torch.linalg.vector_norm(vector / largest))


def inner(a: Tensor, b: Tensor) -> float:
    """Return a^T b, accumulated in float64."""
    if a.device.type == "mps":
        a, b = a.cpu(), b.cpu()
    parts = ((a[piece].double(), b[piece].double()) for piece in pieces(len(a)))
    return math.fsum(float(torch.dot(*both)) for both in parts)


def largest_entry(vector: Tensor) -> float:
    """Return the entry of largest magnitude, with its sign; the first one of several."""
    found = 0.0
    for piece in pieces(len(vector)):
        part = vector[piece]
        entry = float(part[part.abs().argmax()])
        if not abs(entry) <= abs(found):
            found = entry
    return found


def projections(rows: Tensor, vector: Tensor) -> Tensor:
    """Return Q v for rows Q of norm 1 each, shape (m,), float64 on the CPU, whatever v's scale."""
    if not len(rows):
        return torch.zeros(0, dtype=torch.float64)
    length = norm(vector)
    return (rows @ (vector / (length or 1.0))).cpu().double() * length


def _generator(seed: int, index: int) -> torch.Generator:
    if seed < 0 or index < 0:
        raise OperatorError(f"expected seed and index of 0 or more, got {seed} and {index}")
    # SeedSequence mixes the pair, so that (0, 1) and (1, 0) give unrelated streams.
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
