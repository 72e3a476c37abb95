"""`export`: a stored result in the format of another program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Forced, Printed
from isoloss.experiments.options import option
from isoloss.records.export import FORMATS
from isoloss.records.export import export as write_as


@dataclass(frozen=True, kw_only=True)
class Exporting(Forced, Printed):
    """What to write, and as what."""

    file: Path = option(
        help="A surface (also one of the loss-landscape code), hessian or over-training .h5, or "
        "one of the two arrays NAME_eigen.npy and NAME_weight.npy of a density.",
        positional=True,
        metavar="FILE",
    )
    to: str = option(
        help="vtk: a surface for ParaView; csv; npz: all arrays; ll: a surface and its directions "
        "for the loss-landscape code; npy: a density as NAME_eigen.npy and NAME_weight.npy.",
        choices=tuple(FORMATS),
    )
    out: Path | None = option(
        None,
        "File to write, ending in " + ", ".join(f.suffix for f in FORMATS.values()) + ".",
        otherwise="beside FILE, with its name",
    )
    force: bool = option(False, "Replace files that are there, results of Isoloss excepted.")


@command(Exporting)
def export(asked: Exporting) -> None:
    """Write a stored surface or spectrum in the format of another program.

    For example: export results/runs/mnist-sam/surface-2d.h5 --to vtk
    """
    console = Console(asked.as_json)
    made = write_as(asked.file, asked.to, asked.out, force=asked.force)
    console.say(f"wrote {', '.join(str(file) for file in made.files)}")
    for note in made.notes:
        console.say(note)
    console.result({"file": asked.file, "to": asked.to, "files": made.files, "notes": made.notes})
