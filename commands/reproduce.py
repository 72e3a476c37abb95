"""`reproduce`: a run's commands again, and whether the same comes of them."""

from __future__ import annotations

from dataclasses import dataclass

from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Printed
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import option
from isoloss.experiments.settings import Folders


@dataclass(frozen=True, kw_only=True)
class Asked(Printed):
    """What to make again."""

    run: str | None = option(
        None, "Name of a run.", positional=True, metavar="RUN", otherwise="the newest"
    )


@command(Asked, Folders)
def reproduce(asked: Asked, folders: Folders) -> None:
    """Train a run again, measure it again, each from what it stored, and compare the numbers.

    On the same machine they are the same bit for bit; elsewhere surfaces to 1e-6, curvature to
    1e-4. Exits 1 where something is not the same. For example: reproduce mnist-sam
    """
    from isoloss.experiments.reproduction import as_json
    from isoloss.experiments.reproduction import reproduce as make_again

    console = Console(asked.as_json)
    parts = make_again(asked.run, console, results=folders.results, data_dir=folders.data_dir)
    console.result({"parts": list(as_json(parts))})
    wrong = [part.name for part in parts if part.difference is not None and not part.reproduced]
    if wrong:
        raise ExperimentError(
            f"not reproduced: {', '.join(wrong)}\nwhat was made again is in "
            f"{folders.results / 'reproduced'}"
        )
