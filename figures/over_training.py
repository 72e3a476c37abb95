"""The largest eigenvalue over a training, with the threshold of stability, and the train loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from isoloss.figures.curve import LOSS_COLOR, scale_axis
from isoloss.figures.formatting import number
from isoloss.figures.scale import Look, shared_scale
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
from isoloss.records.identity import drawn_by_class, unlike

if TYPE_CHECKING:
    from isoloss.records.over_training import OverTrainingData

Drawn = tuple[str, SeriesStyle, "OverTrainingData"]
_THRESHOLD = "#D55E00"
_DASHED = (0, (4.5, 2.0))


@styled
def over_training_figure(
    runs: Sequence[tuple[str, str, OverTrainingData]],
    *,
    look: Look | None = None,
    title: str = "",
) -> Figure:
    """Draw the largest eigenvalues (left) and the loss (right) by epoch.

    The threshold that the optimizer's steps are stable at is solid where it is one of what was
    measured, full-batch training, and dashed where it is there for reference, as with mini-batches.

    Args:
        runs: Label, optimizer and stored curvature of each run.
        look: What is asked of the axes: `vmin`, `vmax` and `log` of the eigenvalues, `xlim` of the
            epochs.
        title: Title at the upper left.

    Raises:
        FigureError: If no run has an eigenvalue.
    """
    if not any(np.isfinite(data.column("eigenvalues")).any() for _, _, data in runs if data.rows):
        raise FigureError("expected a run with an eigenvalue or more, got none")
    look = look or Look()
    held = [run for run in runs if run[2].rows]
    styles = series_styles([optimizer for _, optimizer, _ in held])
    drawn = [(label, style, data) for (label, _, data), style in zip(held, styles, strict=True)]
    alone = len(drawn) == 1
    figure = new_figure(PAGE, 2.5)
    left, right = figure.subplots(1, 2)
    for _, style, data in drawn:
        _draw_eigenvalues(left, data, "#0072B2" if alone else style.color)
        _draw_threshold(left, data, _THRESHOLD if alone else style.color)
        line: dict[str, Any] = {"color": LOSS_COLOR} if alone else _line(style)
        right.plot(data.column("epoch"), _finite(data.column("loss")), **line)
    _frame(drawn, left, right, look)
    if alone:
        left.legend(handles=_legend(drawn[0][2]))
    else:
        labels = [label for label, _, _ in drawn]
        handles = legend_lines(labels, styles)
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    left.set_title(title, loc="left")
    add_note(figure, _notes(drawn))
    return figure


def _line(style: SeriesStyle) -> dict[str, Any]:
    return {"color": style.color, "linestyle": style.linestyle}


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _draw_eigenvalues(axes: Axes, data: OverTrainingData, color: str) -> None:
    """Draw the largest eigenvalue with its residuals, and thinner the others."""
    epochs, values = data.column("epoch"), _finite(data.column("eigenvalues"))
    for column in values.T[1:]:
        axes.plot(epochs, column, color=color, linewidth=0.6, alpha=0.6)
    few = len(epochs) <= 60
    axes.errorbar(
        epochs,
        values[:, 0],
        yerr=_finite(data.column("residuals"))[:, 0],
        color=color,
        marker="o" if few else "",
        markersize=2.0,
        elinewidth=0.6,
    )
    if not (sound := data.column("converged")).all():
        axes.plot(epochs[~sound], values[~sound, 0], "o", mfc="white", mec=color, markersize=3.5)


def _draw_threshold(axes: Axes, data: OverTrainingData, color: str) -> None:
    thresholds = _finite(data.column("threshold"))
    if np.isfinite(thresholds).any():
        style = _DASHED if _for_reference(data) else "solid"
        axes.plot(data.column("epoch"), thresholds, color=color, linestyle=style, linewidth=0.8)  # type: ignore[arg-type]


def _for_reference(data: OverTrainingData) -> list[str]:
    return list(data.settings.get("stability", {}).get("for_reference", []))


def _legend(data: OverTrainingData) -> list[Line2D]:
    """Return handles for the panel of eigenvalues of one run."""
    handles = [Line2D([], [], color="#0072B2", label=_name(data))]
    if data.column("eigenvalues").shape[1] > 1:
        line: dict[str, Any] = {"color": "#0072B2", "linewidth": 0.6, "alpha": 0.6}
        handles.append(Line2D([], [], label="further eigenvalues", **line))
    if np.isfinite(data.column("threshold")).any():
        reference = _for_reference(data)
        label = "threshold, for reference" if reference else "threshold of stability"
        style: Any = _DASHED if reference else "solid"
        handles.append(
            Line2D([], [], color=_THRESHOLD, linestyle=style, linewidth=0.8, label=label)
        )
    return handles


def _name(data: OverTrainingData) -> str:
    operator, shift = data.settings.get("operator", "hessian"), _shift(data)
    what = "" if operator == "hessian" else f" of {operator}"
    if shift:
        what = f" of {'H' if operator == 'hessian' else operator} + {number(shift)} I"
    return f"largest eigenvalue{what}"


def _shift(data: OverTrainingData) -> float:
    return float(data.settings.get("stability", {}).get("shift", 0.0))


def _frame(drawn: Sequence[Drawn], left: Axes, right: Axes, look: Look) -> None:
    columns = [data.column(name) for _, _, data in drawn for name in ("eigenvalues", "threshold")]
    columns = [column for column in columns if np.isfinite(column).any()]
    log = False if look.log is None else look.log
    scale = look.scale(columns, log=log, clip=False)
    names = {_name(data) for _, _, data in drawn}
    scale_axis(left, scale, names.pop() if len(names) == 1 else "largest eigenvalue", look)
    losses = [data.column("loss") for _, _, data in drawn]
    split = {str(data.settings.get("split", "train")) for _, _, data in drawn}
    scale_axis(right, shared_scale(losses, clip=False), f"{' / '.join(sorted(split))} loss")
    steps = {bool((data.column("epoch") == data.column("step")).all()) for _, _, data in drawn}
    for axes in (left, right):
        axes.set_xlabel("epoch, a step each" if steps == {True} else "epoch")
        axes.set_xlim(look.xlim)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))


def _notes(drawn: Sequence[Drawn]) -> list[str]:
    """Return what a reader must know: whose threshold it is, and what failed."""
    notes = []
    for label, _, data in drawn:
        prefix = f"{label}: " if len(drawn) > 1 else ""
        rule = data.settings.get("stability", {}).get("rule", "none")
        text = f"{prefix}threshold: {rule}"
        if (reference := _for_reference(data)) and np.isfinite(data.column("threshold")).any():
            text += f" (dashed, for reference: {', '.join(reference)})"
        notes.append(text)
        if shift := _shift(data):
            notes.append(f"{prefix}eigenvalues of H + {number(shift)} I, with the weight decay")
        if lost := int((~np.isfinite(data.column("loss"))).sum()):
            notes.append(f"{prefix}loss not finite at {lost} of {len(data.rows)} checkpoints")
        pending = ~data.column("converged") & np.isfinite(data.column("loss"))
        if pending.any():
            notes.append(f"{prefix}hollow: {int(pending.sum())} not converged")
        if drawn_by_class(data.settings):
            notes.append(f"{prefix}a class-balanced sample, not that of the split")
    other = unlike({label: data.settings for label, _, data in drawn})
    return [*notes, *([f"measured differently: {', '.join(other)}"] if other else [])]
