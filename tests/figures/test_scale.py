from __future__ import annotations

import numpy as np
import pytest

from isoloss.figures.scale import CLIP, prefers_log, shared_scale


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([0.1, 1.0, 9.9], False),
        ([0.1, 10.0], False),  # two decades, not more
        ([0.1, 10.1], True),
        ([0.0, 0.1, 10.1], True),
        ([-1e-9, 0.1, 10.1], False),
        ([0.0, 0.0], False),
        ([np.nan, np.inf], False),
        ([np.nan, 1e-3, np.inf, 1.0], True),
        ([], False),
    ],
)
def test_log_rule(values: list[float], log: bool) -> None:
    assert prefers_log(np.array(values)) is log
    assert shared_scale([np.array(values)]).log is log


def test_shared_limits_are_those_of_all_arrays_together() -> None:
    scale = shared_scale([np.array([[0.5, 2.0]]), np.array([0.25, np.nan]), np.array([np.inf])])
    assert (scale.vmin, scale.vmax, scale.clipped) == (0.25, 2.0, False)


def test_geometric_levels_are_round_and_dense_near_the_minimum() -> None:
    levels = shared_scale([np.array([0.012, 300.0])]).levels
    assert levels == (
        0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0,
    )  # fmt: skip


@pytest.mark.parametrize("low", [1e-12, 1e-3, 1.0])
@pytest.mark.parametrize("ratio", [1.001, 5.0, 1e3, 1e9, 1e40])
@pytest.mark.parametrize("log", [True, False])
def test_levels_lie_inside_and_are_neither_too_few_nor_too_many(
    low: float, ratio: float, log: bool
) -> None:
    scale = shared_scale([np.array([low, low * ratio])], log=log, clip=False)
    levels = np.array(scale.levels)
    assert np.all((levels > scale.vmin) & (levels < scale.vmax) & (np.diff(levels, prepend=0) > 0))
    assert len(levels) <= 23
    if not log or ratio >= 1e3:
        assert len(levels) >= 4


def test_outliers_are_clipped_on_a_log_scale_only_where_allowed() -> None:
    values = np.array([0.01] * 5 + [1.0] * 3 + [2.0, 1e9])
    assert shared_scale([values]).vmax == CLIP * 2.0
    assert shared_scale([values]).clipped
    assert shared_scale([values], clip=False).vmax == 1e9
    assert not shared_scale([values], log=False).clipped
    walls = np.array([1e-3] * 7 + [50.0] * 3)  # a wide basin with steep walls is no outlier
    assert shared_scale([walls]).vmax == 50.0


def test_heights_are_logarithms_with_zeros_at_the_floor() -> None:
    scale = shared_scale([np.array([0.0, 0.01, 100.0])])
    np.testing.assert_allclose(scale.height([0.0, 0.01, 1.0, 100.0]), [-2, -2, 0, 2], atol=1e-12)
    assert np.isnan(scale.height([np.inf, np.nan])).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 1e30])
def test_a_constant_lies_strictly_inside_its_scale(value: float) -> None:
    for log in (None, True):
        scale = shared_scale([np.full((2, 3), value)], log=log)
        assert scale.vmin < value < scale.vmax
