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
_FURTHER: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.6}
# A threshold above so many times the largest eigenvalue does not decide the axis.
_FAR = {False: 4.0, True: 100.0}


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
        line = {"color": LOSS_COLOR, "marker": ""} if alone else _line(style)
        _draw_eigenvalues(left, data, _line(style), further=alone)
        _draw_threshold(left, data, _THRESHOLD if alone else style.color)
        right.plot(data.column("epoch"), _finite(data.column("loss")), **_sparse(data), **line)
    beyond = _frame(drawn, left, right, look)
    if alone:
        left.legend(handles=_legend(drawn[0][2], drawn[0][1]))
    else:
        handles = [Line2D([], [], label=label, **_line(style)) for label, style, _ in drawn]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
    left.set_title(title, loc="left")
    add_note(figure, [*_notes(drawn), *beyond])
    return figure


def _line(style: SeriesStyle) -> dict[str, Any]:
    """Return how a run is drawn: told apart by colour and marker, as dashes are for thresholds."""
    return {"color": style.color, "marker": style.marker, "markersize": 2.5}


def _sparse(data: OverTrainingData) -> dict[str, Any]:
    return {"markevery": max(1, len(data.rows) // 40)}


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _draw_eigenvalues(
    axes: Axes, data: OverTrainingData, line: dict[str, Any], *, further: bool
) -> None:
    """Draw the largest eigenvalue with its residuals, and the others, thinner, where asked."""
    epochs, values = data.column("epoch"), _finite(data.column("eigenvalues"))
    for column in values.T[1:] if further else ():
        axes.plot(epochs, column, color=line["color"], **_FURTHER)
    residuals = _finite(data.column("residuals"))[:, 0]
    axes.errorbar(epochs, values[:, 0], yerr=residuals, elinewidth=0.6, **_sparse(data), **line)
    if not (sound := data.column("converged")).all():
        hollow = {**line, "markersize": 3.5, "mfc": "white", "linestyle": ""}
        axes.plot(epochs[~sound], values[~sound, 0], **hollow)


def _draw_threshold(axes: Axes, data: OverTrainingData, color: str) -> None:
    thresholds = _finite(data.column("threshold"))
    if np.isfinite(thresholds).any():
        style: Any = _DASHED if _for_reference(data) else "solid"
        axes.plot(data.column("epoch"), thresholds, color=color, linestyle=style, linewidth=0.8)


def _for_reference(data: OverTrainingData) -> list[str]:
    return list(data.settings.get("stability", {}).get("for_reference", []))


def _legend(data: OverTrainingData, style: SeriesStyle) -> list[Line2D]:
    """Return handles for the panel of eigenvalues of one run."""
    handles = [Line2D([], [], label=_name(data), **_line(style))]
    if data.column("eigenvalues").shape[1] > 1:
        label = "further eigenvalues"
        handles.append(Line2D([], [], color=style.color, label=label, **_FURTHER))
    if np.isfinite(data.column("threshold")).any():
        reference = _for_reference(data)
        label = "threshold, for reference" if reference else "threshold of stability"
        drawn: dict[str, Any] = {"linestyle": _DASHED if reference else "solid", "linewidth": 0.8}
        handles.append(Line2D([], [], color=_THRESHOLD, label=label, **drawn))
    return handles


def _name(data: OverTrainingData) -> str:
    operator, shift = data.settings.get("operator", "hessian"), _shift(data)
    what = "" if operator == "hessian" else f" of {operator}"
    if shift:
        what = f" of {'H' if operator == 'hessian' else operator} + {number(shift)} I"
    return f"largest eigenvalue{what}"


def _shift(data: OverTrainingData) -> float:
    return float(data.settings.get("stability", {}).get("shift", 0.0))


def _frame(drawn: Sequence[Drawn], left: Axes, right: Axes, look: Look) -> list[str]:
    """Scale and label the axes; return a note where thresholds lie beyond them."""
    alone, log = len(drawn) == 1, bool(look.log)
    values = [data.column("eigenvalues")[:, : None if alone else 1] for _, _, data in drawn]
    highest = max(float(column[np.isfinite(column)].max(initial=0.0)) for column in values)
    thresholds = np.concatenate([data.column("threshold") for _, _, data in drawn])
    near = thresholds[thresholds <= _FAR[log] * highest]
    scale = look.scale([*values, *([near] if len(near) else [])], log=log, clip=False)
    far = sorted({float(value) for value in thresholds[thresholds > scale.vmax]})
    span = " to ".join(number(value) for value in dict.fromkeys((far[0], far[-1]))) if far else ""
    beyond = [f"thresholds beyond the axis: {span}"] if far else []
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
    return beyond


def _notes(drawn: Sequence[Drawn]) -> list[str]:
    """Return what a reader must know: whose threshold it is, and what failed."""
    notes = []
    for label, _, data in drawn:
        prefix = f"{label}: " if len(drawn) > 1 else ""
        rule = data.settings.get("stability", {}).get("rule", "none")
        text = f"{prefix}{rule}" if prefix else f"threshold: {rule}"
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
    if len(drawn) > 1:
        notes.insert(0, "thin lines: thresholds")
    other = unlike({label: data.settings for label, _, data in drawn})
    return [*notes, *([f"measured differently: {', '.join(other)}"] if other else [])]
