"""`compare`: runs side by side in one figure and one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.commands.console import Console
from isoloss.commands.flags import Given, command
from isoloss.commands.options import Printed
from isoloss.errors import UsageError
from isoloss.experiments.measuring import Named, measure_all, name_all
from isoloss.experiments.options import OptionError, make, option
from isoloss.experiments.settings import Around, ComparisonSettings
from isoloss.records.runs import Run, find_run, list_runs


@dataclass(frozen=True, kw_only=True)
class Asked(Printed):
    """What to compare, and where to."""

    runs: tuple[str, ...] = option(
        (),
        "Two runs or more, or files of weights (FILE or NAME=FILE), which are imported as runs "
        "and measured.",
        positional=True,
        metavar="RUN..",
        otherwise="the newest two",
    )
    measure: bool = option(
        False, "Measure first what is missing of any run: scores, surface or curve, and spectrum."
    )
    again: bool = option(
        False, "Measure, also in place of what was measured with other options than these."
    )
    by: str | None = option(
        None,
        "Group runs by a setting of their training, such as optimizer: medians and ranges of "
        "several seeds.",
        metavar="KEY",
        otherwise="each run by itself",
    )
    out: Path | None = option(None, "Folder to write.", otherwise="results/comparisons/RUN_RUN")
    force: bool = option(False, "Compare what was measured differently; the figure says how.")


@command(Asked, Given(ComparisonSettings), Around)
def compare(asked: Asked, given: dict[str, Any], around: Around) -> None:
    """Set runs side by side: surfaces at one scale, curves, spectra and a table with errors.

    Runs that have a surface, a spectrum, or both. For example: compare mnist-sgd mnist-adam
    or, of several seeds of each: compare sgd-0 sgd-1 sgd-2 sam-0 sam-1 sam-2 --by optimizer

    Files of weights, all measured in one way: compare a.pt b.pt c.pt --model my/net.py:build
    --dataset my/data.py:load --x=-1:1:21 --y=-1:1:21. What is measured already is kept, so that
    the same command goes on after an interruption.
    """
    console = Console(asked.as_json)
    networks = name_all(asked.runs)
    files = any(network.file is not None for network in networks)
    if not files:
        _refuse_of_files(around)
    if files or asked.measure or asked.again:
        if not networks:
            found = _chosen((), around.results, console)
            networks = [Named(run.name) for run in found]
        settings = make(ComparisonSettings, given)
        runs = measure_all(networks, settings, around, console, again=asked.again)
    else:
        for name in given:
            raise OptionError(name, "says how to measure: give `measure` as well, or leave it out")
        runs = _chosen([network.run for network in networks], around.results, console)
    say_comparison(runs, around.results, console, asked.out, asked.by, asked.force)


def _refuse_of_files(around: Around) -> None:
    for name in ("model", "model_arg", "dataset", "dataset_arg"):
        if getattr(around, name):
            raise OptionError(name, "is for files of weights, runs have their own")


def say_comparison(
    runs: Sequence[Run],
    results: Path,
    console: Console,
    out: Path | None = None,
    by: str | None = None,
    force: bool = False,
) -> Path:
    """Write and say the comparison of some runs, and return its folder."""
    from isoloss.experiments.comparison import compare as compare_runs
    from isoloss.experiments.drawing import png_files

    comparison = compare_runs(runs, results, by=by, force=force)
    folder = out or results / "comparisons" / _folder(runs)
    paths = comparison.save(folder)
    console.say(comparison.text())
    pairs = [pair.text() for pair in comparison.pairs]
    for text in pairs + comparison.unpaired + comparison.findings + comparison.notes:
        console.say(text)
    console.say(f"wrote {png_files(paths)[0]} (and .pdf, table.csv, table.json, table.md)")
    console.result({**comparison.to_json(), "figures": paths})
    return folder


def _chosen(names: Sequence[str], results: Path, console: Console) -> list[Run]:
    if names:
        return [find_run(results, name) for name in names]
    there = sorted(list_runs(results), key=lambda run: run.path.stat().st_mtime_ns)[-2:]
    if len(there) == 2:
        console.say(f"the two newest runs: {there[0].name} and {there[1].name}")
        return there
    if there:
        raise UsageError(f"expected two runs or more to compare, there is one: {there[0].name}")
    from isoloss.experiments.demo import DEMO_RUNS, measure_demo_run

    console.say(f"no run in {results}: training SGD and SAM on the digits first")
    chosen = [one for one in DEMO_RUNS if one.seed == 0 and one.optimizer in ("sgd", "sam")]
    return [measure_demo_run(options, results, console) for options in chosen]


def _folder(runs: Sequence[Run]) -> str:
    """Name a comparison after its runs, the first and the last of many."""
    names = [run.name for run in runs]
    return "_".join(names if len(names) <= 4 else [names[0], f"{len(names) - 2}-more", names[-1]])
