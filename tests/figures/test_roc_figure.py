from __future__ import annotations

import numpy as np
import pytest

from isoloss.figures.roc import LARGEST_APART, RocSeries, roc_figure
from isoloss.figures.style import FigureError


def series(count: int) -> list[RocSeries]:
    rates = np.linspace(0, 1, 21)
    return [
        RocSeries(f"c{k}", rates, rates ** (1 / (k + 2)), 1 - 1 / (k + 3), 0.01)
        for k in range(count)
    ]


def test_both_panels_show_each_curve_and_the_legend_its_area() -> None:
    figure = roc_figure(series(3), title="run a", notes=["no curve for Q"])
    left, right = figure.axes
    for axes in (left, right):
        for line, curve in zip(axes.lines, series(3), strict=False):
            np.testing.assert_array_equal(line.get_ydata(), curve.true_positive_rate)
            # A rate of 0 stands at the edge of the log scale, half the smallest one or less.
            np.testing.assert_array_equal(line.get_xdata()[1:], curve.false_positive_rate[1:])
            assert line.get_xdata()[0] == 0.02
    assert right.get_xscale() == "log"
    assert right.get_xlim() == (0.02, 1.0)
    names = [text.get_text() for text in figure.legends[0].texts]
    assert names == ["c0:  0.667 ± 0.010", "c1:  0.750 ± 0.010", "c2:  0.800 ± 0.010"]
    assert figure.get_supxlabel() == "± is one standard error over samples; no curve for Q"


@pytest.mark.parametrize("count", [1, LARGEST_APART, LARGEST_APART + 3])
def test_curves_are_told_apart_or_grey(count: int) -> None:
    left, _ = roc_figure(series(count)).axes
    looks = [(line.get_color(), str(line._dash_pattern)) for line in left.lines[:-1]]
    told = [look for look in looks if look[0] != "0.8"]
    assert len(looks) == count
    assert len(told) == len(set(told)) == (count if count <= LARGEST_APART else 5)
    labels = [text.get_text()[:2] for text in left.figure.legends[0].texts]
    if count > LARGEST_APART:
        assert labels == ["c0", "c1", "c2", "c3", "c4"]  # the smallest areas


def test_nothing_to_draw() -> None:
    with pytest.raises(FigureError, match="one ROC curve or more"):
        roc_figure([])
