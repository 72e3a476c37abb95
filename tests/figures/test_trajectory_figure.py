"""Figures of paths: what is drawn is what the data say, also where losses are not finite."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from isoloss.figures.style import FigureError, save_figure, series_styles
from isoloss.figures.trajectory import trajectory_figure
from isoloss.records.surfaces import SurfaceData
from isoloss.records.trajectories import Trajectory

X, Y = np.linspace(-1.0, 5.0, 13), np.linspace(-1.0, 3.0, 9)
PCA = {
    "x": {"kind": "pca", "label": "PC 1, 82.6 % (random walk 62.2 %)", "normalisation": "none"},
    "y": {"kind": "pca", "label": "PC 2, 13.9 % (random walk 16.0 %)", "normalisation": "none"},
}


def path(count: int = 9, turn: float = 0.4, **about: str) -> Trajectory:
    """A path that comes in from (4, 2) and leaves the plane in between."""
    t = np.linspace(1.0, 0.0, count)
    off = t * (1 - t)
    x, y = 4 * t**2, 2 * t + turn * off
    return Trajectory(
        np.arange(count), x, y, 2 * t + 0.01, 2 * t**2 + 0.01, off, np.sqrt(x**2 + y**2 + off**2),
        {"label": "SGD", "optimizer": "sgd", "split": "train", **about},
    )  # fmt: skip


def surface(**paths: Trajectory) -> SurfaceData:
    values = 0.01 + X[None] ** 2 / 8 + Y[:, None] ** 2 / 2
    done = np.ones(values.shape, bool)
    settings = {"label": "SGD", "directions": PCA}
    return SurfaceData(
        X, Y, {"train_loss": values}, done, {"train_loss": 0.01}, settings, 0.0, None, paths
    )


TWO = {"sgd": path(), "sam": path(5, -1.0, label="SAM", optimizer="sam")}


def texts(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def line(figure: Figure, axes: int, color: str, **how: object) -> np.ndarray:
    """Data of the line of a colour, told by how it is drawn."""
    (found,) = [
        one for one in figure.axes[axes].lines
        if one.get_color() == color and all(getattr(one, f"get_{k}")() == v for k, v in how.items())
    ]  # fmt: skip
    return np.asarray(found.get_xydata())


def test_paths_losses_and_distances_are_where_the_data_say() -> None:
    figure = trajectory_figure(surface(**TWO))
    styles = series_styles(["sgd", "sam"])
    for one, style in zip(TWO.values(), styles, strict=True):
        drawn = line(figure, 0, style.color)
        np.testing.assert_array_equal(drawn, np.column_stack([one.x, one.y]))
        lines = line(figure, 1, style.color, marker="None")
        np.testing.assert_array_equal(lines, np.column_stack([one.epoch, one.loss]))
        open_markers = line(figure, 1, style.color, marker=style.marker)
        np.testing.assert_array_equal(open_markers, np.column_stack([one.epoch, one.plane_loss]))
        thick, thin = (line(figure, 2, style.color, linewidth=width) for width in (1.0, 0.4))
        np.testing.assert_array_equal(thick, np.column_stack([one.epoch, one.distance]))
        np.testing.assert_array_equal(thin, np.column_stack([one.epoch, one.from_origin]))
    assert any(isinstance(child, QuadContourSet) for child in figure.axes[0].get_children())
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["SGD", "SAM"]


def test_axes_say_what_they_explain_beside_a_random_walk() -> None:
    figure = trajectory_figure(surface(**TWO), title="MNIST")
    assert figure.axes[0].get_xlabel() == "PC 1, 82.6 % (random walk 62.2 %)"
    assert figure.axes[0].get_ylabel() == "PC 2, 13.9 %\n(random walk 16.0 %)"  # a low axis
    assert "MNIST" in texts(figure)
    assert "★ SGD, the weights that the plane goes through" in texts(figure)
    random = {"directions": {axis: {"normalisation": "filter"} for axis in "xy"}}
    other = trajectory_figure(replace(surface(**TWO), settings=random))
    assert other.axes[0].get_xlabel() == "x (filter-normalised)"


@pytest.mark.parametrize(("held", "said"), [("held", True), ("recalibrated", False), ("", False)])
def test_a_note_says_whose_statistics_the_plane_has(held: str, said: bool) -> None:
    figure = trajectory_figure(surface(sgd=path(buffers=held)))
    assert ("batch-norm statistics on the plane: those of ★" in texts(figure)) == said


def test_some_epochs_are_numbered_and_a_common_start_once() -> None:
    figure = trajectory_figure(surface(**TWO))
    drawn = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    numbers = sorted(text.get_text() for text in drawn)  # 8 is at the mark of the origin, as is 4
    assert numbers.count("0") == 1
    assert {"1", "2", "3"} <= set(numbers)
    for text in drawn:
        place = tuple(text.xy)
        assert any(
            place == (one.x[i], one.y[i]) and one.epoch[i] == int(text.get_text())
            for one in TWO.values()
            for i in range(len(one.x))
        )


@pytest.mark.parametrize(
    "case",
    ["one point", "many epochs", "many runs", "not finite", "all alike", "a gap", "no surface",
     "strip", "long names"],
)  # fmt: skip
def test_anything_is_drawn_without_a_warning(case: str, tmp_path) -> None:
    data = surface(**TWO)
    if case == "one point":
        data = surface(sgd=path(1))
    elif case == "many epochs":
        data = surface(sgd=path(300))
    elif case == "many runs":
        data = surface(**{f"r{i}": path(9, i, label=f"run {i}", optimizer="") for i in range(11)})
    elif case == "not finite":
        bad = path()
        bad.loss[2], bad.plane_loss[3] = np.nan, np.inf
        bad.loss[4] = np.inf
        data = surface(sgd=bad)
    elif case == "all alike":
        constant = np.full(4, 0.5)
        data = surface(sgd=Trajectory(np.arange(4), *[constant] * 4, 0 * constant, constant, {}))
    elif case == "a gap":
        data.values["train_loss"][3, 4] = np.nan
    elif case == "no surface":
        data.values["train_loss"][:] = np.nan
    elif case == "strip":
        data = replace(data, y=Y / 100)
    elif case == "long names":
        name = "a very long name of a run that nobody would want in a figure, $ and all"
        data = surface(sgd=path(label=name), sam=path(9, 2.0, label=name, optimizer="sam"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = save_figure(trajectory_figure(data), tmp_path / "a")
        again = save_figure(trajectory_figure(data), tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


def test_points_beyond_the_surface_are_counted() -> None:
    data = replace(surface(**TWO), x=X - 2.0)  # ends at 3
    assert "2 of 9 points of SGD are outside; 1 of 5 points of SAM are outside" in texts(
        trajectory_figure(data)
    )


def test_what_has_no_paths_is_refused() -> None:
    with pytest.raises(FigureError, match="got one without any"):
        trajectory_figure(surface())
    curve = replace(surface(**TWO), y=None)
    with pytest.raises(FigureError, match="got a curve"):
        trajectory_figure(curve)
