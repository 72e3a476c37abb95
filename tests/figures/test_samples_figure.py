from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from isoloss.figures.samples import IMAGE_COLUMNS, samples_figure
from isoloss.figures.style import PAGE, FigureError


def overlap(figure: Figure) -> bool:
    """Whether two samples, titles included, lie on each other or beyond the page."""
    figure.canvas.draw()  # type: ignore[attr-defined]
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    page = figure.bbox.padded(0.5)
    inside = all(page.contains(*box.min) and page.contains(*box.max) for box in boxes)
    pairs = ((a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    return not inside or any(a.padded(-1).overlaps(b.padded(-1)) for a, b in pairs)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_shown_as_they_are(channels: int) -> None:
    images = np.random.default_rng(0).uniform(-0.2, 1.2, (11, channels, 5, 7))
    figure = samples_figure(images, [f"{k}" for k in range(11)], title="run a", notes=["a note"])
    assert figure.get_figwidth() == pytest.approx(PAGE)
    for k, axes in enumerate(figure.axes):
        shown = axes.images[0].get_array()
        expected = np.clip(np.moveaxis(images[k], 0, -1), 0, 1)
        np.testing.assert_array_equal(shown, expected[..., 0] if channels == 1 else expected)
        assert axes.images[0].get_clim() == (0.0, 1.0)
        assert axes.get_title() == str(k)
    first = [axes.get_position().y0 for axes in figure.axes[:IMAGE_COLUMNS]]
    np.testing.assert_allclose(first, first[0])
    assert figure.axes[IMAGE_COLUMNS].get_position().y1 < first[0]
    assert not overlap(figure)


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (4, 2), (7, 1)])
def test_series_share_their_axes(count: int, channels: int) -> None:
    series = np.random.default_rng(0).normal(size=(count, 50, channels))
    figure = samples_figure(series, ["V →\nN 98 %"] * count, title="run a")
    for axes, sample in zip(figure.axes, series, strict=True):
        for line, values in zip(axes.lines, sample.T, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), values)
        assert axes.get_ylim() == figure.axes[0].get_ylim()
    assert not overlap(figure)


def test_a_row_of_values_is_a_series() -> None:
    assert len(samples_figure(np.zeros((2, 9)), ["a", "b"]).axes[1].lines) == 1


def test_marked_samples_have_titles_of_another_colour() -> None:
    figure = samples_figure(np.zeros((3, 1, 4, 4)), ["a", "b", "c"], marked=[False, True, False])
    colors = [axes.title.get_color() for axes in figure.axes]
    assert colors[0] == colors[2] != colors[1]
    with pytest.raises(FigureError, match="expected 3 marks, one a sample, got 1"):
        samples_figure(np.zeros((3, 1, 4, 4)), ["a", "b", "c"], marked=[True])


@pytest.mark.parametrize(
    ("shape", "titles", "message"),
    [
        ((2, 4, 8, 8), 2, r"shape \(2, 4, 8, 8\)"),
        ((2,), 2, r"shape \(2,\)"),
        ((0, 1, 8, 8), 0, "expected images"),
        ((2, 1, 8, 8), 3, "expected 2 titles, one a sample, got 3"),
    ],
)
def test_what_is_refused(shape: tuple[int, ...], titles: int, message: str) -> None:
    with pytest.raises(FigureError, match=message):
        samples_figure(np.zeros(shape), [""] * titles)
