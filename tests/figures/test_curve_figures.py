from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from isoloss.figures.curve import curve_figure, flawed_spans
from isoloss.figures.fields import field
from isoloss.figures.style import FigureError
from isoloss.records.surfaces import SurfaceData

X = np.linspace(-1.0, 1.0, 9)


def curve(**changed: np.ndarray) -> SurfaceData:
    values = {"train_loss": 0.01 + X**2, "train_acc": 99 - 50 * X**2}
    values |= {"test_loss": 0.05 + X**2, "test_acc": 98 - 50 * X**2}
    done = changed.pop("done", np.ones(9, dtype=bool))
    values |= changed
    return SurfaceData(X, None, values, done, {key: float(v[4]) for key, v in values.items()}, {})


def texts(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


def test_lines_are_the_data_on_their_axes() -> None:
    figure = curve_figure(curve())
    left, right = figure.axes
    train, test, *_ = left.lines
    np.testing.assert_array_equal(train.get_ydata(), 0.01 + X**2)
    np.testing.assert_array_equal(right.lines[1].get_ydata(), 98 - 50 * X**2)
    assert (train.get_linestyle(), test.get_linestyle()) == ("-", "--")
    assert left.get_yscale() == "log"  # 0.01 to 1.05
    assert left.get_ylabel() == "loss (log scale)"
    assert right.get_ylabel() == "accuracy (%)"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "train loss (0.01 at 0)",
        "test loss (0.05 at 0)",
        "train accuracy (99 at 0)",
        "test accuracy (98 at 0)",
    ]
    assert texts(figure) == ""


def test_two_decades_stay_linear() -> None:
    figure = curve_figure(curve(train_loss=0.1 + X**2, test_loss=0.2 + X**2))
    assert figure.axes[0].get_yscale() == "linear"
    assert figure.axes[0].get_ylabel() == "loss"


def test_flawed_points_are_spans_and_pending_ones_are_left_out() -> None:
    loss = 0.01 + X**2
    loss[[2, 3, 8]] = np.nan, np.inf, np.nan
    done = np.ones(9, dtype=bool)
    done[8] = False
    data = curve(train_loss=loss, done=done)
    assert flawed_spans(field(data, "train_loss")) == [(X[2] - 0.125, X[3] + 0.125)]
    figure = curve_figure(data)
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 1
    assert "non-finite" in [text.get_text() for text in figure.legends[0].get_texts()]
    note = texts(figure)
    assert "train loss: hatched: 2 of 9 points non-finite (1 NaN, 1 inf)" in note
    assert "left out: 1 of 9 points pending" in note
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[[2, 3, 8]]).all()


def test_zeros_of_a_logarithmic_curve_lie_at_its_lower_end() -> None:
    loss = X**2
    loss[3] = 1e-3
    drawn = curve_figure(curve(train_loss=loss)).axes[0].lines[0].get_ydata()
    assert drawn[4] == 1e-3


@pytest.mark.parametrize(
    "values", [np.full(9, np.nan), np.full(9, np.inf), np.zeros(9), -(X**2), 1e300 * X**2]
)
def test_degenerate_curves_are_drawn(values: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve_figure(curve(train_loss=values, test_loss=values)).draw_without_rendering()
        one = SurfaceData(np.zeros(1), None, {"train_loss": values[:1]}, np.ones(1, bool), {}, {})
        curve_figure(one).draw_without_rendering()


def test_a_surface_gives_its_row_through_the_origin() -> None:
    values = np.arange(27.0).reshape(3, 9)
    data = SurfaceData(
        X, np.array([-1.0, 0, 1]), {"train_loss": values}, np.ones((3, 9), bool), {}, {}
    )
    np.testing.assert_array_equal(curve_figure(data).axes[0].lines[0].get_ydata(), values[1])
    with pytest.raises(FigureError, match="misses 0"):
        curve_figure(SurfaceData(X, np.array([1.0, 2, 3]), data.values, data.done, {}, {}))
    with pytest.raises(FigureError, match="expected a loss or an accuracy"):
        curve_figure(SurfaceData(X, None, {"max_eig": X}, np.ones(9, bool), {}, {}))


@pytest.mark.parametrize("drawn", ["balanced", "proportional"])
def test_a_class_balanced_sample_is_named_in_the_figure(drawn: str) -> None:
    settings = {"sample": {"train": {"drawn": drawn}}}
    data = SurfaceData(X, None, {"train_loss": X**2}, np.ones(9, dtype=bool), {}, settings)
    assert ("class-balanced sample" in texts(curve_figure(data))) is (drawn == "balanced")
