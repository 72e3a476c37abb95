"""The trials of a search: what each scored, and against each searched option."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from isoloss.figures.style import (
    COLORMAP,
    PAGE,
    SMALL,
    FigureError,
    add_note,
    new_figure,
    series_styles,
    styled,
)
from isoloss.figures.surface import tick_text

_BEST = series_styles(["", ""])[1].color


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: Its number, from 1.
        accuracy: What it scored, a fraction; None where it failed.
        standard_error: Of the accuracy; None where it is not known.
        values: The value of each searched option.
    """

    number: int
    accuracy: float | None
    standard_error: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


@styled
def trials_figure(
    trials: Sequence[Trial],
    scales: Mapping[str, str],
    *,
    best: int | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """Draw accuracy by trial with the best so far, and accuracy by each searched option.

    Args:
        trials: In the order of their numbers.
        scales: For each searched option, "linear", "log" or "category".
        best: Number of the trial that was chosen, which is ringed.
        title: Title at the upper left.
        notes: What to say below.

    Raises:
        FigureError: If no trial has an accuracy.
    """
    if not any(trial.accuracy is not None for trial in trials):
        raise FigureError("expected one completed trial or more, got none")
    columns = 4 if len(scales) in (4, 7, 8) else max(1, min(3, len(scales)))
    rows = math.ceil(len(scales) / columns)
    figure = new_figure(PAGE, 2.1 + 1.75 * rows)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.15] + [1.0] * rows)
    history = figure.add_subplot(grid[0, :])
    floor = _floor(trials)
    _draw_history(history, trials, floor, best)
    history.set_title(title, loc="left")
    for k, (option, scale) in enumerate(scales.items()):
        axes = figure.add_subplot(grid[1 + k // columns, k % columns], sharey=history)
        _draw_option(axes, trials, option, scale, floor, best)
        if k % columns:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("validation accuracy (%)")
    signs = ["bars: one standard error", "darker: earlier"]
    if any(t.accuracy is not None and 100 * t.accuracy < floor for t in trials):
        signs.append("▾: below the axis")
    if failed := sum(t.accuracy is None for t in trials):
        signs.append(f"×: {failed} failed")  # noqa: RUF001
    add_note(figure, [*signs, *notes])
    return figure


def _floor(trials: Sequence[Trial]) -> float:
    """Return where the axis begins, in percent: poor trials must not take the range of good."""
    scored = [(t.accuracy, t.standard_error or 0.0) for t in trials if t.accuracy is not None]
    values, errors = 100 * np.array(scored).T
    best = float(values.max())
    reach = max(3 * (best - float(np.median(values))), 4 * float(np.median(errors)), 0.5)
    return max(best - reach, float((values - errors).min()) - 0.05 * reach)


def _draw_history(axes: Axes, trials: Sequence[Trial], floor: float, best: int | None) -> None:
    _draw_points(axes, trials, [float(t.number) for t in trials], floor, best)
    numbers = [t.number for t in trials if t.accuracy is not None]
    values = [100 * t.accuracy for t in trials if t.accuracy is not None]
    axes.step(
        [*numbers, trials[-1].number + 0.5],
        np.maximum.accumulate([*values, 0.0]),
        where="post",
        color="0.45",
        linewidth=0.8,
        zorder=1,
        label="best so far",
    )
    axes.legend(loc="lower right")
    axes.set_xlim(0.5, trials[-1].number + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy (%)")
    values_and_errors = [
        100 * (t.accuracy + (t.standard_error or 0)) for t in trials if t.accuracy is not None
    ]
    top = max(values_and_errors)
    axes.set_ylim(floor, top + 0.08 * (top - floor))


def _draw_option(
    axes: Axes, trials: Sequence[Trial], option: str, scale: str, floor: float, best: int | None
) -> None:
    shown = [trial for trial in trials if option in trial.values]
    if scale == "category":
        names = list(dict.fromkeys(str(t.values[option]) for t in shown))
        names.sort(key=_number_first)
        # Beside each other, as trials of one value would hide each other.
        places = [
            names.index(str(t.values[option])) + 0.5 * ((0.618 * t.number) % 1 - 0.5) for t in shown
        ]
        axes.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) > 8 else 0)
        axes.set_xlim(-0.5, len(names) - 0.5)
    else:
        places = [float(trial.values[option]) for trial in shown]
        _frame_numbers(axes, places, scale)
    _draw_points(axes, shown, places, floor, best)
    axes.set_xlabel(f"{option}{' (log scale)' if scale == 'log' else ''}")


def _frame_numbers(axes: Axes, places: Sequence[float], scale: str) -> None:
    """Choose limits with a little room, and ticks at 1, 2, 5 where there are few decades."""
    axes.set_xscale(scale)
    low, high = min(places, default=1.0), max(places, default=1.0)
    if scale == "log":
        room = 1.2 if low == high else (high / low) ** 0.06
        axes.set_xlim(low / room, high * room)
        if high / low < 30:
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    room = 0.06 * (high - low) or 0.1 * abs(low) or 0.5
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=all(x == int(x) for x in places)))


def _draw_points(
    axes: Axes, trials: Sequence[Trial], places: Sequence[float], floor: float, best: int | None
) -> None:
    """Draw accuracies at places along x; what is off the axis or failed, at its foot."""
    last = max(2, *(trial.number for trial in trials)) if trials else 2
    colormap = matplotlib.colormaps[COLORMAP]
    at_foot = {"transform": axes.get_xaxis_transform(), "clip_on": False, "linestyle": "none"}
    for trial, x in zip(trials, places, strict=True):
        color = colormap(0.9 * (trial.number - 1) / (last - 1))
        if trial.accuracy is None:
            axes.plot(x, 0.03, marker="x", color="0.35", markersize=3.5, **at_foot)  # type: ignore[arg-type]
            continue
        if 100 * trial.accuracy < floor:
            axes.plot(x, 0.03, marker=7, color=color, markersize=4.0, **at_foot)  # type: ignore[arg-type]
            continue
        axes.errorbar(
            x,
            100 * trial.accuracy,
            yerr=None if trial.standard_error is None else 100 * trial.standard_error,
            fmt="o",
            color=color,
            elinewidth=0.6,
            markersize=3.2,
            zorder=2,
        )
        if trial.number == best:
            axes.plot(
                x, 100 * trial.accuracy, "o", mfc="none", mec=_BEST, markersize=7, mew=1.1, zorder=3
            )
            axes.annotate(
                f"{trial.number}", (x, 100 * trial.accuracy), xytext=(5, 4),
                textcoords="offset points", fontsize=SMALL, color=_BEST,
            )  # fmt: skip


def _number_first(name: str) -> tuple[bool, float, str]:
    """Return a key that sorts numbers by size, before other names in order of the alphabet."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name
