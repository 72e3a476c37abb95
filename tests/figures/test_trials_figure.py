from __future__ import annotations

import numpy as np
import pytest

from isoloss.figures.style import FigureError
from isoloss.figures.trials import Trial, trials_figure

TRIALS = [
    Trial(1, 0.90, 0.01, {"lr": 0.1, "optimizer": "sgd"}),
    Trial(2, None, None, {"lr": 10.0, "optimizer": "sam"}),
    Trial(3, 0.94, 0.01, {"lr": 0.01, "optimizer": "sam"}),
    Trial(4, 0.20, 0.02, {"lr": 1.0, "optimizer": "sgd"}),
    Trial(5, 0.93, 0.01, {"lr": 0.02, "optimizer": "sgd"}),
]
SCALES = {"lr": "log", "optimizer": "category"}


def points(axes, marker="o"):
    lines = [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata())]
    filled = [line for line in lines if line.get_markerfacecolor() != "none"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in filled]


def test_every_trial_stands_where_it_belongs() -> None:
    figure = trials_figure(TRIALS, SCALES, best=3, title="a")
    history, lr, optimizer = figure.axes
    np.testing.assert_allclose(points(history), [(1, 90), (3, 94), (5, 93)])
    np.testing.assert_allclose(points(lr), [(0.1, 90), (0.01, 94), (0.02, 93)])
    assert lr.get_xscale() == "log"
    assert [x for x, _ in points(lr, "x")] == [10.0]  # failed
    assert [x for x, _ in points(lr, 7)] == [1.0]  # below the axis
    assert [text.get_text() for text in optimizer.get_xticklabels()] == ["sam", "sgd"]
    assert [round(x) for x, _ in points(optimizer)] == [1, 0, 1]
    best = next(line for line in history.lines if line.get_label() == "best so far")
    np.testing.assert_allclose(best.get_ydata(), [90, 94, 94, 94, 94])
    rings = [line for line in history.lines if line.get_markerfacecolor() == "none"]
    assert [line.get_xdata()[0] for line in rings] == [3]
    assert "1 failed" in figure.get_supxlabel()
    assert "below the axis" in figure.get_supxlabel()


@pytest.mark.parametrize("value", [0, 3, 1e-4, True])
def test_one_trial_is_in_view(value: float) -> None:
    scale = "log" if value == 1e-4 else "linear"
    _, axes = trials_figure([Trial(1, 0.5, 0.1, {"x": value})], {"x": scale}).axes
    low, high = axes.get_xlim()
    assert low < value < high
    assert axes.get_ylim()[0] <= 40
    assert axes.get_ylim()[1] >= 60


def test_without_any_accuracy() -> None:
    with pytest.raises(FigureError, match="one completed trial"):
        trials_figure([TRIALS[1]], SCALES)
