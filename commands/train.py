"""`train`: one network, from data to a run folder that describes itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.commands.console import Console
from isoloss.commands.flags import Given, command
from isoloss.commands.options import Drawn, Estimated
from isoloss.experiments.options import make, option
from isoloss.experiments.settings import Folders, Machine
from isoloss.experiments.train_options import TrainOptions, options_to_resume, read_config


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


@command(Given(TrainOptions), Training, Machine, Folders, torchrun=True)
def train(given: dict[str, Any], training: Training, machine: Machine, folders: Folders) -> None:
    """Train a network and leave a run: weights, configuration, history, scores and curves.

    For example: train --dataset mnist --data-dir data --model fashion-cnn --optimizer sam --run a

    On several processes (mind the "--"): torchrun --nproc-per-node 2 -- cli.py train --run a
    """
    from isoloss.experiments.training import train as train_run
    from isoloss.experiments.training import training_cost

    console = Console(training.as_json)
    stored: dict[str, Any] = {}
    data_dir = folders.data_dir
    if training.resume:
        stored, data_dir = options_to_resume(folders.results, given.get("run"), given, data_dir)
    elif training.config is not None:
        stored = read_config(training.config)
    options = make(TrainOptions, {**stored, **given})
    where: dict[str, Any] = {
        "data_dir": data_dir, "device": machine.device, "download": folders.download
    }  # fmt: skip
    if training.estimate:
        console.cost(training_cost(options, **where))
        return
    run = train_run(
        options,
        console,
        results=folders.results,
        figures=training.figures,
        resume=training.resume,
        force=training.force,
        **where,
    )
    if console.speaks:  # the others may be here before rank 0 has written the scores
        console.result({"run": run.name, "path": run.path, "evaluation": run.evaluation()})
