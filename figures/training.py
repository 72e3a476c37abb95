"""Training curves: loss and accuracy by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isoloss.figures.curve import ACCURACY_COLOR, LOSS_COLOR, scale_axis
from isoloss.figures.scale import Scale, shared_scale
from isoloss.figures.style import (
    PAGE,
    FigureError,
    SeriesStyle,
    add_note,
    legend_lines,
    new_figure,
    series_styles,
    styled,
)

if TYPE_CHECKING:
    from isoloss.records.history_lines import LoggedRun
    from isoloss.records.runs import Run

History = dict[str, np.ndarray]
_SPLITS = (("train", "training"), ("val", "validation"), ("test", "test"))
_LINES = ("solid", (0, (4.5, 1.5)), (0, (1.2, 1.2)))


@styled
def training_figure(runs: Sequence[Run | LoggedRun], *, title: str = "") -> Figure:
    """Draw loss (left) and accuracy in percent (right) by epoch.

    One run has training (solid), validation (dashed) and, where its history has it, test (dotted)
    in the same panels; several runs are told apart by colour and line style, with training above
    and validation, or test where none has that, below at one scale.

    Args:
        runs: Runs with a history, trained or still in training, or logged by other programs.
        title: Title at the upper left.

    Raises:
        FigureError: If no run has an epoch.
    """
    histories = [run.history() for run in runs]
    if not any(len(next(iter(history.values()), ())) for history in histories):
        raise FigureError("expected runs with one epoch or more, got none")
    losses = [h[f"{split}_loss"] for h in histories for split, _ in _SPLITS if f"{split}_loss" in h]
    scale = shared_scale(losses, clip=False)
    if len(runs) == 1:
        figure = _one_run(histories[0], scale)
    else:
        styles = series_styles([str(run.config().get("optimizer", "")) for run in runs])
        figure = _several_runs([run.label for run in runs], styles, histories, scale)
    figure.axes[0].set_title(title, loc="left")
    add_note(
        figure, [note for run, h in zip(runs, histories, strict=True) for note in _notes(run, h)]
    )
    return figure


def _one_run(history: History, scale: Scale) -> Figure:
    """Draw two panels, all splits in each."""
    figure = new_figure(PAGE, 2.2)
    left, right = figure.subplots(1, 2)
    for (split, name), linestyle in zip(_SPLITS, _LINES, strict=True):
        line = {"linestyle": linestyle, "label": name, "mfc": None if split == "train" else "white"}
        _draw(left, history, f"{split}_loss", color=LOSS_COLOR, marker="o", **line)
        _draw(right, history, f"{split}_accuracy", color=ACCURACY_COLOR, marker="o", **line)
    scale_axis(left, scale, "loss")
    _frame_accuracy(right, "accuracy (%)")
    for axes in (left, right):
        _frame_epochs(axes)
        if axes.lines:
            axes.legend()
    return figure


def _several_runs(
    labels: Sequence[str],
    styles: Sequence[SeriesStyle],
    histories: Sequence[History],
    scale: Scale,
) -> Figure:
    """Draw four panels: training and another split by loss and accuracy, all runs in each."""
    train, validation, test = _SPLITS
    held = {column for history in histories for column in history}
    splits = (train, test if "test_loss" in held and "val_loss" not in held else validation)
    figure = new_figure(PAGE, 3.7)
    grid = figure.subplots(2, 2, sharex=True, sharey="col")
    for (split, name), (left, right) in zip(splits, grid, strict=True):
        for label, style, history in zip(labels, styles, histories, strict=True):
            line = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
            _draw(left, history, f"{split}_loss", label=label, **line)
            _draw(right, history, f"{split}_accuracy", label=label, **line)
        scale_axis(left, scale, f"{name} loss")
        _frame_accuracy(right, f"{name} accuracy (%)")
    for axes in grid[1]:
        _frame_epochs(axes)
    handles = legend_lines(labels, styles, marked=True)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))
    return figure


def _draw(axes: Axes, history: History, column: str, **line: object) -> None:
    """Draw one column of a history, if it has any value; accuracies in percent."""
    values = history.get(column, np.empty(0))
    if not np.isfinite(values).any():
        return
    epochs = history.get("epoch", np.arange(1, len(values) + 1))
    shown = 100 * values if column.endswith("accuracy") else values
    every = max(1, len(values) // 12)  # a dozen markers tell lines apart in grey print
    axes.plot(epochs, np.where(np.isfinite(shown), shown, np.nan), markevery=every, **line)  # type: ignore[arg-type]


def _frame_accuracy(axes: Axes, label: str) -> None:
    """Label an accuracy axis and keep it within what an accuracy can be."""
    axes.set_ylabel(label)
    if not axes.lines:
        axes.text(
            0.5, 0.5, "no accuracy stored", transform=axes.transAxes, ha="center", color="0.5"
        )
        return
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2.0), min(high, 101.0))


def _frame_epochs(axes: Axes) -> None:
    """Label the axis of epochs, whole numbers only."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))


def _notes(run: Run | LoggedRun, history: History) -> list[str]:
    """Epochs that cannot be drawn, and runs that did not come to their end."""
    notes = []
    losses = history.get("train_loss", np.empty(0))
    if flawed := int((~np.isfinite(losses)).sum()):
        notes.append(f"{run.label}: training loss not finite in {flawed} of {len(losses)} epochs")
    if run.status != "finished":
        notes.append(f"{run.label}: {run.status}, {len(losses)} epochs so far")
    return notes
