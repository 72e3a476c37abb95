"""Figures of surfaces along several directions: the median, each, the band, the range."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure

from isoloss.figures.comparison import comparison_figure
from isoloss.figures.curve import curve_figure
from isoloss.figures.fields import field, row_through_origin
from isoloss.figures.quantities import ComparisonRow, single
from isoloss.figures.repeats import range_figure
from isoloss.figures.scale import Look
from isoloss.figures.style import FigureError, save_figure
from isoloss.figures.surface import KINDS, surface_figure
from isoloss.records.surface_data import Repeats, SurfaceData

X, Y = np.linspace(-1.0, 1.0, 9), np.linspace(-1.0, 1.0, 5)
FACTORS = np.array([1.0, 3.0, 2.0, 8.0])  # the first is not the median


def several(
    *, curve: bool = False, factors: np.ndarray = FACTORS, finished: int | None = None
) -> SurfaceData:
    """Bowls 0.1 + f (x^2 + y^2) of several factors f; (K, ny, nx) or (K, nx)."""
    bowl = X**2 if curve else X[None] ** 2 + Y[:, None] ** 2
    each = 0.1 + np.multiply.outer(factors, bowl)
    done = np.ones(each.shape, bool)
    done[len(factors) if finished is None else finished :] = False
    values = {"train_loss": np.where(done, each, np.nan)}
    values["train_acc"] = 99 - 5 * values["train_loss"]
    return SurfaceData(
        X,
        None if curve else Y,
        {key: array[0] for key, array in values.items()},
        done[0],
        {"train_loss": 0.1, "train_acc": 98.5},
        {},
        None,
        Repeats(values, done),
    )


def texts(figure: Figure) -> str:
    return " ".join(
        text.replace("\n", " ")
        for text in (*(t.get_text() for t in figure.texts), figure.get_supxlabel())
    )


def band(axes) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the filled band at each x."""
    (filled,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    points = np.concatenate([path.vertices for path in filled.get_paths()])
    ends = [[points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()] for x in X]
    return tuple(np.array(ends).T)


def test_a_curve_shows_median_each_direction_and_band() -> None:
    figure = curve_figure(several(curve=True), look=Look(log=False))
    left, right = figure.axes
    *thin, median, _ = left.lines  # the last is the origin
    for line, factor in zip(thin, FACTORS, strict=True):
        np.testing.assert_allclose(line.get_ydata(), 0.1 + factor * X**2)
        assert line.get_linewidth() < median.get_linewidth() / 3
    np.testing.assert_allclose(median.get_ydata(), 0.1 + 2.5 * X**2)
    np.testing.assert_allclose(band(left), [0.1 + X**2, 0.1 + 8 * X**2], atol=1e-12)
    low, high = band(right)
    np.testing.assert_allclose(high - low, 5 * 7 * X**2, atol=1e-12)
    assert left.get_ylim()[1] > 8.1  # of all directions, not of the median
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "train loss (0.1 at 0)",
        "train accuracy (98.5 at 0)",
    ]
    assert "median of 4 directions, band: their range; thin: train loss along each" in texts(figure)


def test_from_ten_directions_on_the_band_leaves_the_tails_out() -> None:
    figure = curve_figure(several(curve=True, factors=np.arange(1.0, 13.0)), look=Look(log=False))
    np.testing.assert_allclose(band(figure.axes[0]), [0.1 + 2 * X**2, 0.1 + 11 * X**2], atol=1e-12)
    assert "band: their 10th to 90th percentiles" in texts(figure)


@pytest.mark.parametrize("kind", KINDS)
def test_a_surface_is_the_median_of_its_planes_and_says_so(kind: str) -> None:
    figure = surface_figure(several(), kind)
    assert "median of 4 planes; they differ most at x = -1, y = -1: 2.1 to 16.1" in texts(figure)
    if kind == "heatmap":
        (mesh,) = [c for c in figure.axes[0].collections if isinstance(c, QuadMesh)]
        expected = 0.1 + 2.5 * (X[None] ** 2 + Y[:, None] ** 2)
        np.testing.assert_allclose(mesh.get_array(), expected)


def test_the_row_through_the_origin_keeps_its_directions() -> None:
    line = row_through_origin(several())
    assert line is not None
    assert line.repeats is not None
    np.testing.assert_allclose(
        line.repeats.values["train_loss"], 0.1 + np.multiply.outer(FACTORS, X**2)
    )
    np.testing.assert_allclose(field(line).values, 0.1 + 2.5 * X**2)


@pytest.mark.parametrize(
    ("finished", "factor", "note"),
    [
        (3, 2.0, "median of 3 planes (1 pending)"),
        (1, 1.0, "one of 4 planes: the others are pending"),
    ],
)
def test_unfinished_planes_are_left_out_and_counted(
    finished: int, factor: float, note: str
) -> None:
    data = several(finished=finished)
    found = field(data)
    np.testing.assert_allclose(found.values, 0.1 + factor * (X[None] ** 2 + Y[:, None] ** 2))
    assert found.notes()[0] == note
    assert not any("blank" in text for text in found.notes())
    curve_figure(data)


def test_the_range_is_drawn_at_one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(
        "isoloss.figures.repeats.draw_filled_contour",
        lambda axes, what, scale: drawn.append((what.values, scale)),
    )
    figure = range_figure(several(), title="a network")
    bowl = X[None] ** 2 + Y[:, None] ** 2
    for (values, scale), factor in zip(drawn, (1.0, 2.5, 8.0), strict=True):
        np.testing.assert_allclose(values, 0.1 + factor * bowl)
        assert scale == drawn[0][1]
    assert scale.vmin == pytest.approx(0.1)
    assert scale.vmax == pytest.approx(16.1)
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["lowest of 4 planes", "median of 4 planes", "highest of 4 planes"]
    assert "no panel need be one of the planes" in texts(figure)


def test_no_range_of_a_curve_or_one_plane() -> None:
    with pytest.raises(FigureError, match="curve_figure"):
        range_figure(several(curve=True))
    with pytest.raises(FigureError, match="two finished planes or more, got one"):
        range_figure(several(finished=1))
    data = several()
    with pytest.raises(FigureError, match="two finished planes or more, got one"):
        range_figure(SurfaceData(X, Y, data.values, data.done, {}, {}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0, 1e38])
def test_flawed_directions_are_drawn_and_counted(value: float) -> None:
    for curve in (True, False):
        data = several(curve=curve)
        assert data.repeats is not None
        data.repeats.values["train_loss"][1, ..., 2] = value
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figures = [curve_figure(data)]
            if not curve:
                figures += [surface_figure(data, kind) for kind in KINDS] + [range_figure(data)]
            for figure in figures:
                figure.draw_without_rendering()
        count = data.done[..., 2].size
        note = f"non-finite along one or more at {count} of {data.done.size} points"
        assert (note in texts(figures[-1])) is not np.isfinite(value)
        what = field(data)
        assert what.flawed.sum() == (count if np.isnan(value) else 0)
        assert np.isfinite(what.values[..., 3]).all()
    # An infinite end of the band goes to the top of the axis instead of leaving a gap.
    if value == np.inf:
        axes = curve_figure(several_with_infinity(), look=Look(log=False)).axes[0]
        assert band(axes)[1][2] == pytest.approx(8.1)


def several_with_infinity() -> SurfaceData:
    data = several(curve=True)
    assert data.repeats is not None
    data.repeats.values["train_loss"][1, 2] = np.inf
    return data


def test_a_comparison_shows_medians_and_bands() -> None:
    rows = [
        ComparisonRow("A", "sgd", surface=several(), curve=several(curve=True)),
        ComparisonRow("B", "sam", surface=several()),
    ]
    figure = comparison_figure(single(rows))
    assert "A: median of 4 planes" in texts(figure)
    curves = next(axes for axes in figure.axes if ") along x" in axes.get_title("left"))
    for line in curves.lines[:2]:
        np.testing.assert_allclose(line.get_ydata(), 0.1 + 2.5 * X**2)
    assert len([c for c in curves.collections if isinstance(c, PolyCollection)]) == 2


def test_the_same_data_give_the_same_file(tmp_path) -> None:
    files = [save_figure(range_figure(several()), tmp_path / name) for name in "ab"]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()
