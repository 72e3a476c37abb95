"""Largest eigenvalue, trace and Frobenius norm of each layer's block, as bars side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from isoloss.figures.formatting import one_line, power_of_ten, with_error
from isoloss.figures.style import (
    FLAWED,
    PAGE,
    SMALL,
    FigureError,
    add_note,
    new_figure,
    note_text,
    series_styles,
    styled,
)
from isoloss.records.layers import share_of_trace

if TYPE_CHECKING:
    from isoloss.records.layers import LayerData

# Panels: what is drawn, its error, and the heading of its axis.
PANELS = (
    ("eigenvalue", "residual", "largest eigenvalue"),
    ("trace", "trace_standard_error", "trace, share of the whole"),
    ("frobenius_norm", "frobenius_standard_error", "Frobenius norm"),
)
_BAR = 0.17  # inches of height
_LONGEST = 28  # characters of a name, beyond which its beginning is left out
_DECADES = 8  # drawn at most, below the largest value


@styled
def layers_figure(layers: Mapping[str, LayerData], *, title: str = "") -> Figure:
    """Draw each layer's numbers as horizontal bars on logarithmic axes, in the network's order.

    Args:
        layers: By the module's name.
        title: Title at the upper left.

    Raises:
        FigureError: If there are no layers.
    """
    if not layers:
        raise FigureError("expected layers, got none: compute them with `hessian`, `layers`")
    notes = ["bars: a layer's own block; errors: one residual or standard error over probes"]
    if any(getattr(x, name) < 0 for x in layers.values() for name, _, _ in PANELS):
        notes.append("hatched: negative, drawn by its magnitude")
    if not all(_finite(x) for x in layers.values()):
        notes.append("n/a: not finite")
    height = 0.75 + _BAR * len(layers) + 0.11 * (note_text(notes, PAGE).count("\n") + 1)
    figure = new_figure(PAGE, height)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (name, error, heading) in zip(panels, PANELS, strict=True):
        _draw(axes, layers, name, error)
        axes.set_xlabel(heading)
    panels[0].set_yticks(range(len(layers)), [_shortened(name) for name in layers])
    panels[0].set_ylim(len(layers) - 0.4, -0.6)  # the first layer on top
    panels[0].set_title(title, loc="left")
    add_note(figure, notes)
    return figure


def _draw(axes: Axes, layers: Mapping[str, LayerData], name: str, error: str) -> None:
    values = np.array([getattr(layer, name) for layer in layers.values()])
    errors = np.array([getattr(layer, error) for layer in layers.values()])
    sizes = np.abs(values)
    drawn = np.isfinite(values) & (sizes > 0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: power_of_ten(round(np.log10(x)))))
    axes.tick_params(axis="y", length=0)
    if drawn.any():
        largest = sizes[drawn].max()
        low = max(0.3 * sizes[drawn].min(), largest * 10.0**-_DECADES)
        # Room at the right for the shares.
        axes.set_xlim(low, largest * (largest / low) ** (0.45 if name == "trace" else 0.08))
    color = series_styles([""])[0].color
    for row in np.flatnonzero(drawn).tolist():
        flawed = {"hatch": FLAWED["hatch"], "edgecolor": color, "facecolor": "white"}
        look = {"color": color} if values[row] > 0 else {**flawed, "linewidth": 0.6}
        axes.barh(row, sizes[row], height=0.62, **look)
        if np.isfinite(errors[row]) and errors[row] > 0:
            below = min(errors[row], 0.999 * sizes[row])
            axes.errorbar(
                sizes[row], row, xerr=[[below], [errors[row]]],
                fmt="none", ecolor="0.15", elinewidth=0.8, capsize=1.5, capthick=0.8,
            )  # fmt: skip
    for row in np.flatnonzero(~drawn).tolist():
        text = "0" if values[row] == 0 else "n/a"
        axes.text(
            0.01, row, text, transform=axes.get_yaxis_transform(),
            va="center", fontsize=SMALL, color="0.35",
        )  # fmt: skip
    if name != "trace":
        return
    for row, layer in enumerate(layers):
        share, uncertainty = share_of_trace(layers, layer)
        if drawn[row] and np.isfinite(share):
            axes.annotate(
                f"{with_error(100 * share, 100 * uncertainty)} %",
                (sizes[row] + (errors[row] if np.isfinite(errors[row]) else 0.0), row),
                xytext=(3, 0), textcoords="offset points",
                va="center", fontsize=SMALL, color="0.25",
            )  # fmt: skip


def _finite(layer: LayerData) -> bool:
    return all(np.isfinite(getattr(layer, name)) for name, _, _ in PANELS)


def _shortened(name: str) -> str:
    text = one_line(name)
    return text if len(text) <= _LONGEST else f"..{text[2 - _LONGEST :]}"
