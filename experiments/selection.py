"""What is selected: a run, or weights from elsewhere, as network, data and loss."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from isoloss.datasets import Data
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import OptionError, make
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.settings import DEFAULT_DATA_DIR, Selection
from isoloss.experiments.train_options import (
    DEFAULT_LOSS,
    TrainOptions,
    refuse_both,
    stored_options,
)
from isoloss.experiments.train_record import copy_plugins, describe_loss, plugin_hashes
from isoloss.experiments.trained import Trained, data_of, splits_of
from isoloss.experiments.training import train
from isoloss.models import create_model
from isoloss.plugins import describe_plugin, plugin_file, plugin_sha256
from isoloss.records.facts import Facts
from isoloss.records.provenance import file_sha256
from isoloss.records.runs import (
    CHECKPOINTS,
    Run,
    check_name,
    find_run,
    locked_run,
    new_run,
    newest_run,
)
from isoloss.trainers.checkpoints import load_into, load_weights, save_weights
from isoloss.trainers.losses import choose_loss


def select(selection: Selection, reporter: Reporter | None = None) -> Trained:
    """Load what the options select.

    A run by name; the newest where nothing is named; weights from a file, which become a run; and
    where there is no run at all, the default on the digits, which is trained first.

    Raises:
        UsageError: For options that do not go together.
        RunError: For a run that is missing or damaged.
        CheckpointError: For weights that cannot be read or do not fit the network.
        ExperimentError: For data or files of the user's that changed since the run was trained.
    """
    reporter = reporter or Reporter()
    which = selection.checkpoint or "last"
    if which not in CHECKPOINTS and not re.fullmatch(r"epoch-\d+", which):
        return _import_checkpoint(Path(which), selection, reporter)
    for option in ("model", "dataset"):
        if getattr(selection, option) is not None:
            raise OptionError(
                option, "a run has its own; give it with `checkpoint` FILE for other weights"
            )
    run = _chosen_run(selection, reporter)
    return _trained(run, run.checkpoint(which), selection)


def _chosen_run(selection: Selection, reporter: Reporter) -> Run:
    if selection.run is not None:
        return find_run(selection.results, selection.run)
    run = newest_run(selection.results)
    if run is None:
        options = TrainOptions(run="digits-sgd")
        reporter.say(f"no run in {selection.results}: training {options.run} first")
        return train(options, reporter, results=selection.results)
    reporter.say(f"newest run: {run.name}")
    return run


def _trained(run: Run, checkpoint: Path, selection: Selection) -> Trained:
    options, facts = stored_options(run), run.facts()
    _refuse_changed_plugins(run, options, facts, selection)
    data = _load_data(run, options, facts, selection)
    loss = _loss_options(options, selection)
    assert options.model is not None
    model = create_model(options.model, options.model_arg, data.info.model_context())
    load_into(model, load_weights(checkpoint), str(checkpoint))
    return Trained(
        model,
        choose_loss(loss["loss"], loss["closure"], loss["loss_arg"]),
        splits_of(data),
        data.info,
        run.label,
        run,
        options.optimizer or "",
        about={
            "checkpoint_sha256": file_sha256(checkpoint),
            "model": describe_plugin(options.model, options.model_arg),
            "dataset": {
                key: data.provenance[key]
                for key in ("spec", "arguments", "fraction", "val_fraction", "split_seed")
            },
            "data_digest": data.info.digest,
            "loss": describe_loss(loss),
        },
        notes={"run": run.name, "checkpoint": str(checkpoint.relative_to(run.path))},
    )


def _loss_options(options: TrainOptions, selection: Selection) -> dict[str, Any]:
    """Return the options `loss`, `closure` and `loss_arg`: those that are given, else the run's."""
    refuse_both(selection.loss, selection.closure)
    if selection.loss is None and selection.closure is None:
        arguments = selection.loss_arg or options.loss_arg
        return {"loss": options.loss, "closure": options.closure, "loss_arg": arguments}
    return {
        "loss": selection.loss or options.loss,
        "closure": selection.closure,
        "loss_arg": selection.loss_arg,
    }


def _refuse_changed_plugins(
    run: Run, options: TrainOptions, facts: Facts, selection: Selection
) -> None:
    """Refuse files of the user's that are not those the run was made with."""
    for role, expected in facts.plugins.items():
        if role in ("loss", "closure") and (selection.loss or selection.closure):
            continue
        spec = getattr(options, role)
        file = plugin_file(spec)
        if file is None or plugin_sha256(spec) == expected:
            continue
        state = "has changed since" if file.is_file() else "is gone"
        raise ExperimentError(
            f"run {run.name} was made with {file}, which {state}\n"
            f"put it back (a copy is {run.path / 'plugins' / f'{role}-{file.name}'}), "
            "or train again"
        )


def _load_data(run: Run, options: TrainOptions, facts: Facts, selection: Selection) -> Data:
    folder = selection.data_dir or Path(facts.data_dir or DEFAULT_DATA_DIR)
    data = data_of(options, folder, selection.download)
    expected = facts.data_digest
    if expected is not None and data.info.digest != expected:
        raise ExperimentError(
            f"run {run.name} was trained on data with digest {expected[:12]}, got "
            f"{data.info.digest[:12]} from {folder}\n"
            "point `data_dir` at the data of the run"
        )
    return data


def _import_checkpoint(file: Path, selection: Selection, reporter: Reporter) -> Trained:
    """Make a run of weights from elsewhere, after all of it has proved to fit."""
    if selection.model is None or selection.dataset is None:
        raise OptionError(
            "checkpoint",
            f"expected {' or '.join(CHECKPOINTS)}, or a file together with `model` and `dataset`, "
            f"got {file} alone",
        )
    weights = load_weights(file)
    name = check_name(selection.run or file.stem)
    options = make(
        TrainOptions,
        {
            "run": name,
            "label": name,
            "model": selection.model,
            "model_arg": selection.model_arg,
            "dataset": selection.dataset,
            "dataset_arg": selection.dataset_arg,
            "val_fraction": 0.0,
            "loss": selection.loss or DEFAULT_LOSS,
            "closure": selection.closure,
            "loss_arg": selection.loss_arg,
            "optimizer": "imported",
        },
    )
    config = dataclasses.asdict(options)
    facts = Facts(
        data_dir=str((selection.data_dir or DEFAULT_DATA_DIR).resolve()),
        imported_from=str(file.resolve()),
        imported_sha256=file_sha256(file),
        plugins=plugin_hashes(config),
    )
    run = Run(selection.results / "runs" / name)
    if run.path.exists():
        if stored_options(run) != options or run.facts().imported_sha256 != facts.imported_sha256:
            raise ExperimentError(
                f"run {name} exists and is not this import of {file}\n"
                "name the import otherwise: give the run's name as the argument"
            )
        return _trained(run, run.checkpoint(), selection)
    with (
        locked_run(selection.results, name),
        new_run(selection.results, name, config, facts) as begun,
    ):
        copy_plugins(begun, config)
        save_weights(begun.checkpoints / "last.pt", weights, digest=True)
        trained = _trained(begun, begun.checkpoint(), selection)
        begun.write_manifest("finished", imported_from=facts.imported_from)
    reporter.say(f"imported {file} as run {name}")
    return dataclasses.replace(trained, run=run)
