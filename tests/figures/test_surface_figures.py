"""What the artists hold is what the data say, each value in its place."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from isoloss.figures.curve import curve_figure
from isoloss.figures.fields import edges, field, gap_polygons, row_through_origin
from isoloss.figures.scale import shared_scale
from isoloss.figures.style import FigureError
from isoloss.figures.surface import KINDS, surface_figure
from isoloss.records.surfaces import SurfaceData

X = np.linspace(-1.0, 1.0, 5)
Y = np.linspace(0.0, 0.5, 3)


def surface(
    values: np.ndarray, x: np.ndarray = X, y: np.ndarray = Y, done: np.ndarray | None = None
) -> SurfaceData:
    done = np.ones(values.shape, dtype=bool) if done is None else done
    return SurfaceData(x, y, {"train_loss": values}, done, {"train_loss": 0.125}, {})


def asymmetric() -> np.ndarray:
    """A bowl (3, 5) with its minimum at x = 0.5, y = 0.25."""
    return 1 + (X[None] - 0.5) ** 2 + 2 * (Y[:, None] - 0.25) ** 2


def texts(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def artist(figure: Figure, kind: type, axes: int = 0) -> list:
    return [child for child in figure.axes[axes].get_children() if isinstance(child, kind)]


def test_heatmap_holds_every_value_in_its_place() -> None:
    (mesh,) = artist(surface_figure(surface(asymmetric()), "heatmap"), QuadMesh)
    np.testing.assert_array_equal(mesh.get_array(), asymmetric())
    corners = mesh.get_coordinates()  # (ny + 1, nx + 1, 2)
    centres = (corners[1:, 1:] + corners[:-1, :-1]) / 2
    np.testing.assert_allclose(centres[..., 0], np.broadcast_to(X, (3, 5)), atol=1e-15)
    np.testing.assert_allclose(centres[..., 1], np.broadcast_to(Y[:, None], (3, 5)), atol=1e-15)


@pytest.mark.parametrize("kind", ["contour", "filled"])
def test_contours_surround_the_minimum(kind: str) -> None:
    x, y = np.linspace(-1, 1, 41), np.linspace(0, 0.5, 23)
    values = (x[None] - 0.5) ** 2 + 4 * (y[:, None] - 0.25) ** 2
    scale = shared_scale([np.array([0.0, 2.5])], log=False, count=50)
    lines = artist(surface_figure(surface(values, x, y), kind, scale=scale), QuadContourSet)[-1]
    lowest = np.concatenate(lines.get_paths()[0].to_polygons(closed_only=False))
    # Linear interpolation on a grid of step 0.05: within a step of the ellipse and its centre.
    np.testing.assert_allclose(lowest.mean(axis=0), [0.5, 0.25], atol=0.05)
    at = (lowest[:, 0] - 0.5) ** 2 + 4 * (lowest[:, 1] - 0.25) ** 2
    np.testing.assert_allclose(np.sqrt(at), np.sqrt(lines.levels[0]), atol=0.05)


def test_3d_heights_are_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    plot = Axes3D.plot_surface

    def record(axes: Axes3D, *arrays: np.ndarray, **settings: object) -> object:
        drawn.append(arrays)
        return plot(axes, *arrays, **settings)

    monkeypatch.setattr(Axes3D, "plot_surface", record)
    surface_figure(surface(asymmetric()), "3d")
    ((x, y, z),) = drawn
    np.testing.assert_array_equal(z, asymmetric())
    np.testing.assert_array_equal(x[0], X)
    np.testing.assert_array_equal(y[:, 0], Y)


def test_a_given_scale_is_the_scale_of_every_kind() -> None:
    scale = shared_scale([np.array([0.01, 50.0])])
    for kind in KINDS:
        figure = surface_figure(surface(asymmetric()), kind, scale=scale)
        bar = figure.axes[-1]
        assert bar.get_ylim() == pytest.approx((0.01, 50.0), rel=1e-12)
        assert bar.get_ylabel() == "train loss above 0, log scale"
    (mesh,) = artist(surface_figure(surface(asymmetric()), "heatmap", scale=scale), QuadMesh)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0.01, 50.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_scale_says_where_it_begins(kind: str) -> None:
    values = asymmetric() - asymmetric().min() + 0.01
    logarithmic = texts(surface_figure(surface(values), kind, log=True)).replace("\n", " ")
    assert "from 0 and not from the minimum 0.01: it compares heights, not flatness" in logarithmic
    assert "flatness" not in texts(surface_figure(surface(values), kind, log=False))


@pytest.mark.parametrize("kind", KINDS)
def test_flawed_points_are_hatched_and_pending_ones_counted(kind: str) -> None:
    values, done = asymmetric(), np.ones((3, 5), dtype=bool)
    values[0, 0], values[1, 1], values[2, 4] = np.nan, np.inf, np.nan
    done[2, 4] = False
    figure = surface_figure(surface(values, done=done), kind)
    hatched = [c for c in artist(figure, PolyCollection) if c.get_hatch()]
    assert len(hatched) == 1
    if kind == "heatmap":
        assert len(hatched[0].get_paths()) == 2
    note = texts(figure)
    assert "hatched: 2 of 15 points non-finite (1 NaN, 1 inf)" in note
    assert "blank: 1 of 15 points pending" in note


def test_gaps_are_what_contours_leave_out() -> None:
    values = asymmetric()
    values[1, 2] = np.nan  # four quadrilaterals of 0.5 x 0.25, half of each
    area = sum(_area(p) for p in gap_polygons(field(surface(values))))
    assert area == pytest.approx(4 * 0.5 * 0.25 / 2, rel=1e-12)
    values[1, 3] = np.inf  # beside it: two quadrilaterals wholly, two halves on either side
    area = sum(_area(p) for p in gap_polygons(field(surface(values))))
    assert area == pytest.approx(0.125 * (2 + 4 / 2), rel=1e-12)


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def test_the_origin_is_marked_with_its_value() -> None:
    figure = surface_figure(surface(asymmetric()), "heatmap")
    (mark,) = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (0, 0)
    assert "★ origin 0.125" in texts(figure)
    away = surface_figure(surface(asymmetric(), x=X + 3), "heatmap")
    assert not away.axes[0].lines
    assert "outside the grid" in texts(away)


def test_a_file_without_origin_shows_the_grid_point_there() -> None:
    data = SurfaceData(X, Y, {"train_loss": asymmetric()}, np.ones((3, 5), bool), {}, {})
    assert field(data).origin == asymmetric()[0, 2]
    assert field(SurfaceData(X + 0.1, Y, data.values, data.done, {}, {})).origin is None


def test_row_through_the_origin() -> None:
    data = surface(asymmetric(), y=np.array([-0.5, 0.0, 0.5]))
    row = row_through_origin(data)
    assert row is not None
    assert row.y is None
    np.testing.assert_array_equal(row.values["train_loss"], asymmetric()[1])
    assert row_through_origin(surface(asymmetric(), y=Y + 0.1)) is None


def test_axes_name_the_normalisation_of_their_direction() -> None:
    data = surface(asymmetric())
    assert (field(data).x_label, field(data).y_label) == ("x", "y")
    recipes = {"x": {"normalisation": "filter"}, "y": {"normalisation": "none"}}
    named = field(replace(data, settings={"directions": recipes}))
    assert (named.x_label, named.y_label) == ("x (filter-normalised)", "y")


TOWARDS = {"kind": "to", "run": "b", "label": "towards b", "reaches": True,
           "normalisation": "none", "ignore": "none"}  # fmt: skip


def test_axes_say_what_they_are_and_other_checkpoints_are_marked() -> None:
    eigen = {"kind": "eigen", "label": "eigenvector 0 (λ = 3.2)", "normalisation": "none"}
    x, y = np.linspace(0, 1.5, 5), np.linspace(-0.5, 0.5, 3)
    data = replace(surface(asymmetric(), x, y), settings={"directions": {"x": TOWARDS, "y": eigen}})
    found = field(data)
    assert (found.x_label, found.y_label) == ("towards b", "eigenvector 0 (λ = 3.2)")
    assert found.ends == ((1.0, 0.0, "b"),)
    for kind in ("contour", "filled", "heatmap"):
        (axes, *_) = surface_figure(data, kind).axes
        marks = [tuple(line.get_xydata()[0]) for line in axes.lines]
        assert marks == [(0.0, 0.0), (1.0, 0.0)]
        assert [text.get_text() for text in axes.texts if text.get_text() == "b"] == ["b"]
        assert axes.get_xlabel() == "towards b"
    # There is no room at the axes of a view in three dimensions.
    assert "x: towards b; y: eigenvector 0" in texts(surface_figure(data, "3d"))


@pytest.mark.parametrize(
    "change", [{"reaches": False}, {"normalisation": "filter"}, {"ignore": "biasbn"}]
)
def test_what_a_step_of_one_does_not_reach_is_not_marked(change: dict[str, object]) -> None:
    recipes = {"x": TOWARDS | change, "y": TOWARDS | {"run": "c"}}
    ends = field(replace(surface(asymmetric()), settings={"directions": recipes})).ends
    assert ends == ((0.0, 1.0, "c"),)


def test_a_curve_marks_where_another_checkpoint_lies() -> None:
    settings = {"directions": {"x": TOWARDS}}
    x = np.linspace(-0.5, 1.5, 5)
    data = SurfaceData(x, None, {"train_loss": 1 + x**2}, x > -1, {"train_loss": 1.0}, settings)
    axes = curve_figure(data).axes[0]
    vertical = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert vertical == [0.0, 1.0]
    assert [text.get_text() for text in axes.texts] == ["b"]
    short = replace(data, x=x / 2)
    assert not curve_figure(short).axes[0].texts


def test_cells_are_bounded_by_midpoints() -> None:
    np.testing.assert_allclose(edges(np.array([0.0, 1.0, 3.0])), [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(edges(np.array([2.0])), [1.5, 2.5])


LONG = np.linspace(-1, 1, 7)
DEGENERATE = {
    "constant": (np.full((3, 5), 2.0), X, Y, "constant: 2 at every finite point"),
    "zero": (np.zeros((3, 5)), X, Y, "constant: 0"),
    "one row": (np.arange(7.0)[None], LONG, np.array([0.0]), ""),
    "one column": (np.arange(7.0)[:, None], np.array([0.0]), LONG, ""),
    "one point": (np.array([[1.0]]), np.array([0.0]), np.array([0.0]), "constant: 1"),
    "all NaN": (np.full((3, 5), np.nan), X, Y, "no finite value"),
    "all inf": (np.full((3, 5), np.inf), X, Y, "15 of 15 points non-finite (15 inf)"),
    "one finite": (np.where(np.eye(3, 5, 1) * np.eye(3, 1), 1.0, np.nan), X, Y, "14 of 15"),
    "negative": (-asymmetric(), X, Y, ""),
    "tiny range": (1 + 1e-13 * asymmetric(), X, Y, ""),
    "huge": (1e300 * asymmetric(), X, Y, ""),
    "spike": (np.where(np.eye(3, 5), 1e30, asymmetric()), X, Y, ""),
    "wild aspect": (asymmetric(), 1e4 * X, Y, ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_surfaces_are_drawn_and_say_what_they_show(case: str, kind: str) -> None:
    values, x, y, note = DEGENERATE[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = surface_figure(surface(values, x, y), kind, title="a title that is rather long")
        figure.draw_without_rendering()
    assert note in texts(figure)
    if "one" in case and kind != "heatmap":
        assert "no complete cell" in texts(figure)


def test_a_fine_grid_says_what_the_3d_surface_leaves_out() -> None:
    x = np.linspace(-1, 1, 203)
    figure = surface_figure(surface(Y[:, None] + x[None] ** 2, x), "3d")
    assert "one grid line in 3 (x) and 1 (y) drawn" in texts(figure)


def test_nothing_done_yet() -> None:
    for kind in KINDS:
        figure = surface_figure(surface(np.full((3, 5), np.nan), done=np.zeros((3, 5), bool)), kind)
        assert "15 of 15 points pending" in texts(figure)


def test_contour_labels_stay_apart() -> None:
    x = np.linspace(-1, 1, 31)
    values = 0.01 + 100 * (x[None] ** 2 + 3 * x[:, None] ** 2) ** 2
    figure = surface_figure(surface(values, x, x), "contour")
    labels = figure.axes[0].texts
    assert len(labels) >= 4
    places = np.array([figure.axes[0].transData.transform(t.get_position()) for t in labels])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)[~np.eye(len(labels), dtype=bool)]
    assert apart.min() * 72 / figure.dpi >= 10.0  # two 5-point labels side by side


@pytest.mark.parametrize(
    ("data", "kind", "key", "message"),
    [
        (surface(asymmetric()), "mesh", None, "expected a kind of surface among contour"),
        (surface(asymmetric()), "contour", "test_loss", "expected one of train_loss"),
        (surface(asymmetric().T), "contour", None, r"shape \(3, 5\) .* got \(5, 3\)"),
        (row_through_origin(surface(asymmetric())), "contour", None, "1-D curve"),
    ],
)
def test_misuse(data: SurfaceData, kind: str, key: str | None, message: str) -> None:
    with pytest.raises(FigureError, match=message):
        surface_figure(data, kind, key=key)


def test_accuracies_are_never_logarithmic() -> None:
    values = {"test_acc": 100 / (1 + 1e4 * (X[None] ** 2 + Y[:, None] ** 2))}
    assert not field(SurfaceData(X, Y, values, np.ones((3, 5), bool), {}, {})).scale().log
