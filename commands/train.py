"""`train`: one network, from data to a run folder that describes itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.commands.console import Console
from isoloss.commands.errors import CommandError, UsageError
from isoloss.commands.flags import Given, command, spelling
from isoloss.commands.options import Drawn, Estimated
from isoloss.commands.training import train_run
from isoloss.experiments.options import OptionError, declared, find, make, option
from isoloss.experiments.settings import Folders, Machine
from isoloss.experiments.train_options import TrainOptions, read_config

__all__ = ["TrainOptions", "train", "train_run"]

# What may differ when a run goes on.
FREE = ("run", "epochs")


@dataclass(frozen=True, kw_only=True)
class Training(Drawn, Estimated):
    """Where the settings come from, and what becomes of a run that is there."""

    config: Path | None = option(
        None,
        "TOML or JSON file of these options (a run's config.json, too); options on the command "
        "line win.",
    )
    resume: bool = option(False, "Go on with an interrupted run, as if never stopped.")
    force: bool = option(False, "Replace a run of the same name and all its results.")


@command(Given(TrainOptions), Training, Machine, Folders)
def train(given: dict[str, Any], training: Training, machine: Machine, folders: Folders) -> None:
    """Train a network and leave a run: weights, configuration, history, scores and curves.

    For example: train --dataset mnist --data-dir data --model fashion-cnn --optimizer sam --run a

    On several processes (mind the "--"): torchrun --nproc-per-node 2 -- cli.py train --run a
    """
    console = Console(training.as_json)
    stored: dict[str, Any] = {}
    data_dir = folders.data_dir
    if training.resume:
        stored, data_dir = stored_options(folders.results, given.get("run"), given, data_dir)
    elif training.config is not None:
        stored = read_config(training.config)
    finished = train_run(
        make(TrainOptions, {**stored, **given}),
        console,
        results=folders.results,
        data_dir=data_dir,
        device=machine.device,
        download=folders.download,
        figures=training.figures,
        resume=training.resume,
        force=training.force,
        estimate=training.estimate,
    )
    from isoloss.trainers.distributed import is_main

    if not training.estimate and is_main():
        console.result(
            {"run": finished.name, "path": finished.path, "evaluation": finished.evaluation()}
        )


def stored_options(
    results: Path, name: str | None, given: dict[str, Any], data_dir: Path | None
) -> tuple[dict[str, Any], Path | None]:
    """Return the options of the run to resume, and the folder of its data.

    Args:
        results: Folder of all results.
        name: Name of the run; the newest where None.
        given: Options on the command line, by name.
        data_dir: Folder of the data, the run's own where None.

    Raises:
        UsageError: If options on the command line differ from the run's, the number of epochs
            apart.
        CommandError: If there is no run, or its configuration is damaged.
    """
    from isoloss.trainers.runs import find_run, newest_run

    run = find_run(results, name) if name is not None else newest_run(results)
    if run is None:
        raise CommandError(f"expected a run to resume in {results}, got none")
    config = run.config()
    facts = config.pop("facts", {})
    asked = make(TrainOptions, given)
    try:
        stored = make(TrainOptions, config)
    except OptionError as error:
        raise CommandError(f"{run.path / 'config.json'} is damaged: {error}") from error
    differing = [
        f"{spelling(find(declared(TrainOptions), key))[0]} {getattr(stored, key)} "
        f"(now {getattr(asked, key)})"
        for key in given
        if key not in FREE and getattr(stored, key) != getattr(asked, key)
    ]
    if differing:
        raise UsageError(
            f"--resume goes on with the settings of run {run.name}: {', '.join(differing)}"
        )
    return config, data_dir or (Path(facts["data_dir"]) if "data_dir" in facts else None)
