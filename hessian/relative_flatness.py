"""Relative flatness: curvature of a layer against the size of its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.landscape.problem import Problem
from isoloss.records.progress import Progress


@dataclass(frozen=True)
class RelativeFlatness:
    """An estimate of kappa_Tr of one layer.

    Attributes:
        value: The estimate.
        standard_error: Over probes; 0 where the sum is exact.
        probes: Products that were spent.
        layer: Name of the layer's weight.
    """

    value: float
    standard_error: float
    probes: int
    layer: str


def relative_flatness(
    problem: Problem,
    layer: str | None = None,
    *,
    probes: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> RelativeFlatness:
    r"""Estimate kappa_Tr = sum_{s,t} <w_s, w_t> tr(H_st) of a layer (Petzka et al. 2021).

    w_s is row s of the layer's weight W, (d_out, d_in), and H_st the block of the Hessian of L by
    w_s and w_t. It is tr(M^T H M) of the map M: A -> W A of matrices A, (d_in, d_in), so that the
    mean of vec(W A)^T H vec(W A) over random signs A estimates it. Where there are no more such
    matrices with a single 1 than probes, these are summed instead, which is exact. It does not
    change where the layer is multiplied by a factor that the layer before is divided by.


    Args:
        problem: The loss.
        layer: Name of a weight of two dimensions; the last there is where None, the layer of the
            paper's bound.
        probes: Products to spend, 2 or more.
        seed: Of the signs.
        progress: Called as `progress(done, total)`.

    Raises:
        OperatorError: If there is no such weight, or fewer than 2 probes are asked for.
    """
    matrices = [name for name, tensor in problem.parameters.items() if tensor.ndim == 2]
    if not matrices or (layer is not None and layer not in matrices):
        raise OperatorError(
            f"expected a weight of two dimensions, got {layer or 'a network without one'}"
        )
    if probes < 2:
        raise OperatorError(f"expected 2 probes or more, got {probes}")
    name = matrices[-1] if layer is None else layer
    weight = problem.parameters[name]
    inputs = weight.shape[1]
    exact = inputs**2 <= probes
    count = inputs**2 if exact else probes
    values = []
    with HessianOperator(problem, [name]) as operator:
        for number in range(count):
            a = _unit(inputs, number) if exact else _signs(inputs, seed, number)
            moved = (weight @ a.to(weight)).reshape(-1)
            product = operator.matvec(moved)
            values.append(float(moved.double() @ product.double()))
            if progress is not None:
                progress(number + 1, count)
    total = math.fsum(values)
    if exact:
        return RelativeFlatness(total, 0.0, count, name)
    mean = total / count
    spread = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return RelativeFlatness(mean, math.sqrt(spread / count), count, name)


def _unit(size: int, number: int) -> Tensor:
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.view(-1)[number] = 1.0
    return matrix


def _signs(size: int, seed: int, number: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    return torch.randint(0, 2, (size, size), generator=generator).double() * 2 - 1
