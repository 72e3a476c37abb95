"""Sums over all eigenvalues from a stored density: Frobenius norm, stable rank, dimension."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to import

from isoloss.records.spectra import DensityData, EigenpairsData, SpectrumData

# Relative distance within which a node of every probe is taken for a stored eigenvalue. Its weight
# is then known to about the root of it.
MATCH = 1e-5


@dataclass(frozen=True)
class Estimate:
    """A mean over random probes.

    Attributes:
        value: The mean.
        standard_error: Of the value over probes, with Student's factor, so that 2 of it cover as
            often as for a Gaussian; None for one probe.
    """

    value: float
    standard_error: float | None


@dataclass(frozen=True)
class EffectiveDimension:
    """Bounds of sum_i lambda_i / (lambda_i + c) by quadrature, each a mean over probes.

    Attributes:
        c: In units of the eigenvalues.
        lower: No more than the sum, but for the error over probes.
        upper: No less than the sum, but for the error over probes.
    """

    c: float
    lower: Estimate
    upper: Estimate


def mean_over_probes(values: np.ndarray) -> Estimate:
    """Return the mean of one value a probe, (probes,), with its standard error."""
    count = len(values)
    if count < 2:
        return Estimate(float(values.mean()), None)
    factor = float(stdtrit(count - 1, ndtr(2))) / 2
    return Estimate(float(values.mean()), factor * float(values.std(ddof=1)) / math.sqrt(count))


def squared_frobenius_norm(data: SpectrumData) -> Estimate | None:
    r"""Return ||A||_F^2 = sum_i lambda_i^2.

    For v uniform on the unit sphere n v^T A^2 v has it as its mean, and of two Lanczos steps or
    more the quadrature of v^T A^2 v is exact: n sum_j w_j theta_j^2. A few large eigenvalues make
    that noisy, n (u_k^T v)^2 lambda_k^2 in place of lambda_k^2. Where every probe has one node at a
    stored eigenvalue, to `MATCH` of it, that term is therefore replaced by its known mean.

    Returns:
        None without a finite density of two steps or more, or the number of parameters.
    """
    density, size = data.density, data.settings.get("parameters")
    if density is None or not size or not np.isfinite(density.nodes).all():
        return None
    if density.nodes.shape[1] < min(2, size):
        return None
    weights, known = density.weights.copy(), 0.0
    for eigenvalue, copies in _simple_eigenvalues(data.eigenpairs):
        near = np.abs(density.nodes - eigenvalue) <= MATCH * abs(eigenvalue)
        # A probe that broke down repeats its last node with weight 0.
        if ((near & (weights > 0)).sum(axis=1) == 1).all():
            weights[near] = 0.0
            known += copies * eigenvalue**2
    rest = mean_over_probes(size * (weights * density.nodes**2).sum(axis=1))
    return Estimate(known + rest.value, rest.standard_error)


def frobenius_norm(data: SpectrumData) -> Estimate | None:
    """Return ||A||_F, its error by the delta method; None as `squared_frobenius_norm`."""
    squared = squared_frobenius_norm(data)
    return None if squared is None else root(squared)


def root(squared: Estimate) -> Estimate:
    """Return the square root of an estimate, its error to first order."""
    value, error = math.sqrt(max(squared.value, 0.0)), squared.standard_error
    return Estimate(value, None if error is None else error / (2 * value) if value else 0.0)


def stable_rank(data: SpectrumData) -> Estimate | None:
    """Return ||A||_F^2 / max_i lambda_i^2, the largest of the stored ends; None without either.

    The eigenvalue's residual is not in the error, which is over probes.
    """
    squared, ends = squared_frobenius_norm(data), _ends(data.eigenpairs)
    if squared is None or not len(ends) or not np.isfinite(ends).all() or not ends.any():
        return None
    largest = float(np.abs(ends).max()) ** 2
    error = squared.standard_error
    return Estimate(squared.value / largest, None if error is None else error / largest)


def effective_dimension(
    density: DensityData, size: int, c: float, *, tolerance: float = 0.0
) -> EffectiveDimension | None:
    r"""Return bounds of sum_i lambda_i / (lambda_i + c) for a matrix without negative eigenvalues.

    The number of directions that data determine against a prior (MacKay 1992, section 4.2; Maddox,
    Benton & Wilson 2020): with the mean loss over N samples as -log likelihood / N and a Gaussian
    prior of variance s^2 on each weight, c = 1 / (N s^2).

    f(x) = x / (x + c) has even derivatives below 0 on x > 0: Gauss's quadrature, that of Lanczos,
    is not below n v^T f(A) v. f(x) = x g(x), and g(x) = 1 / (x + c) has even derivatives above 0:
    Gauss's quadrature of g for the measure x mu(dx) is not above it (that of Gauss and Radau with
    a node at 0; Golub & Meurant 2010, Matrices, Moments and Quadrature, section 6.2). Both are
    means over probes; where c is far below the eigenvalues that the steps resolve they are apart.

    Args:
        density: A stored density.
        size: n.
        c: Above 0, in units of the eigenvalues.
        tolerance: Nodes down to -tolerance are taken for 0.

    Returns:
        None where a node is not finite or below -tolerance.
    """
    nodes, weights = density.nodes, density.weights
    if not c > 0 or not np.isfinite(nodes).all() or nodes.min() < -tolerance:
        return None
    nodes = np.maximum(nodes, 0.0)
    upper = size * (weights * nodes / (nodes + c)).sum(axis=1)
    pairs = zip(nodes, weights, strict=True)
    lower = [size * _quadrature(theta, w * theta, lambda x: 1 / (x + c)) for theta, w in pairs]
    return EffectiveDimension(c, mean_over_probes(np.array(lower)), mean_over_probes(upper))


def _quadrature(
    nodes: np.ndarray, weights: np.ndarray, g: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Return Gauss's quadrature of g for a discrete measure, with one node less than it has.

    By Lanczos with the matrix diag(nodes) from the roots of the weights, reorthogonalised.
    """
    total = float(weights.sum())
    used = weights > 0
    theta, start = nodes[used], np.sqrt(weights[used])
    steps = min(len(theta), len(nodes) - 1)
    if not total or not steps:
        return 0.0
    basis = np.zeros((steps, len(theta)))
    basis[0] = start / np.linalg.norm(start)
    for step in range(1, steps):
        image = theta * basis[step - 1]
        for _ in range(2):
            image -= basis[:step].T @ (basis[:step] @ image)
        length = np.linalg.norm(image)
        if length <= 1e-13 * np.abs(theta).max():
            basis = basis[:step]
            break
        basis[step] = image / length
    values, vectors = np.linalg.eigh((basis * theta) @ basis.T)
    return total * float(vectors[0] ** 2 @ g(np.maximum(values, 0.0)))


def _simple_eigenvalues(pairs: EigenpairsData | None) -> list[tuple[float, int]]:
    """Return stored eigenvalues that are listed as often as they occur, and how often.

    Copies of the last one at an end may be left out: it is not among them.
    """
    if pairs is None or pairs.account.get("copies") != "searched":
        return []
    found: list[tuple[float, int]] = []
    for end in (pairs.eigenvalues, pairs.smallest_eigenvalues):
        groups: list[list[float]] = []
        for value in [] if end is None else [float(value) for value in end]:
            if groups and abs(value - groups[-1][0]) <= 2 * MATCH * abs(value):
                groups[-1].append(value)
            else:
                groups.append([value])
        found += [(sum(group) / len(group), len(group)) for group in groups[:-1]]
    return [(value, copies) for value, copies in found if math.isfinite(value)]


def _ends(pairs: EigenpairsData | None) -> np.ndarray:
    ends = () if pairs is None else (pairs.eigenvalues, pairs.smallest_eigenvalues)
    return np.concatenate([np.empty(0), *(end for end in ends if end is not None)])
