"""Flat vectors of an operator: random ones, and norms and products summed in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.operators.protocol import LinearOperator, OperatorError


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


def _generator(seed: int, index: int) -> torch.Generator:
    if seed < 0 or index < 0:
        raise OperatorError(f"expected seed and index of 0 or more, got {seed} and {index}")
    # SeedSequence mixes the pair, so that (0, 1) and (1, 0) give unrelated streams.
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
