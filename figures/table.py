"""The table of a comparison as it is printed: numbers with their errors, or medians with ranges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from isoloss.figures.formatting import MISSING, number, one_line, with_error
from isoloss.figures.quantities import QUANTITIES, ComparisonGroup, Quantity, Reading, summarise
from isoloss.figures.style import NORMAL, PAGE, SeriesStyle

UNCONVERGED = "\u2020"
"""The mark of a value that did not converge: a dagger, as stars are read as significance."""
_LINE = 0.165  # inches
_BETWEEN = 0.09  # inches between two blocks of columns
_LETTER = 0.056  # inches, a letter's mean width and a margin
_LABEL = 22  # letters of a label that fit the table
_LABEL_WIDTH = 1.75  # inches, with the sample of the line
_EDGE = 3  # standard errors from 0 or 100 % within which an accuracy is printed by its interval


def formatted_table(groups: Sequence[ComparisonGroup]) -> list[dict[str, str]]:
    """Return the numbers of a comparison as the figure prints them: heading to text, one a group.

    Quantities that no run has are left out, but for test accuracy, lambda_max and trace. Values
    that did not converge are marked by `UNCONVERGED`, which `table_notes` explains.
    """
    table: list[dict[str, str]] = [{"run": one_line(group.label)} for group in groups]
    if any(group.several for group in groups):
        for cells, group in zip(table, groups, strict=True):
            cells["runs"] = str(len(group.rows))
    else:
        for cells, group in zip(table, groups, strict=True):
            cells["optimizer"] = one_line(group.optimizer)
    for quantity in QUANTITIES:
        known = any(summarise(quantity, group.rows) for group in groups)
        if not known and quantity.key not in ("accuracy", "lambda_max", "trace"):
            continue
        heading = _heading(quantity, groups)
        for cells, group in zip(table, groups, strict=True):
            cells[heading] = _cell(quantity, group)
    return table


def table_blocks(groups: Sequence[ComparisonGroup]) -> list[list[dict[str, str]]]:
    """Return the table cut into blocks of columns that fit the page, the label in each."""
    table = formatted_table(groups)
    room = PAGE - 0.2 - _LABEL_WIDTH
    heads: list[list[str]] = [[]]
    for heading in list(table[0])[1:]:
        taken = sum(_width(table, head) for head in heads[-1])
        if heads[-1] and taken + _width(table, heading) > room:
            heads.append([])
        heads[-1].append(heading)
    return [[{head: cells[head] for head in ("run", *block)} for cells in table] for block in heads]


def table_notes(groups: Sequence[ComparisonGroup]) -> list[str]:
    """Return what the marks of the table mean, where there are any."""
    notes = []
    rows = [row for group in groups for row in group.rows]
    if any(group.several for group in groups):
        notes.append("of several runs: median [lowest, highest]")
    failed = {
        quantity.key: any(quantity.read(row).converged is False for row in rows)
        for quantity in QUANTITIES
    }
    if failed["lambda_max"]:
        notes.append(
            f"λmax{UNCONVERGED}: not converged, its residual is above the tolerance: some "
            "eigenvalue lies within the residual, the largest may be larger"
        )
    if failed["lambda_min"]:
        notes.append(f"λmin{UNCONVERGED}: not converged, the smallest may be smaller")
    if failed["trace"]:
        notes.append(
            f"trace{UNCONVERGED}: not converged, its standard error is above the one asked for"
        )
    if failed["scaled_lambda_max"] or failed["scaled_trace"]:
        notes.append(f"of THT{UNCONVERGED}: not converged")
    if any(quantity.key == "scaled_trace" and _known(quantity, groups) for quantity in QUANTITIES):
        notes.append(
            "THT: in units of the filters, T = ‖w‖/√n of each filter's n entries, unchanged when "
            "a ReLU layer pair is rescaled"
        )
    if not any(group.several for group in groups):
        if any(_by_interval(QUANTITIES[0].read(row)) for row in rows):
            notes.append("accuracy in brackets: 95 % interval")
        counts = sorted({row.clusters for row in rows if row.clusters is not None})
        if counts:
            shown = " and ".join(map(str, counts))
            notes.append(f"errors of accuracy and test loss clustered by {shown} groups of samples")
    return notes


def table_height(groups: Sequence[ComparisonGroup]) -> float:
    """Return the height of the drawn table in inches."""
    blocks = len(table_blocks(groups))
    return blocks * _LINE * (len(groups) + 1) + (blocks - 1) * _BETWEEN


def draw_table(
    axes: Axes, groups: Sequence[ComparisonGroup], styles: Sequence[SeriesStyle]
) -> None:
    """Draw the table: rules above, below and under the headings, a sample of each line style.

    Args:
        axes: Where to draw, `PAGE` - 0.2 by `table_height` inches.
        groups: The runs.
        styles: The style of each group.
    """
    height = table_height(groups)
    axes.set_axis_off()
    axes.set_xlim(0, PAGE - 0.2)
    axes.set_ylim(-height, 0)
    top = 0.0
    for block in table_blocks(groups):
        _draw_block(axes, top, block, styles)
        top -= _LINE * (len(groups) + 1) + _BETWEEN


def _draw_block(
    axes: Axes, top: float, table: Sequence[dict[str, str]], styles: Sequence[SeriesStyle]
) -> None:
    bottom = top - _LINE * (len(table) + 1)
    for y, width in ((top, 0.8), (top - _LINE, 0.5), (bottom, 0.8)):
        axes.plot([0, PAGE - 0.2], [y, y], color="black", linewidth=width, clip_on=False)
    headings = list(table[0])
    widths = [_width(table, heading) for heading in headings[1:]]
    # The columns share what is left of the page.
    spare = (PAGE - 0.25 - _LABEL_WIDTH - sum(widths)) / len(widths)
    edges = _LABEL_WIDTH + np.cumsum([width + spare for width in widths])
    for column, heading in enumerate(headings):
        first = column == 0
        x = 0.42 if first else float(edges[column - 1])
        texts = [heading, *(cells[heading] for cells in table)]
        for line, text in enumerate(texts):
            axes.text(
                x, top - (line + 0.5) * _LINE, shorten(text, _LABEL) if first else text,
                ha="left" if first else "right", va="center_baseline", fontsize=NORMAL - 0.5,
            )  # fmt: skip
    for line, style in enumerate(styles, start=1):
        y = top - (line + 0.5) * _LINE
        axes.plot([0.05, 0.34], [y, y], color=style.color, linestyle=style.linestyle)


def shorten(text: str, letters: int) -> str:
    """Cut a text that would run into its neighbour, and put it on one line."""
    text = one_line(text)
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _width(table: Sequence[dict[str, str]], heading: str) -> float:
    """Return the width in inches that a column of numbers needs."""
    return _LETTER * max(len(heading), *(len(cells[heading]) for cells in table)) + 0.1


def _known(quantity: Quantity, groups: Sequence[ComparisonGroup]) -> bool:
    return any(summarise(quantity, group.rows) for group in groups)


def _heading(quantity: Quantity, groups: Sequence[ComparisonGroup]) -> str:
    """Return the heading: what is measured, and which errors the cells of single runs hold."""
    readings = [quantity.read(group.rows[0]) for group in groups if not group.several]
    heading = quantity.heading
    if quantity.key == "measured_loss":
        heading = _loss_heading(groups)
    sampled = any(reading.sample_error for reading in readings)
    if any(reading.residual is not None for reading in readings):
        return f"{heading} ± sample (residual)" if sampled else f"{heading} (residual)"
    if quantity.key in ("trace", "scaled_trace") and readings:
        return f"{heading} ± probes ± sample" if sampled else f"{heading} ± s.e."
    return heading


def _loss_heading(groups: Sequence[ComparisonGroup]) -> str:
    """Name the split that curvature was measured on."""
    splits = {
        str(row.hessian.settings.get("split", "train"))
        for group in groups
        for row in group.rows
        if row.hessian is not None
    }
    return "train loss" if splits <= {"train"} else f"loss where measured ({'/'.join(splits)})"


def _cell(quantity: Quantity, group: ComparisonGroup) -> str:
    factor = 100.0 if quantity.percent else 1.0
    if group.several:
        summary = summarise(quantity, group.rows)
        if summary is None:
            return MISSING
        digits = 3 if quantity.percent else 2
        median = number(factor * summary.median, 3)
        low, high = (number(factor * end, digits) for end in (summary.low, summary.high))
        return f"{median} [{low}, {high}]{_mark(summary.converged)}"
    reading = quantity.read(group.rows[0])
    if reading.value is None:
        return MISSING
    value = factor * reading.value
    error = None if reading.error is None else factor * reading.error
    if quantity.percent and reading.interval is not None and _by_interval(reading):
        low, high = (number(factor * end, 4) for end in reading.interval)
        return f"{number(value, 4)} [{low}, {high}]"
    text = with_error(value, reading.sample_error if error is None else error)
    if error is not None and reading.sample_error:
        text += f" ± {number(reading.sample_error, 2)}"
    if reading.residual is not None:
        text += f" ({number(reading.residual, 2)})"
    return text + _mark(reading.converged)


def _by_interval(reading: Reading) -> bool:
    """Return whether an accuracy is so near to 0 or 1 that its error misleads."""
    if reading.value is None or reading.interval is None:
        return False
    return min(reading.value, 1 - reading.value) <= _EDGE * (reading.error or 0.0)


def _mark(converged: bool | None) -> str:
    return UNCONVERGED if converged is False else ""
