"""`sharpness`: how much the loss rises near the weights of runs, in several senses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.commands.console import Console
from isoloss.commands.flags import Given, command
from isoloss.commands.options import Drawn, Estimated, Forced
from isoloss.experiments.options import OptionError, make, option
from isoloss.experiments.settings import Folders, Selection
from isoloss.experiments.sharpness_settings import SharpnessSettings
from isoloss.records.runs import newest_run
from isoloss.records.sharpness import Measured, SharpnessData
from isoloss.records.tables import aligned


@dataclass(frozen=True, kw_only=True)
class Whose(Forced, Drawn, Estimated):
    """Whose sharpness, and where the table over runs goes."""

    runs: tuple[str, ...] = option(
        (), "Runs, all measured alike.", positional=True, metavar="RUN..", otherwise="the newest"
    )
    out: Path | None = option(
        None,
        "Folder of the measures (RUN.json), table and figure.",
        otherwise="the run's; of table and figure of several results/comparisons/RUN_RUN",
    )


@command(Given(SharpnessSettings), Whose, Folders)
def sharpness(given: dict[str, Any], whose: Whose, folders: Folders) -> None:
    """Measure how much the loss rises near the weights: in the worst case, and on average.

    In balls of several radii, the worst case (a lower bound, searched for from several starts),
    SAM's one step, the mean over directions, and m-sharpness; relative flatness, the largest
    eigenvalue and the trace beside them. Each is marked by whether it changes where layers are
    rescaled and the function is not. One table, figure and CSV over all runs. For example:
    sharpness mnist-sgd mnist-adam mnist-sam --samples 2000
    sharpness mnist-sam --rescale-check 5
    """
    from isoloss.experiments.drawing import png_files
    from isoloss.experiments.selection import select
    from isoloss.experiments.sharpness import SharpnessExperiment
    from isoloss.experiments.sharpness_tables import write_sharpness_over_runs

    console = Console(whose.as_json)
    if whose.out is not None and not whose.estimate:
        whose.out.mkdir(parents=True, exist_ok=True)
    settings = make(SharpnessSettings, given)
    found = []
    for name in _names(whose, folders, console):
        shared = {name: getattr(folders, name) for name in ("results", "data_dir", "download")}
        subject = select(Selection(run=name, **shared), console)
        path = None if whose.out is None else whose.out / f"{name}.json"
        fresh = whose.force or whose.estimate
        experiment = SharpnessExperiment(subject, settings, path, fresh=fresh)
        if whose.estimate:
            console.cost(experiment.cost())
            continue
        result = experiment.run(console)
        if not result.computed:
            console.say(f"{result.path} is complete, nothing to do")
        found.append((name, subject.label, result))
    if whose.estimate:
        return
    runs = [(label, result.data) for _, label, result in found]
    _say(runs, console)
    folder = whose.out or folders.results / "runs" / found[0][0]
    if whose.out is None and len(found) > 1:
        folder = folders.results / "comparisons" / "_".join(name for name, _, _ in found)
    written = write_sharpness_over_runs(folder, runs, figures=whose.figures)
    drawn = [path for path in written if path.suffix != ".csv"]
    names = [str(written[0]), *(path.name for path in png_files(drawn))]
    console.say(f"wrote {', '.join([*(str(r.path) for _, _, r in found), *names])}")
    console.result(
        {
            "runs": {name: result.data for name, _, result in found},
            "seconds": sum(result.seconds for _, _, result in found),
            "files": written,
        }
    )


def _names(whose: Whose, folders: Folders, console: Console) -> list[str]:
    if len(set(whose.runs)) < len(whose.runs):
        raise OptionError("runs", f"expected each run once, got {' '.join(whose.runs)}")
    if whose.runs:
        return list(whose.runs)
    newest = newest_run(folders.results)
    if newest is None:
        raise OptionError("runs", f"expected a run, there is none in {folders.results}")
    console.say(f"newest run: {newest.name}")
    return [newest.name]


def _say(runs: Sequence[tuple[str, SharpnessData]], console: Console) -> None:
    rows = [_cells(label, row) for label, data in runs for row in data.rows]
    console.say(aligned(rows))
    for label, data in runs:
        if data.rescaling is not None:
            r = data.rescaling
            console.say(
                f"{label}: measured again with {r['first']} times {r['factor']:g} and "
                f"{r['second']} divided by it, which is the same function"
            )
        reasons = {r.account["reason"] for r in data.rows if not _known(r)}
        for reason in sorted(reasons):
            console.say(f"{label}: n/a: {reason}")
    console.say("worst case: a lower bound, the best of its starts; in brackets the worst start")


def _known(row: Measured) -> bool:
    return math.isfinite(row.value) or "reason" not in row.account


def _cells(label: str, row: Measured) -> dict[str, str]:
    from isoloss.figures.formatting import number, with_error

    ball = "" if not row.ball else f"{row.ball}, {number(row.radius)}"
    if row.eta > 0:
        ball += f", eta {number(row.eta)}"
    value = with_error(row.value, row.error) if math.isfinite(row.value) else "n/a"
    if math.isfinite(row.lowest):
        value += f" ({number(row.lowest)})"
    errors = f" ({row.error_of})" if row.error_of and math.isfinite(row.error) else ""
    again = number(row.rescaled) if math.isfinite(row.rescaled) else ""
    cells = {"run": label, "measure": row.measure, "ball": ball, "value": value + errors}
    return {**cells, "rescaled": again, "unchanged by rescaling": row.mark}
