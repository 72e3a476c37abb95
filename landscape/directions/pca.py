r"""Principal components of checkpoints: the directions in which trainings moved most.

The covariance is that of the n points themselves, centred at their mean, as sklearn's PCA has it
and with it the loss-landscape code of Li et al. 2018 (section 7.2), which hands it the differences
theta_i - r to the last point r: what is subtracted from all of them does not matter. Everything is
had from the n x n Gram matrix of the differences, so that points are loaded one or two at a time.

Antognini & Sohl-Dickstein 2018 ("PCA of high dimensional random walks with comparison to neural
network training") show what an explained variance has to be held against: a random walk in many
dimensions has 6 / pi^2 = 61 % of its variance along the first component, 15 % along the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.landscape.normalisation import Tensors

# Loads a point: tensors by name, of which those of the reference are used.
Load = Callable[[], Mapping[str, Tensor]]

# Eigenvalues of the Gram matrix below this share of the largest are rounding: inner products in
# float64 are known to some 1e-15 of it.
ROUNDING = 1e-12
# Coefficients that differ by less than this are equally large where a sign is chosen by them.
ALIKE = 1e-6


class ComponentError(IsolossError, ValueError):
    """Points that have no such principal component."""


@dataclass(frozen=True)
class Components:
    """Principal components of n points in weight space.

    Attributes:
        weights: (k, n): component c is sum_i weights[c, i] (theta_i - r), of norm 1; the weights
            of each sum to 0. Of each the largest in absolute value, the first of several, is
            positive: that point lies on its positive side. k is the number of components that
            are more than rounding.
        variances: (n - 1,): variance along each, divisor n - 1, descending.
        ratios: (n - 1,): the same as shares of the total variance, which sum to 1.
    """

    weights: np.ndarray
    variances: np.ndarray
    ratios: np.ndarray


def gram_matrix(
    points: Sequence[Load], reference: Mapping[str, Tensor], *, held: int = 2
) -> np.ndarray:
    """Return G_ij = <theta_i - r, theta_j - r>, (n, n), accumulated in float64.

    Args:
        points: Load theta_i each time they are called.
        reference: r, by name; the CPU holds it all the time.
        held: Points in memory at a time, 2 or more. Each is loaded n / (2 (held - 1)) times about.

    Raises:
        ComponentError: For a point with an entry that is NaN or infinite.
    """
    count, block = len(points), max(1, held - 1)
    gram = np.zeros((count, count))
    for first in range(0, count, block):
        rows = range(first, min(first + block, count))
        _fill_rows(gram, rows, points, reference)
    bad = np.flatnonzero(~np.isfinite(np.diag(gram)))
    if len(bad):
        raise ComponentError(f"expected finite weights, got NaN or infinite ones at point {bad[0]}")
    return gram


def _fill_rows(
    gram: np.ndarray, rows: range, points: Sequence[Load], reference: Mapping[str, Tensor]
) -> None:
    kept = {i: points[i]() for i in rows}
    for i in rows:
        for j in range(i, rows.stop):
            gram[i, j] = gram[j, i] = _product(kept[i], kept[j], reference)
    for j in range(rows.stop, len(gram)):
        gram[rows.start : rows.stop, j] = gram[j, rows.start : rows.stop] = _products(
            [kept[i] for i in rows], points[j], reference
        )


def _products(
    kept: Sequence[Mapping[str, Tensor]], load: Load, reference: Mapping[str, Tensor]
) -> list[float]:
    other = load()  # gone again before the next one is loaded
    return [_product(one, other, reference) for one in kept]


def _product(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> float:
    total = 0.0
    for name, tensor in reference.items():
        origin = tensor.double()
        product = (a[name].double() - origin) * (b[name].double() - origin)
        total += _sum(product)
    return total


def _sum(tensor: Tensor) -> float:
    # NumPy's sum is pairwise and of one thread: the same on any number of cores.
    return float(np.sum(tensor.numpy()))


def principal_components(gram: np.ndarray) -> Components:
    """Return the principal components of points, the covariance centred, from their Gram matrix.

    Args:
        gram: (n, n) inner products of their differences to any one point.

    Raises:
        ComponentError: For fewer than two points, or points that do not differ.
    """
    count = len(gram)
    if count < 2:
        raise ComponentError(f"expected two points or more, got {count}")
    eigenvalues, vectors = np.linalg.eigh(_centred(gram))
    eigenvalues = np.clip(eigenvalues[::-1][: count - 1], 0.0, None)
    vectors = vectors[:, ::-1].T[: count - 1]
    if not eigenvalues[0] > 0:
        raise ComponentError(f"expected points that differ, got {count} equal ones")
    known = int(np.sum(eigenvalues > ROUNDING * eigenvalues[0]))
    signs = np.array([_sign(vector) for vector in vectors[:known]])
    weights = signs[:, None] * vectors[:known] / np.sqrt(eigenvalues[:known, None])
    weights -= weights.mean(axis=1, keepdims=True)
    return Components(weights, eigenvalues / (count - 1), eigenvalues / eigenvalues.sum())


def _centred(gram: np.ndarray) -> np.ndarray:
    """Return the Gram matrix of the same points about their mean."""
    means = gram.mean(axis=0)
    return gram - means[:, None] - means[None, :] + means.mean()


def _sign(vector: np.ndarray) -> float:
    sizes = np.abs(vector)
    first = int(np.flatnonzero(sizes >= (1 - ALIKE) * sizes.max())[0])
    return float(np.sign(vector[first]))


def component_tensors(
    points: Sequence[Load],
    reference: Mapping[str, Tensor],
    components: Components,
    number: int,
) -> Tensors:
    """Return a principal component as tensors in float64, of norm 1; each point is loaded once.

    Two of them are orthogonal to 1e-16 times the ratio of their singular values.

    Args:
        points: As those of the Gram matrix.
        reference: The same r.
        components: Of that matrix.
        number: 0 for the component of the largest variance.

    Raises:
        ComponentError: For a component that the points do not have.
    """
    if not 0 <= number < len(components.weights):
        raise ComponentError(
            f"expected a principal component from 0 to {len(components.weights) - 1} of "
            f"{len(components.variances) + 1} points, got {number}"
        )
    made = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in reference.items()}
    for load, share in zip(points, components.weights[number], strict=True):
        _add_point(made, float(share), load, reference)
    size = sum(_sum(tensor.square()) for tensor in made.values()) ** 0.5
    return {name: tensor / size for name, tensor in made.items()}


def _add_point(made: Tensors, share: float, load: Load, reference: Mapping[str, Tensor]) -> None:
    point = load()  # gone again before the next one is loaded
    for name, origin in reference.items():
        made[name] += share * (point[name].double() - origin.double())


def random_walk_ratios(gram: np.ndarray, paths: Sequence[Sequence[int]]) -> np.ndarray:
    r"""Return the explained variance ratios of random walks in place of paths, (n - 1,).

    Each walk begins where its path does and takes as many steps, all of the path's root mean
    square step length, in so many dimensions that every two steps are orthogonal: <w_i, w_j> is
    s^2 min(i, j), i and j counted from the start. Of one path of N points the k-th ratio is
    1 / sin^2(pi k / 2N) over the sum of these; 6 / (pi k)^2 for long ones.

    Args:
        gram: Of the paths' points, as `gram_matrix` returns it.
        paths: The places of each path's points in it, in the order of the path.
    """
    starts = [path[0] for path in paths]
    walks = np.zeros_like(gram)
    for path, start in zip(paths, starts, strict=True):
        for other, there in zip(paths, starts, strict=True):
            walks[np.ix_(path, other)] += gram[start, there]
        steps = [gram[b, b] - 2 * gram[a, b] + gram[a, a] for a, b in pairwise(path)]
        along = np.arange(len(path))
        if steps:
            walks[np.ix_(path, path)] += np.mean(steps) * np.minimum.outer(along, along)
    return principal_components(walks).ratios
