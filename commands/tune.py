"""`tune`: a search over options of `train`, judged on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Drawn, Forced
from isoloss.experiments.options import LARGEST_SEED, option
from isoloss.experiments.settings import Folders, Machine


@dataclass(frozen=True, kw_only=True)
class Search(Forced, Drawn):
    """What to search, and for how long."""

    name: str = option(help="Name of the search; the same name goes on with it.")
    search: tuple[str, ...] = option(
        (),
        "An option of train and its range: uniform:LOW:HIGH[:STEP], loguniform:LOW:HIGH, "
        "int:LOW:HIGH[:STEP], logint:LOW:HIGH or choice:A,B,..; model_arg.KEY for an argument.",
        metavar="OPTION=RANGE",
    )
    trials: int = option(20, "Trials in all, those done before included.", low=1, high=1_000_000)
    fixed: tuple[str, ...] = option(
        (), "An option of train for all trials.", flag="set", metavar="OPTION=VALUE"
    )
    config: Path | None = option(None, "TOML or JSON file of options for all trials; --set wins.")
    jobs: int = option(1, "Trials run at the same time.", low=1, high=10_000)
    seed: int = option(
        0,
        "Seed of what is drawn; that of the trainings is --set seed=N.",
        low=0,
        high=LARGEST_SEED,
    )


@command(Search, Machine, Folders)
def tune(asked: Search, machine: Machine, folders: Folders) -> None:
    """Search over options of train for the best validation accuracy; look at test once, last.

    Trials are kept in RESULTS/tune/NAME: runs, trials.csv, trials.png, and best.json for train
    --config. An interrupted search goes on with the same command. For example: tune --name a
    --search lr=loguniform:1e-3:1 --search optimizer=choice:sgd,sam --set epochs=3 --trials 10
    """
    from isoloss.experiments.tuning import tune as search

    console = Console(asked.as_json)
    summary = search(
        asked.name,
        asked.search,
        asked.fixed,
        console,
        config=asked.config,
        trials=asked.trials,
        jobs=asked.jobs,
        seed=asked.seed,
        results=folders.results,
        data_dir=folders.data_dir,
        device=machine.device,
        download=folders.download,
        figures=asked.figures,
        force=asked.force,
    )
    console.result(summary)
