"""Projected trajectories, against points put on a plane by hand."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from isoloss.records.files import FileError
from isoloss.records.ll import read_projection


def written(path, x, y):
    with h5py.File(path, "w") as file:
        file["proj_xcoord"], file["proj_ycoord"] = x, y
    return path


def test_lengths_become_the_multiples_that_the_points_were_made_of(tmp_path):
    generator = np.random.default_rng(0)
    shapes = [(4, 3), (4,), ()]
    first, second = ([generator.normal(size=s) for s in shapes] for _ in range(2))
    # A count of batches, which has no dimension, is no part of what that code projects.
    x, y = (np.concatenate([a.ravel() for a in d if a.shape]) for d in (first, second))
    made = generator.normal(size=(6, 2))  # far from orthogonal directions, and not of norm 1
    points = made @ np.stack([x, y])
    lengths = [points @ d / np.linalg.norm(d) for d in (x, y)]
    found = read_projection(written(tmp_path / "d.h5_proj_cos.h5", *lengths))
    np.testing.assert_array_equal(found.x, lengths[0])
    # 1e-12: float64, a 2 x 2 system of condition below 10.
    np.testing.assert_allclose(np.transpose(found.on_plane(first, second)), made, atol=1e-12)


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_directions_that_span_no_plane_are_refused(tmp_path, factor):
    found = read_projection(written(tmp_path / "p.h5", np.ones(2), np.ones(2)))
    with pytest.raises(FileError, match="span a plane"):
        found.on_plane([np.ones(3)], [factor * np.ones(3)])
    with pytest.raises(FileError, match="one network, got 3 and 2"):
        found.on_plane([np.ones(3)], [np.ones(2)])
    with pytest.raises(FileError, match="span a plane"):
        found.on_plane([np.ones(())], [np.ones(())])


def test_what_is_no_projection_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["weights"] = np.ones(2)
    with pytest.raises(FileError, match=r"expected `proj_xcoord` in .*weights"):
        read_projection(tmp_path / "a.h5")
    with pytest.raises(FileError, match=r"shape \(3\)"):
        read_projection(written(tmp_path / "b.h5", np.ones(3), np.ones(2)))
