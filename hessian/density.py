"""The spectral density by stochastic Lanczos quadrature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isoloss.hessian.lanczos import LanczosBasis
from isoloss.hessian.operators.protocol import LinearOperator, NonFiniteProductError, OperatorError
from isoloss.hessian.operators.vectors import probe_vector
from isoloss.records.progress import Progress
from isoloss.records.smoothing import smooth

__all__ = ["Density", "probe_vector", "spectral_density"]


@dataclass(frozen=True)
class Density:
    """The distribution of the eigenvalues of a symmetric matrix of size n, total mass 1.

    Attributes:
        nodes: (probes, steps) float64, Ritz values, ascending in each row.
        weights: (probes, steps) float64, non-negative, each row sums to 1.
        grid: (points,) float64, equidistant.
        curve: (points,) density, the mean over probes; its sum times the grid's step is 1.
        low: (points,) pointwise minimum over the probes' curves.
        high: (points,) pointwise maximum.
        bandwidth: Standard deviation of the Gaussians, in units of the eigenvalues.
        probes: Number of probe vectors.
        steps: Lanczos steps for each probe, at most n.
        seed: Seed of the probe vectors.
        products: Products with A that were spent.
        reason: Empty, or why the density is NaN.
        settings: Arguments the result depends on.
    """

    nodes: Tensor
    weights: Tensor
    grid: Tensor
    curve: Tensor
    low: Tensor
    high: Tensor
    bandwidth: float
    probes: int
    steps: int
    seed: int
    products: int
    reason: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Density({self.probes} probes of {self.steps} steps, nodes from "
            f"{float(self.nodes.min()):.4g} to {float(self.nodes.max()):.4g}, "
            f"bandwidth={self.bandwidth:.2g})"
        )


def spectral_density(
    operator: LinearOperator,
    *,
    probes: int = 10,
    steps: int = 60,
    bandwidth: float | None = None,
    points: int = 1001,
    seed: int = 0,
    progress: Progress | None = None,
) -> Density:
    r"""Estimate the spectral density (1/n) sum_i delta(x - lambda_i).

    For a unit probe v, m Lanczos steps give the m-point Gauss quadrature of the measure
    sum_i (u_i^T v)^2 delta(x - lambda_i): nodes theta_j, the Ritz values, with weights the squares
    of the *first components* of the eigenvectors of the projected matrix (Golub & Welsch 1969;
    Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. Appl. 38). Its moments are exact up to degree
    2 m - 1, and its mean over random probes is the spectral density. The basis is fully
    reorthogonalised. Where a probe's Krylov space becomes invariant after fewer steps, its
    quadrature is exact; its row is filled up with the last node at weight 0.

    The curve is the quadrature's measure convolved with a Gaussian and averaged over the cells of
    the grid, so that it integrates to 1 for every bandwidth. `low` and `high` show how much one
    probe differs from another; they bound neither the mean's error nor that of the smoothing.

    Example:
        >>> from isoloss.hessian.operators.matrix import MatrixOperator
        >>> operator = MatrixOperator(torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64)))
        >>> spectral_density(operator, probes=1, steps=2).nodes.round(decimals=6)
        tensor([[1., 3.]], dtype=torch.float64)

    Args:
        operator: The symmetric matrix A.
        probes: Number of random unit vectors (`probe_vector(operator, seed, 0)`, ..).
        steps: Lanczos steps for each, cut to n.
        bandwidth: Standard deviation of the Gaussians. None: 0.005 of the range of the nodes, or,
            where they coincide, 0.005 of their magnitude (1 at zero).
        points: Number of grid points, 2 or more. The grid reaches 5 bandwidths beyond the nodes.
        seed: Seed of the probes.
        progress: Called as `progress(products, probes * steps)`.

    Returns:
        The density; NaN, with the reason, where a product was not finite.

    Raises:
        OperatorError: If an argument is out of range.
    """
    if probes < 1 or steps < 1 or points < 2:
        raise OperatorError(
            "expected probes >= 1, steps >= 1 and points >= 2, "
            f"got probes = {probes}, steps = {steps}, points = {points}"
        )
    if bandwidth is not None and not bandwidth > 0:
        raise OperatorError(f"expected a bandwidth above 0, got {bandwidth}")
    steps = min(steps, operator.size)
    settings = {
        "probes": probes,
        "steps": steps,
        "bandwidth": bandwidth,
        "points": points,
        "seed": seed,
    }
    nodes = torch.full((probes, steps), torch.nan, dtype=torch.float64)
    weights = torch.full_like(nodes, torch.nan)
    products, reason = 0, ""
    for probe in range(probes):
        basis = LanczosBasis(operator, steps, seed=seed, index=probe)
        try:
            while not basis.full:
                basis.step()
                products += 1
                if progress is not None:
                    progress(products, probes * steps)
                if basis.broken:
                    break
        except NonFiniteProductError as error:
            products, reason = products + 1, str(error)
            break
        values, vectors = torch.linalg.eigh(basis.projected)
        found = len(values)
        nodes[probe, :found], nodes[probe, found:] = values, values[-1]
        # The columns of an orthogonal matrix: their first components' squares sum to 1.
        weights[probe, :found], weights[probe, found:] = vectors[0].square(), 0.0
    grid, curves, width = smooth(nodes.numpy(), weights.numpy(), bandwidth, points)
    return Density(
        nodes=nodes,
        weights=weights,
        grid=torch.from_numpy(grid),
        curve=torch.from_numpy(curves.mean(0)),
        low=torch.from_numpy(curves.min(0)),
        high=torch.from_numpy(curves.max(0)),
        bandwidth=width,
        probes=probes,
        steps=steps,
        seed=seed,
        products=products,
        reason=reason,
        settings=settings,
    )
