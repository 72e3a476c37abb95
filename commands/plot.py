"""`plot`: the figures of stored files, drawn again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Printed
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import OptionError, option


@dataclass(frozen=True, kw_only=True)
class Plotting(Printed):
    """What to draw."""

    files: tuple[str, ...] = option(
        help="A surface (also one of the loss-landscape code) or hessian .h5, a density "
        "NAME_eigen.npy with NAME_weight.npy beside it, or a history of lines of JSON (.dat, "
        ".jsonl); several curves, spectra, histories or curvatures over a training in one figure.",
        positional=True,
        metavar="FILE..",
        paths=True,
    )
    column: str | None = option(
        None,
        "Column of a surface, such as test_acc or max_eig; eig_ratio is |min_eig / max_eig|.",
        metavar="NAME",
        otherwise="the loss, and each other column",
    )
    vmin: float | None = option(
        None, "Lower end of the colours, heights or densities.", otherwise="the smallest value"
    )
    vmax: float | None = option(None, "Upper end.", otherwise="the largest value")
    levels: str | None = option(
        None,
        "Contour lines: about how many, or their values.",
        metavar="N|V,V,..",
        otherwise="about 11 round ones",
    )
    log: bool | None = option(
        None,
        "Whether values are drawn on a logarithmic scale.",
        off="no-log",
        otherwise="where they span more than two decades",
    )
    xlim: str | None = option(
        None,
        "Range of x of a curve, or of the eigenvalues of a spectrum.",
        metavar="MIN:MAX",
        otherwise="all of it",
    )
    panels: bool = option(
        False, "Draw each of several spectra in a panel of its own, as for different networks."
    )
    title: str = option("", "Title of the figures.")
    out: Path | None = option(
        None,
        "Path of the figures, PNG and PDF; their kinds are added where there are several.",
        otherwise="beside the file",
    )


@command(Plotting)
def plot(asked: Plotting) -> None:
    """Draw stored surfaces, curves, spectra or histories again, PNG and PDF.

    For example: plot surface-2d.h5 --column test_acc --vmin 90 --levels 90,95,99
    or several curves in one figure: plot a/surface-1d.h5 b/surface-1d.h5 --log
    or several spectra: plot hessian.h5 published_eigen.npy
    or of different networks: plot a/hessian.h5 b/hessian.h5 --panels
    """
    from isoloss.experiments.drawing import Wanted
    from isoloss.experiments.plotting import draw_files
    from isoloss.figures.scale import Look
    from isoloss.figures.style import FigureError

    console = Console(asked.as_json)
    levels, xlim = _levels(asked.levels), _range(asked.xlim)
    try:
        look = Look(asked.vmin, asked.vmax, asked.log, levels, xlim)
    except FigureError as error:
        raise OptionError("vmin", str(error)) from error
    files = [Path(file) for file in asked.files]
    wanted = Wanted(asked.title, asked.column, look, asked.out, asked.panels)
    written = draw_files(files, wanted, console)
    if not written:
        raise ExperimentError(
            f"expected something to draw, {files[0]} holds no density and no surface"
        )
    for path in written:
        console.say(f"wrote {path}")
    console.result({"files": files, "figures": written})


def _numbers(name: str, text: str, separator: str, expected: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(separator)]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise OptionError(name, f"expected {expected}, got {text!r}")
    return values


def _levels(text: str | None) -> int | tuple[float, ...] | None:
    """Read a number of levels, 1 to 200, or their values."""
    if text is None:
        return None
    if text.isdecimal():
        if not 1 <= int(text) <= 200:
            raise OptionError("levels", f"expected 1 to 200 of them, got {text}")
        return int(text)
    return tuple(_numbers("levels", text, ",", "a number of levels, or values as 0.1,0.5,1"))


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    ends = _numbers("xlim", text, ":", "two numbers as -1:1")
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise OptionError("xlim", f"expected two numbers as -1:1, got {text!r}")
    return ends[0], ends[1]
