"""The house style: sizes, fonts, colours, and the way a figure becomes a file.

Nothing here touches matplotlib's global state for longer than one call: drawing functions are
wrapped in `styled`, which sets the rc parameters for the length of the call, and `save_figure`
does the same while it writes. The reader's own matplotlibrc is left out on purpose, so that the
same data give the same figure for everyone; for the same reason the fonts are matplotlib's own.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from isoloss.errors import IsolossError
from isoloss.figures.formatting import one_line
from isoloss.records.files import write_together

P = ParamSpec("P")
R = TypeVar("R")

COLUMN = 3.4
"""Width of a one-column figure, in inches (a column of a two-column letter page)."""
PAGE = 7.0
"""Width of a two-column figure, in inches."""
DPI = 200
"""Resolution of PNG files, and of the rasterised parts of PDF files."""

SMALL = 6.0
"""Size of notes and of labels inside a plot, in points."""
NORMAL = 7.5
"""Size of titles and axis labels, in points."""

COLORMAP = "viridis"
"""Perceptually uniform, monotone in lightness, safe for colour-blind readers."""
FLAWED: dict[str, Any] = {
    "facecolor": "0.93",
    "edgecolor": "0.45",
    "hatch": "//////",
    "linewidth": 0.0,
}
"""How the place of a non-finite value looks everywhere."""

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": NORMAL,
    # Labels, titles and names of classes are anybody's text: a $ in them is a dollar sign. Our own
    # texts have their powers in Unicode, and axes their own formatters for them.
    "text.parse_math": False,
    "axes.titlesize": NORMAL,
    "axes.labelsize": NORMAL,
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.linewidth": 0.4,
    "grid.color": "0.88",
    "xtick.labelsize": SMALL + 0.5,
    "ytick.labelsize": SMALL + 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "legend.fontsize": SMALL + 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.0,
    "hatch.linewidth": 0.4,
    "hatch.color": "0.45",
    "figure.dpi": 100,
    "savefig.dpi": DPI,
    "savefig.bbox": None,  # the page size is the size asked for, not what the ink covers
    "pdf.fonttype": 42,  # embed TrueType: journals refuse Type 3
    "ps.fonttype": 42,
    "pdf.compression": 6,
    "svg.hashsalt": "isoloss",
}


class FigureError(IsolossError, ValueError):
    """The data given cannot be drawn in the way asked for."""


@contextmanager
def house_style() -> Iterator[None]:
    """Set the house style for the length of a `with` block, whatever the reader's settings are."""
    with matplotlib.style.context(["default", _RC]):
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function in the house style (decorator)."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with house_style():
            return draw(*args, **kwargs)

    return wrapper


@dataclass(frozen=True)
class SeriesStyle:
    """How one series looks: told apart by colour and, in grey print, by line style."""

    color: str
    linestyle: str | tuple[int, tuple[float, ...]]
    marker: str


# Okabe and Ito's colour-blind-safe palette ("Color Universal Design", 2008), without its yellow,
# which is too light for a line on white.
_STYLES = (
    SeriesStyle("#0072B2", "solid", "o"),
    SeriesStyle("#D55E00", (0, (4.5, 1.5)), "s"),
    SeriesStyle("#009E73", (0, (5.0, 1.2, 1.0, 1.2)), "^"),
    SeriesStyle("#CC79A7", (0, (1.2, 1.2)), "D"),
    SeriesStyle("#56B4E9", (0, (7.0, 2.0)), "v"),
    SeriesStyle("#E69F00", (0, (3.0, 1.2, 1.0, 1.2, 1.0, 1.2)), "P"),
    SeriesStyle("#000000", (0, (2.5, 1.0)), "X"),
)
_FIXED = {"sgd": 0, "adam": 1, "sam": 2, "asam": 3, "adamw": 4}


def series_styles(names: Sequence[str]) -> list[SeriesStyle]:
    """Give each series a style that depends on its optimizer and not on the order of the series.

    Args:
        names: The optimizer of each series (``"sgd"``, ``"Adam"``, ...), in any case and order.

    Returns:
        One style per name. The first series of a known optimizer gets that optimizer's own style;
        others, and repeated ones, get the styles nobody owns here, in order. Beyond seven series
        the styles repeat.
    """
    owners: dict[int, int] = {}
    for position, name in enumerate(names):
        fixed = _FIXED.get(name.strip().lower())
        if fixed is not None and fixed not in owners:
            owners[fixed] = position
    chosen = {position: _STYLES[fixed] for fixed, position in owners.items()}
    spare = [style for i, style in enumerate(_STYLES) if i not in owners] or list(_STYLES)
    rest = [position for position in range(len(names)) if position not in chosen]
    for count, position in enumerate(rest):
        chosen[position] = spare[count % len(spare)]
    return [chosen[position] for position in range(len(names))]


def legend_lines(
    labels: Sequence[str], styles: Sequence[SeriesStyle], *, marked: bool = False
) -> list[Line2D]:
    """Return handles for a legend of series.

    Those that matplotlib gathers itself leave out labels that begin with an underscore.

    Args:
        labels: One a series.
        styles: One a series.
        marked: Whether the series are drawn with markers.
    """
    return [
        Line2D(
            [],
            [],
            color=style.color,
            linestyle=style.linestyle,  # type: ignore[arg-type]
            marker=style.marker if marked else "",
            label=label,
        )
        for label, style in zip(labels, styles, strict=True)
    ]


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """Make an empty figure of a size in inches, known to no global state.

    Args:
        width: Width in inches, usually `COLUMN` or `PAGE`.
        height: Height in inches.
        constrained: Let matplotlib make room for labels. False leaves axes where they are put
            (three-dimensional axes confuse that algorithm).
    """
    return Figure(figsize=(width, height), layout="constrained" if constrained else None)


def inches(
    size: tuple[float, float], left: float, bottom: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """Turn a box in inches into fractions of a figure of a size in inches, as `add_axes` takes."""
    return left / size[0], bottom / size[1], width / size[0], height / size[1]


def wrap(text: str, width: float, size: float = SMALL) -> str:
    """Break a text into lines that fit a width in inches at a font size in points.

    The mean advance of DejaVu Sans is about 0.53 em; an em is `size` / 72 inches.
    """
    columns = max(20, int(width * 72 / (0.53 * size)))
    return "\n".join(
        line for part in text.splitlines() for line in (textwrap.wrap(part, columns) or [""])
    )


def note_text(notes: Sequence[str], width: float) -> str:
    """Return notes, one after the other, broken into lines that fit a width in inches."""
    return wrap("; ".join(one_line(note) for note in notes), width)


def add_note(figure: Figure, notes: Sequence[str]) -> Text | None:
    """Write what a reader must know below a figure with constrained layout, where there is any."""
    if not notes:
        return None
    text = note_text(notes, figure.get_figwidth() - 0.1)
    return figure.supxlabel(text, fontsize=SMALL, color="0.25", x=0.01, ha="left")


def save_figure(figure: Figure, stem: Path | str) -> list[Path]:
    """Write a figure as PNG and PDF, both or neither, the same bytes for the same data.

    Args:
        figure: The figure.
        stem: Path without suffix; the folder is made when missing. A dot in the name is part of
            the name (``run-0.05`` gives ``run-0.05.png``).

    Returns:
        The two paths, PNG first.

    Raises:
        FileError: If they cannot be written; what was there before is unchanged.
    """
    stem = Path(stem)
    targets = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf")]
    contents = {}
    for target in targets:
        drawn, kind = io.BytesIO(), target.suffix[1:]
        # A date would make two files of the same data differ.
        metadata = {"CreationDate": None} if kind == "pdf" else None
        with house_style():
            figure.savefig(drawn, format=kind, dpi=DPI, metadata=metadata)
        contents[target] = drawn.getvalue()
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_together(contents)
    return targets
