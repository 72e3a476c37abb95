"""`plot`: the figures of a stored file, drawn again beside it."""

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

    file: Path = option(
        help="A surface (also one of the loss-landscape code) or hessian .h5.",
        positional=True,
        metavar="FILE",
    )
    title: str = option("", "Title of the figures.")


@command(Plotting)
def plot(asked: Plotting) -> None:
    """Draw a stored surface or spectrum again, PNG and PDF beside the file."""
    from isoloss.experiments.drawing import draw_file

    console = Console(asked.as_json)
    written = draw_file(asked.file, asked.title)
    if not written:
        raise ExperimentError(
            f"expected something to draw, {asked.file} holds no density and no surface"
        )
    for path in written:
        console.say(f"wrote {path}")
    console.result({"file": asked.file, "figures": written})
