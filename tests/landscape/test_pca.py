"""Principal components of checkpoints: against sklearn's, random walks in closed form, memory."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from isoloss.landscape.directions.pca import (
    ComponentError,
    component_tensors,
    gram_matrix,
    principal_components,
    random_walk_ratios,
)

F64 = torch.float64
SHAPES = {"conv": (4, 2, 3, 3), "linear": (5, 7), "bias": (5,), "scale": ()}


def points(count, seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    return [
        {n: torch.randn(s, generator=generator, dtype=F64).to(dtype) for n, s in SHAPES.items()}
        for _ in range(count)
    ]


def loads(tensors):
    return [lambda one=one: one for one in tensors]


def stacked(tensors):
    return np.array([np.concatenate([t.reshape(-1) for t in p.values()]) for p in tensors]).astype(
        float
    )


def made(tensors, which, reference=None, held=2):
    reference = tensors[-1] if reference is None else reference
    components = principal_components(gram_matrix(loads(tensors), reference, held=held))
    return components, [component_tensors(loads(tensors), reference, components, k) for k in which]


@pytest.mark.parametrize("reference", ["the last point", "another point", "zero"])
def test_they_are_those_of_sklearn_on_stacked_vectors(reference):
    tensors = points(9)
    zero = {n: torch.zeros(s, dtype=F64) for n, s in SHAPES.items()}
    about = {"the last point": tensors[-1], "another point": points(1, seed=5)[0], "zero": zero}
    about = about[reference]
    which = [0, 1, 4, 7]
    components, directions = made(tensors, which, about)
    expected = PCA().fit(stacked(tensors))
    # Both are backward stable in float64; inner products are of about 100.
    np.testing.assert_allclose(components.variances, expected.explained_variance_[:8], rtol=1e-12)
    np.testing.assert_allclose(
        components.ratios, expected.explained_variance_ratio_[:8], rtol=1e-12
    )
    cosines = stacked(directions) @ expected.components_[which].T
    np.testing.assert_allclose(np.abs(cosines), np.eye(4), atol=1e-10)


def test_small_components_beside_large_ones_are_orthonormal_and_those_of_sklearn():
    tensors, axes = points(7), points(6, seed=1)
    for number, (point, axis) in enumerate(zip(tensors, axes, strict=False)):
        for name in point:
            point[name] = 10.0**-number * axis[name]
    components, directions = made(tensors, [0, 1, 2, 3])
    rows = stacked(directions)
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-12)  # 1e-16 times 1e3
    expected = PCA(svd_solver="full").fit(stacked(tensors))
    # A singular value 1e-3 of the largest has an eigenvalue 1e-6 of its: rounding is 1e-10 of it.
    np.testing.assert_allclose(
        np.abs(np.sum(rows * expected.components_[:4], axis=1)), 1.0, rtol=1e-10
    )
    np.testing.assert_allclose(
        components.variances[:4], expected.explained_variance_[:4], rtol=1e-9
    )


def test_float32_checkpoints_are_taken_apart_in_float64():
    tensors = points(5)
    near = [
        {n: (10.0 + 1e-3 * t).float() for n, t in point.items()} for point in tensors
    ]  # differences of 1e-3 beside weights of 10: float32 keeps 3 digits of them, exactly
    components, _ = made(near, [0])
    expected = PCA().fit(stacked(near))
    np.testing.assert_allclose(components.ratios, expected.explained_variance_ratio_[:4], rtol=1e-9)


def test_signs_do_not_depend_on_rounding_or_on_the_reference():
    tensors = points(6)
    for reference in (tensors[-1], tensors[0], points(1, seed=7)[0]):
        components, directions = made(tensors, [0, 1, 2], reference)
        scores = (stacked(tensors) - stacked(tensors).mean(axis=0)) @ stacked(directions).T
        for column in scores.T:
            assert column[np.abs(column).argmax()] > 0
        np.testing.assert_allclose(components.weights.sum(axis=1), 0.0, atol=1e-14)


class Counted(dict):
    """A network that knows how many of its kind are held."""

    alive = weakref.WeakSet()  # noqa: RUF012 (of all of them)
    most = 0
    loads = 0

    def __init__(self, tensors):
        super().__init__(tensors)
        Counted.alive.add(self)
        Counted.loads += 1
        Counted.most = max(Counted.most, len(Counted.alive))

    __hash__ = object.__hash__


@pytest.mark.parametrize(("held", "most", "loaded"), [(2, 2, 45), (4, 4, 18), (100, 9, 9)])
def test_no_more_points_are_held_than_said(held, most, loaded):
    tensors = points(9)
    Counted.most = Counted.loads = 0
    counted = [lambda one=one: Counted(one) for one in tensors]
    gram = gram_matrix(counted, tensors[-1], held=held)
    assert (Counted.most, Counted.loads) == (most, loaded)
    np.testing.assert_array_equal(gram, gram_matrix(loads(tensors), tensors[-1]))
    Counted.most = Counted.loads = 0
    component_tensors(counted, tensors[-1], principal_components(gram), 2)
    assert (Counted.most, Counted.loads) == (1, 9)
    assert not Counted.alive


@pytest.mark.parametrize("count", [2, 3, 9, 101])
def test_a_random_walk_has_the_variances_of_a_path_graph(count):
    # The centred min(i, j) is the pseudo-inverse of the path graph's Laplacian, whose eigenvalues
    # are 4 sin^2(pi k / 2N); sum 1 / sin^2 = 2 (N^2 - 1) / 3.
    steps = np.arange(count)
    found = random_walk_ratios(3.0 * np.minimum.outer(steps, steps), [range(count)])
    k = np.arange(1, count)
    expected = 1 / np.sin(np.pi * k / (2 * count)) ** 2 * 3 / (2 * (count**2 - 1))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_of_a_long_walk_61_percent_are_along_the_first_component():
    steps = np.arange(1000)
    found = random_walk_ratios(np.minimum.outer(steps, steps).astype(float), [range(1000)])
    np.testing.assert_allclose(found[:3], 6 / (np.pi * np.arange(1, 4)) ** 2, rtol=1e-5)


def test_a_simulated_walk_in_many_dimensions_has_them():
    generator = np.random.default_rng(0)
    walk = generator.standard_normal((20, 100_000)).cumsum(axis=0)
    found = PCA().fit(walk).explained_variance_ratio_[:19]
    steps = np.arange(20)
    expected = random_walk_ratios(np.minimum.outer(steps, steps).astype(float), [range(20)])
    # <w_i, w_j> / D has a relative standard deviation of (2 / D)^0.5 = 0.5 %.
    np.testing.assert_allclose(found[:3], expected[:3], rtol=0.02)


def test_walks_of_several_runs_from_one_start_are_simulated_right():
    generator = np.random.default_rng(1)
    start, lengths, scales = generator.standard_normal(100_000), (8, 12), (1.0, 3.0)
    walks = [
        start + scale * np.vstack([np.zeros_like(start),
                                   generator.standard_normal((n, len(start))).cumsum(axis=0)])
        for n, scale in zip(lengths, scales, strict=True)
    ]  # fmt: skip
    every = np.vstack(walks)
    paths = [range(9), range(9, 22)]
    found = random_walk_ratios(every @ every.T, paths)
    np.testing.assert_allclose(found[:3], PCA().fit(every).explained_variance_ratio_[:3], rtol=0.03)


def test_a_straight_path_is_not_taken_for_a_walk():
    line = np.arange(10.0)[:, None]
    gram = line @ line.T
    assert principal_components(gram).ratios[0] == pytest.approx(1.0, abs=1e-15)
    expected = 3 / (2 * 99 * np.sin(np.pi / 20) ** 2)
    assert random_walk_ratios(gram, [range(10)])[0] == pytest.approx(expected, rel=1e-12)


def test_what_has_no_components_is_refused():
    one, other = points(2)
    with pytest.raises(ComponentError, match="two points or more, got 1"):
        made([one], [0])
    with pytest.raises(ComponentError, match="points that differ, got 3 equal ones"):
        made([one, one, one], [0])
    with pytest.raises(ComponentError, match="from 0 to 0 of 2 points, got 1"):
        made([one, other], [1])
    with pytest.raises(ComponentError, match="from 0 to 0 of 4 points, got 1"):
        made([one, other, other, one], [0, 1])
    with pytest.raises(ComponentError, match="from 0 to 0 of 2 points, got -1"):
        made([one, other], [-1])
    other["bias"][2] = float("nan")
    with pytest.raises(ComponentError, match="NaN or infinite ones at point 1"):
        made([one, other], [0], one)
