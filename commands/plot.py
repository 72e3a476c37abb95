"""`plot`: the figures of stored files, drawn again beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Printed
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import option


@dataclass(frozen=True, kw_only=True)
class Plotting(Printed):
    """What to draw."""

    files: tuple[str, ...] = option(
        help="A surface (also one of the loss-landscape code) or hessian .h5, a density "
        "NAME_eigen.npy with NAME_weight.npy beside it, or a history of lines of JSON (.dat, "
        ".jsonl); several densities or several histories are drawn together.",
        positional=True,
        metavar="FILE..",
    )
    title: str = option("", "Title of the figures.")


@command(Plotting)
def plot(asked: Plotting) -> None:
    """Draw a stored surface or spectrum again, PNG and PDF beside the file.

    Several spectra are drawn over each other, for example: plot hessian.h5 published_eigen.npy
    """
    from isoloss.experiments.drawing import draw_file, draw_together

    console = Console(asked.as_json)
    files = [Path(file) for file in asked.files]
    if len(files) == 1:
        written = draw_file(files[0], asked.title, console)
        if not written:
            raise ExperimentError(
                f"expected something to draw, {files[0]} holds no density and no surface"
            )
    else:
        written = draw_together(files, asked.title, console)
    for path in written:
        console.say(f"wrote {path}")
    console.result({"files": files, "figures": written})
