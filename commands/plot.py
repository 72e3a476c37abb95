"""`plot`: the figures of a stored file, drawn again beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isoloss.commands.console import Console
from isoloss.commands.errors import CommandError
from isoloss.commands.options import JsonOption


def plot(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A surface (also one of the loss-landscape code) or hessian .h5."
        ),
    ],
    title: Annotated[str, typer.Option("--title", help="Title of the figures.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Draw a stored surface or spectrum again, PNG and PDF beside the file."""
    from isoloss.commands.drawing import draw_file

    console = Console(as_json)
    written = draw_file(file, title)
    if not written:
        raise CommandError(f"expected something to draw, {file} holds no density and no surface")
    for path in written:
        console.say(f"wrote {path}")
    console.result({"file": file, "figures": written})
