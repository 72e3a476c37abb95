"""Samples as a person sees them: a grid of images, or of series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isoloss.figures.style import (
    NORMAL,
    PAGE,
    SMALL,
    FigureError,
    add_note,
    inches,
    new_figure,
    note_text,
    series_styles,
    styled,
    wrap,
)

IMAGE_COLUMNS = 8
SERIES_COLUMNS = 4
MARK = "#b2182b"
_MARGIN = 0.05
_LINE = 0.1  # height of a line of a sample's title
_NARROWEST = 2.2  # a figure of one sample still has room for its title


@styled
def samples_figure(
    samples: np.ndarray,
    titles: Sequence[str],
    *,
    title: str = "",
    notes: Sequence[str] = (),
    marked: Sequence[bool] | np.ndarray | None = None,
) -> Figure:
    """Draw samples in a grid, row by row, each with its title.

    Args:
        samples: Images (n, 1, height, width) in grey or (n, 3, height, width) in red, green and
            blue, drawn from 0 (black) to 1 and clipped there; or series (n, length) or
            (n, length, channels), all on the same axes.
        titles: One a sample; up to two short lines.
        title: Title of the figure, at the upper left.
        notes: What to say below.
        marked: Whether a sample's title is in red, one a sample; none is where None.

    Raises:
        FigureError: If there is no sample, the shape is none of these, or the titles do not fit.
    """
    samples = np.asarray(samples, dtype=float)
    images = samples.ndim == 4 and samples.shape[1] in (1, 3)
    series = samples.ndim in (2, 3)
    if not (images or series) or samples.size == 0:
        raise FigureError(
            "expected images (n, 1 or 3, height, width) or series (n, length[, channels]), "
            f"got shape {samples.shape}"
        )
    if len(titles) != len(samples):
        raise FigureError(f"expected {len(samples)} titles, one a sample, got {len(titles)}")
    marks = [False] * len(samples) if marked is None else [bool(mark) for mark in marked]
    if len(marks) != len(samples):
        raise FigureError(f"expected {len(samples)} marks, one a sample, got {len(marks)}")
    layout = _Layout.of(samples, titles, title, notes)
    figure = new_figure(layout.width, layout.height, constrained=False)
    low, high = float(np.nanmin(samples)), float(np.nanmax(samples))
    room = 0.05 * (high - low) or 0.5
    for k, (sample, text) in enumerate(zip(samples, titles, strict=True)):
        axes = figure.add_axes(layout.box(k))
        color = MARK if marks[k] else "black"
        axes.set_title(text, fontsize=SMALL, pad=2.0, linespacing=1.05, color=color)
        if images:
            _draw_image(axes, sample)
            continue
        _draw_series(axes, sample)
        axes.set_ylim(low - room, high + room)
        axes.tick_params(
            labelleft=k % layout.columns == 0, labelbottom=k + layout.columns >= len(samples)
        )
    if title:
        top = 1 - 0.04 / layout.height
        figure.text(_MARGIN / layout.width, top, layout.title, va="top", fontsize=NORMAL)
    if series:
        bottom = (layout.foot - 0.27) / layout.height
        figure.text(0.5, bottom, "time step", ha="center", va="bottom", fontsize=NORMAL)
    add_note(figure, notes)
    return figure


@dataclass(frozen=True)
class _Layout:
    """Where everything is, in inches."""

    columns: int
    rows: int
    cell: tuple[float, float]  # width and height of one sample's axes
    gap: tuple[float, float]  # between columns, and between rows (the titles are in there)
    head: float  # above the first row: its titles, and the figure's
    foot: float  # below the last row: tick labels, axis label, notes
    left: float
    title: str

    @classmethod
    def of(
        cls, samples: np.ndarray, titles: Sequence[str], title: str, notes: Sequence[str]
    ) -> _Layout:
        images = samples.ndim == 4
        columns = min(IMAGE_COLUMNS if images else SERIES_COLUMNS, len(samples))
        above = _LINE * max(text.count("\n") + 1 for text in titles) + 0.06
        left = _MARGIN if images else 0.34
        across = 0.06 if images else 0.08
        most = IMAGE_COLUMNS if images else SERIES_COLUMNS
        width = (PAGE - left - _MARGIN - (most - 1) * across) / most
        height = width * samples.shape[2] / samples.shape[3] if images else 0.55 * width
        page = max(_NARROWEST, left + columns * (width + across) - across + _MARGIN)
        broken = wrap(title, page - 0.1, NORMAL) if title else ""
        head = above + (0.13 * (broken.count("\n") + 1) + 0.06 if title else 0.0)
        lines = note_text(notes, page - 0.1).count("\n") + 1 if notes else 0
        foot = (_MARGIN if images else 0.38) + 0.11 * lines
        return cls(
            columns,
            math.ceil(len(samples) / columns),
            (width, height),
            (across, above + (0.0 if images else 0.1)),
            head,
            foot,
            left,
            broken,
        )

    @property
    def width(self) -> float:
        used = self.columns * (self.cell[0] + self.gap[0]) - self.gap[0]
        return max(_NARROWEST, self.left + used + _MARGIN)

    @property
    def height(self) -> float:
        return self.head + self.rows * (self.cell[1] + self.gap[1]) - self.gap[1] + self.foot

    def box(self, index: int) -> tuple[float, float, float, float]:
        """Return the axes of one sample, in fractions of the figure."""
        row, column = divmod(index, self.columns)
        left = self.left + column * (self.cell[0] + self.gap[0])
        bottom = self.height - self.head - (row + 1) * self.cell[1] - row * self.gap[1]
        return inches((self.width, self.height), left, bottom, *self.cell)


def _draw_image(axes: Axes, sample: np.ndarray) -> None:
    shown = np.clip(np.moveaxis(sample, 0, -1), 0.0, 1.0)
    grey = shown.shape[-1] == 1
    # Blurring small images would show what the network does not see.
    axes.imshow(
        shown[..., 0] if grey else shown, cmap="gray" if grey else None, vmin=0.0, vmax=1.0,
        interpolation="nearest",
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.3, color="0.6")


def _draw_series(axes: Axes, sample: np.ndarray) -> None:
    columns = sample[:, None] if sample.ndim == 1 else sample
    for values, style in zip(columns.T, series_styles([""] * columns.shape[1]), strict=True):
        axes.plot(values, color=style.color, linewidth=0.7)
    axes.margins(x=0.01)
    axes.tick_params(labelsize=SMALL - 1)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
