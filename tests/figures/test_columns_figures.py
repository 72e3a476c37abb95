"""Figures of any column, of the ratio of eigenvalues, of several curves, at the scale asked for."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from isoloss.figures.curve import curve_figure, curves_figure
from isoloss.figures.fields import field, scale_of
from isoloss.figures.ratio import RATIO, with_ratio
from isoloss.figures.scale import Look, shared_scale
from isoloss.figures.style import FigureError
from isoloss.figures.surface import surface_figure
from isoloss.records.surface_data import Repeats, SurfaceData

X, Y = np.linspace(-1.0, 1.0, 5), np.linspace(0.0, 0.5, 3)
LOW = -np.linspace(0.0, 14.0, 15).reshape(3, 5)
HIGH = np.linspace(10.0, 38.0, 15).reshape(3, 5)


def eigenvalues(**more: np.ndarray) -> SurfaceData:
    values = {"train_loss": HIGH, "max_eig": HIGH, "min_eig": LOW, **more}
    origin = {"max_eig": 14.0, "min_eig": -2.0}
    return SurfaceData(X, Y, values, np.ones((3, 5), bool), origin, {})


def curve(x: np.ndarray = X, **values: np.ndarray) -> SurfaceData:
    return SurfaceData(x, None, values, np.ones(x.shape, bool), {}, {})


def texts(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def test_the_ratio_is_that_of_the_eigenvalues_from_zero_on_without_a_logarithm() -> None:
    data = with_ratio(eigenvalues())
    np.testing.assert_array_equal(data.values[RATIO], np.abs(LOW / HIGH))
    assert data.origin[RATIO] == 2 / 14
    figure = surface_figure(data, "heatmap", key=RATIO)
    (mesh,) = [a for a in figure.axes[0].get_children() if isinstance(a, QuadMesh)]
    np.testing.assert_array_equal(mesh.get_array(), np.abs(LOW / HIGH))
    assert figure.axes[1].get_ylabel() == "|smallest / largest eigenvalue|, linear scale"
    assert mesh.norm.vmin == 0.0
    assert "no negative eigenvalue at 1 of 15 points" in texts(figure)
    assert RATIO not in with_ratio(curve(train_loss=X**2)).values


def test_the_ratio_of_several_planes_is_the_median_of_their_ratios() -> None:
    each = {"min_eig": np.stack([LOW, 2 * LOW, 9 * LOW]), "max_eig": np.stack([HIGH] * 3)}
    repeats = Repeats(each, np.ones((3, 3, 5), bool))
    data = SurfaceData(
        X, Y, {"min_eig": LOW, "max_eig": HIGH}, np.ones((3, 5), bool), {}, {}, None, repeats
    )
    np.testing.assert_array_equal(field(with_ratio(data), RATIO).values, np.abs(2 * LOW / HIGH))


def test_a_largest_eigenvalue_of_zero_is_a_flawed_point() -> None:
    high = HIGH.copy()
    high[1, 2] = 0.0
    assert field(with_ratio(eigenvalues(max_eig=high)), RATIO).flawed.sum() == 1


def test_eigenvalues_that_did_not_converge_are_counted() -> None:
    residual = np.full((3, 5), 1e-6)
    residual[0, 0], residual[2, 4] = 0.2, 0.2  # of 10 and 38: 2 % and 0.5 %
    data = with_ratio(eigenvalues(max_eig_residual=residual))
    for key in ("max_eig", RATIO):
        assert "residual above 1 % of it at 1 points" in texts(surface_figure(data, key=key))
    assert "flatness" not in texts(surface_figure(data, key="max_eig", look=Look(log=True)))


def test_limits_levels_and_logarithm_are_those_asked_for() -> None:
    data = eigenvalues()
    look = Look(vmin=12.0, vmax=30.0, levels=(15.0, 20.0, 100.0))
    figure = surface_figure(data, "filled", key="max_eig", look=look)
    bands, lines = [a for a in figure.axes[0].get_children() if isinstance(a, QuadContourSet)]
    assert (bands.norm.vmin, bands.norm.vmax) == (12.0, 30.0)
    np.testing.assert_array_equal(lines.levels, [15.0, 20.0])
    assert "4 of 15 points above 30 drawn as that" in texts(figure)
    assert "1 of 15 points below 12 drawn as that" in texts(figure)
    assert figure.axes[1].get_ylabel() == "largest Hessian eigenvalue, linear scale"
    assert scale_of([field(data, "max_eig")], Look(log=True)).log
    counts = [len(scale_of([field(data, "max_eig")], Look(levels=n)).levels) for n in (3, 10, 30)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    ("look", "log", "ends"),
    [
        (Look(), False, (-1.0, 3.0)),
        (Look(vmin=0.0), False, (0.0, 3.0)),
        (Look(vmin=0.5, log=True), True, (0.5, 3.0)),
        (Look(log=True), False, (-1.0, 3.0)),  # cannot be: the caller says so
        (Look(vmin=0.001), True, (0.001, 3.0)),  # what is shown spans over two decades
        (Look(vmax=0.0), False, (-1.0, 0.0)),
    ],
)
def test_ends_that_are_asked_for_decide_what_can_be_logarithmic(look, log, ends) -> None:
    scale = look.scale([np.array([-1.0, 0.2, 3.0])])
    assert (scale.log, (scale.vmin, scale.vmax)) == (log, ends)


def test_values_beyond_both_ends_still_make_a_scale() -> None:
    for end in (Look(vmin=5.0), Look(vmax=-5.0)):
        scale = end.scale([np.array([0.0, 1.0])])
        assert scale.vmin < scale.vmax
        assert scale.below or scale.clipped
    assert not shared_scale([np.array([0.0, 1.0])], vmin=0.0).below


@pytest.mark.parametrize(
    "wrong", [{"vmin": 2.0, "vmax": 1.0}, {"vmin": 0.0, "log": True}, {"xlim": (1.0, 1.0)}]
)
def test_ends_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(FigureError, match="expected"):
        Look(**wrong)


def test_one_column_of_a_curve_and_its_axes() -> None:
    data = curve(train_loss=X**2, train_margin=X, test_margin=2 * X, grad_norm=np.abs(X) + 1)
    figure = curve_figure(data, ["test_margin", "train_margin"], look=Look(xlim=(-0.5, 0.5)))
    (axes,) = figure.axes
    train, test = axes.lines[:2]
    np.testing.assert_array_equal(train.get_ydata(), X)
    np.testing.assert_array_equal(test.get_ydata(), 2 * X)
    assert (train.get_linestyle(), test.get_linestyle()) == ("-", "--")
    assert (axes.get_ylabel(), axes.get_xlim()) == ("margin", (-0.5, 0.5))
    assert curve_figure(data, ["grad_norm"]).axes[0].get_ylabel() == "gradient norm"


def test_an_accuracy_by_itself_is_on_the_left() -> None:
    figure = curve_figure(curve(test_acc=90 + X), ["test_acc"], look=Look(vmin=85, vmax=95))
    (axes,) = figure.axes
    assert axes.get_ylabel() == "test accuracy (%)"
    low, high = axes.get_ylim()
    assert low == pytest.approx(85, abs=0.2)
    assert high == pytest.approx(95, abs=0.2)


def test_several_curves_each_at_its_own_points() -> None:
    finer = np.linspace(-2.0, 2.0, 9)
    runs = [
        ("a", "sgd", curve(train_loss=X**2 + 1)),
        ("_b", "sam", curve(finer, train_loss=finer**2 + 2)),
    ]
    figure = curves_figure(runs, notes=["measured differently: samples"])
    first, second = figure.axes[0].lines[:2]
    np.testing.assert_array_equal(first.get_ydata(), X**2 + 1)
    np.testing.assert_array_equal(second.get_xdata(), finer)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "_b"]
    assert figure.axes[0].get_ylabel() == "train loss"
    assert "measured differently" in figure.get_supxlabel()
    with pytest.raises(FigureError, match="2-D surface c"):
        curves_figure([*runs, ("c", "", eigenvalues())])
    with pytest.raises(FigureError, match="expected one of train_loss"):
        curves_figure(runs, "test_loss")
