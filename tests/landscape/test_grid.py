"""Axes and grids: both ends, an exact zero, row-major points, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from isoloss.landscape.grid import Axis, Grid, GridError


def test_both_ends_and_an_exact_zero():
    for text in ("-1:1:11", "-1:1:7", "-0.3:0.3:31", "-2:1:31", "0:1:51", "1:1.000001:3"):
        axis = Axis.parse(text)
        assert axis.points[0] == axis.low
        assert axis.points[-1] == axis.high
        assert len(axis.points) == axis.count
        assert (0.0 in axis.points) == (axis.low <= 0)
        assert axis.text == text


def test_points_are_numbered_row_by_row():
    grid = Grid.parse("-1:1:5", "0:2:3")
    assert grid.shape == (3, 5)
    assert grid.size == 15
    table = np.array([grid.coordinates(i) for i in range(15)]).reshape(3, 5, 2)
    np.testing.assert_array_equal(table[:, :, 0], np.tile(grid.x.points, (3, 1)))
    np.testing.assert_array_equal(table[:, :, 1], np.tile(grid.y.points[:, None], (1, 5)))
    assert Grid.parse("-1:1:5").coordinates(4) == (1.0,)


@pytest.mark.parametrize(
    "text",
    ["1:-1:20", "-1:1:0", "-1:1:1", "-1:1:-3", "a:b:c", "-1:1", "-1:1:5:7", "nan:1:5", "-1:inf:5",
     "-1:1:2.5", "", "1:1:2"],
)  # fmt: skip
def test_malformed_axes_are_refused(text):
    with pytest.raises(GridError, match="y axis: expected"):
        Grid.parse("-1:1:3", text)


def test_a_single_point_is_an_axis():
    assert Axis.parse("0:0:1").points.tolist() == [0.0]


def test_ends_of_very_different_size_are_both_included():
    points = Grid.parse("-19223372036854775808:1:51").x.points
    assert points[0] == -19223372036854775808.0
    assert points[-1] == 1.0
