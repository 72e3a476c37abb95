"""Densities of two NumPy files, against quadratures and smoothing derived here."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from isoloss.records.density_pair import pair_images, read_density_pair
from isoloss.records.files import FileError


def quadrature(probes=2, steps=6, seed=0):
    """Eigenvalues and eigenvectors (columns) of random symmetric matrices, not in order."""
    generator = np.random.default_rng(seed)
    nodes, vectors = np.empty((probes, steps)), np.empty((probes, steps, steps))
    for row in range(probes):
        matrix = generator.normal(size=(steps, steps))
        nodes[row], vectors[row] = np.linalg.eigh(matrix + matrix.T)
        order = generator.permutation(steps)
        nodes[row], vectors[row] = nodes[row, order], vectors[row][:, order]
    return nodes, vectors


def saved(folder, nodes, weights, name="gcn_adam"):
    np.save(folder / f"{name}_eigen.npy", nodes)
    np.save(folder / f"{name}_weight.npy", weights)
    return folder / f"{name}_eigen.npy"


@pytest.mark.parametrize("given", ["eigen", "weight"])
@pytest.mark.parametrize("kind", ["f8", "f4", "c8", "c16"])
@pytest.mark.parametrize("whole", [False, True])
def test_the_quadrature_is_read(tmp_path, whole, kind, given):
    nodes, vectors = quadrature()
    weights = vectors[:, 0, :] ** 2
    stored = vectors**2 if whole else weights
    saved(tmp_path, nodes.astype(kind), stored.astype(kind))
    data = read_density_pair(tmp_path / f"gcn_adam_{given}.npy")
    assert data.settings == {"label": "gcn_adam"}
    found = data.density
    assert bool(found.account["note"]) == whole
    assert (np.diff(found.nodes, axis=1) > 0).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-15)
    # The moments of the measure do not depend on the order of the nodes; single precision.
    for power in range(4):
        np.testing.assert_allclose(
            (found.weights * found.nodes**power).sum(axis=1),
            (weights * nodes**power).sum(axis=1),
            rtol=2e-5, atol=2e-5,
        )  # fmt: skip


def test_the_curve_is_a_sum_of_gaussians_of_mass_one(tmp_path):
    nodes, vectors = quadrature()
    weights = vectors[:, 0, :] ** 2
    found = read_density_pair(saved(tmp_path, nodes, weights)).density
    width = found.account["bandwidth"]
    assert width == pytest.approx(0.005 * np.ptp(nodes), rel=1e-12)
    step = found.grid[1] - found.grid[0]
    # 1e-6: the margin of 5 bandwidths leaves 6e-7 of the outermost Gaussians.
    assert found.curve.sum() * step == pytest.approx(1, abs=1e-6)
    each = [
        sum(w * np.diff(stats.norm.cdf(np.append(found.grid - step / 2, found.grid[-1] + step / 2),
                                       t, width))
            for t, w in zip(*row, strict=True)) / step
        for row in zip(nodes, weights, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(found.curve, np.mean(each, axis=0), atol=1e-9)
    np.testing.assert_allclose(found.low, np.min(each, axis=0), atol=1e-9)
    np.testing.assert_allclose(found.high, np.max(each, axis=0), atol=1e-9)


def test_one_probe_may_be_a_vector_and_steps_as_many_as_probes(tmp_path):
    nodes, vectors = quadrature(1)
    for stored in (vectors[0, 0] ** 2, vectors[0] ** 2):
        found = read_density_pair(saved(tmp_path, nodes[0], stored)).density
        np.testing.assert_allclose(found.weights[0], (vectors[0, 0] ** 2)[nodes[0].argsort()])
    nodes, vectors = quadrature(4, 4)
    found = read_density_pair(saved(tmp_path, nodes, vectors[:, 0] ** 2)).density
    assert found.nodes.shape == (4, 4)
    assert not found.account["note"]


def test_what_is_written_is_read_as_it_was(tmp_path):
    nodes, vectors = quadrature()
    path = saved(tmp_path, nodes, vectors[:, 0, :] ** 2)
    before = read_density_pair(path).density
    for name, content in zip(("eigen", "weight"), pair_images(before), strict=True):
        (tmp_path / f"again_{name}.npy").write_bytes(content)
    after = read_density_pair(tmp_path / "again_eigen.npy").density
    np.testing.assert_array_equal(after.nodes, before.nodes)
    np.testing.assert_allclose(after.weights, before.weights, rtol=1e-15)
    # What reads such files elsewhere: two arrays (probes, steps).
    assert np.load(tmp_path / "again_weight.npy").dtype == np.float64


GOOD = np.full((2, 4), 0.25)


@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        (GOOD, GOOD[:, :3], r"\(2, 4\) and \(2, 3\)"),
        (np.ones((2, 2, 2)), GOOD, r"\(probes, steps\)"),
        (np.ones((0, 4)), np.ones((0, 4)), r"\(probes, steps\)"),
        (1.0, 1.0, r"\(probes, steps\)"),
        (GOOD, 2 * GOOD, "sum for each probe is 1, got sums from 2 to 2"),
        (GOOD, [[1.5, -0.5, 0, 0]] * 2, "0 or more .* the least weight -0.5"),
        (GOOD * np.nan, GOOD, "finite"),
        (GOOD * 1e200, GOOD, "1e100"),
        (GOOD, GOOD * np.inf, "finite"),
        (GOOD + 1e-3j, GOOD, "imaginary"),
        (GOOD * (np.nan + 1j), GOOD, "imaginary"),
        (np.array([["a"]]), GOOD, "expected numbers .* got <U1"),
        (np.array([None]), GOOD, "unpickled: that runs code"),
        (np.array(["2020-01-01"], "M8"), GOOD, "expected numbers"),
    ],
)
def test_what_is_no_quadrature_is_refused(tmp_path, nodes, weights, message):
    np.save(tmp_path / "a_eigen.npy", nodes, allow_pickle=True)
    np.save(tmp_path / "a_weight.npy", weights)
    with pytest.raises(FileError, match=message) as caught:
        read_density_pair(tmp_path / "a_eigen.npy")
    assert len(str(caught.value).splitlines()) <= 3
    assert "delete" not in str(caught.value)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileError, match=r"NAME_eigen.npy with NAME_weight.npy beside it, got"):
        read_density_pair(tmp_path / "weights.npy")
    path = saved(tmp_path, GOOD, GOOD)
    (tmp_path / "gcn_adam_weight.npy").unlink()
    with pytest.raises(FileError, match=r"no file at .*gcn_adam_weight\.npy"):
        read_density_pair(path)
    saved(tmp_path, GOOD, GOOD)
    content = path.read_bytes()
    for wrong in (*(content[:n] for n in range(0, len(content), 7)), content + b"0", b"\x80\x04"):
        path.write_bytes(wrong)
        with pytest.raises(FileError) as caught:
            read_density_pair(path)
        assert "delete" not in str(caught.value)


def test_a_claim_of_terabytes_allocates_nothing(tmp_path):
    path = saved(tmp_path, GOOD, GOOD)
    # As long a head as before.
    content = path.read_bytes().replace(b"(2, 4), }" + b" " * 12, b"(999999999999, 4), } ")
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"expected 31999999999968 bytes .* got 64: .* cut short"):
        read_density_pair(path)
