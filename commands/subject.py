"""What a command looks at: a run, or weights from elsewhere, as network, data and loss."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.commands.console import Console
from isoloss.commands.errors import NAMING, CommandError, UsageError, usage
from isoloss.commands.options import DEFAULT_DATA_DIR, SAMPLE_SEED, check_name_or_usage, key_values
from isoloss.commands.provenance import (
    absolute_spec,
    command_line,
    describe_plugin,
    file_sha256,
    git_commit,
    plugin_file,
    plugin_sha256,
    versions,
)
from isoloss.commands.train_record import copy_plugins, plugin_hashes
from isoloss.datasets import Data, Split, load_data
from isoloss.landscape import Plan, Problem, Sample
from isoloss.models import create_model
from isoloss.trainers.checkpoints import load_into, load_weights, save_weights
from isoloss.trainers.losses import build_loss
from isoloss.trainers.runs import CHECKPOINTS, Run, create_run, find_run, newest_run


@dataclass(frozen=True)
class Selection:
    """The options that say what to look at, as the command line gives them."""

    run: str | None = None
    checkpoint: str | None = None
    model: str | None = None
    model_arg: list[str] | None = None
    dataset: str | None = None
    dataset_arg: list[str] | None = None
    loss: str | None = None
    loss_arg: list[str] | None = None
    data_dir: Path | None = None
    results: Path = Path("results")
    download: bool = False


@dataclass(frozen=True)
class Subject:
    """A trained network with its data and loss.

    Attributes:
        run: The run whose folder results go to.
        model: The network with the checkpoint's weights.
        data: The splits.
        loss: One value a sample.
        provenance: JSON-able: what identifies network, weights, data and loss, for the files
            that are computed from them.
    """

    run: Run
    model: nn.Module
    data: Data
    loss: Callable[[Any, Tensor], Tensor]
    provenance: dict[str, Any] = field(repr=False)

    def split(self, name: str) -> Split:
        """Return a split by name."""
        splits = {"train": self.data.train, "val": self.data.val, "test": self.data.test}
        split = splits.get(name)
        if split is None:
            there = ", ".join(key for key, value in splits.items() if value is not None)
            raise UsageError(f"--split: expected one of {there}, got {name!r}")
        return split

    def sample(self, split: str, samples: int) -> tuple[Split, Sample]:
        """Return samples that stand for a split, each class in proportion, and how it was drawn."""
        whole = self.split(split)
        part = whole.stratified(samples, SAMPLE_SEED)
        drawn = Sample.of(part.targets, whole.targets, drawn="proportional", seed=SAMPLE_SEED)
        return part, drawn

    def problem(
        self,
        split: str,
        samples: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        bn: str = "eval",
        bn_batch: int = 128,
        plan: Plan | None = None,
    ) -> Problem:
        """Return the loss over a number of samples of a split as a function of the weights."""
        part, _ = self.sample(split, samples)
        return Problem(
            self.model,
            self.loss,
            list(part.batches(part.handover_batch)),
            bn=bn,
            bn_batch=bn_batch,
            device=device,
            dtype=dtype,
            plan=plan,
        )


def load_subject(selection: Selection, console: Console) -> Subject:
    """Load what the options select.

    A run by name; the newest where nothing is named; weights from a file, which become a run; and
    where there is no run at all, the default on the digits, which is trained first.

    Raises:
        UsageError: For options that do not go together.
        RunError: For a run that is missing or damaged.
        CheckpointError: For weights that cannot be read or do not fit the network.
        CommandError: For data that changed since the run was trained.
    """
    which = selection.checkpoint or "last"
    if which not in CHECKPOINTS and not re.fullmatch(r"epoch-\d+", which):
        return _import_checkpoint(Path(which), selection, console)
    foreign = {"--model": selection.model, "--dataset": selection.dataset}
    for option, value in foreign.items():
        if value is not None:
            raise UsageError(
                f"{option}: a run has its own; give it with --checkpoint FILE for other weights"
            )
    run = _chosen_run(selection, console)
    config = run.config()
    return _subject(run, run.checkpoint(which), config, selection)


def _chosen_run(selection: Selection, console: Console) -> Run:
    if selection.run is not None:
        check_name_or_usage(selection.run, "RUN")
        return find_run(selection.results, selection.run)
    run = newest_run(selection.results)
    if run is None:
        from isoloss.commands.train import TrainOptions, train_run

        options = TrainOptions(run="digits-sgd")
        console.say(f"no run in {selection.results}: training {options.run} first")
        return train_run(options, console, results=selection.results)
    console.say(f"newest run: {run.name}")
    return run


def _subject(run: Run, checkpoint: Path, config: dict[str, Any], selection: Selection) -> Subject:
    _refuse_changed_plugins(run, config, selection)
    data = _load_data(run, config, selection)
    try:
        model_spec, model_arguments = config["model"], config["model_arg"]
        loss_spec = selection.loss or config["loss"]
        loss_arguments: dict[str, Any] = config["loss_arg"]
    except KeyError as error:
        raise CommandError(f"{run.path / 'config.json'} is damaged: it has no {error}") from error
    if selection.loss is not None or selection.loss_arg:
        loss_arguments = key_values(selection.loss_arg, "--loss-arg")
    with usage():
        model = create_model(model_spec, model_arguments, data.info.model_context())
        loss = build_loss(loss_spec, loss_arguments)
    load_into(model, load_weights(checkpoint), str(checkpoint))
    return Subject(
        run,
        model,
        data,
        loss,
        {
            "run": run.name,
            "checkpoint": str(checkpoint.relative_to(run.path)),
            "checkpoint_sha256": file_sha256(checkpoint),
            "model": describe_plugin(model_spec, model_arguments),
            "dataset": {
                key: data.provenance[key]
                for key in ("spec", "arguments", "fraction", "val_fraction", "split_seed")
            },
            "data_digest": data.info.digest,
            "loss": describe_plugin(loss_spec, loss_arguments),
            "command": command_line(),
            "versions": versions(),
            "git": git_commit(),
        },
    )


def _refuse_changed_plugins(run: Run, config: dict[str, Any], selection: Selection) -> None:
    """Refuse files of the user's that are not those the run was made with."""
    for role, expected in config.get("facts", {}).get("plugins", {}).items():
        if role == "loss" and selection.loss is not None:
            continue
        file = plugin_file(config[role])
        if file is None or plugin_sha256(config[role]) == expected:
            continue
        state = "has changed since" if file.is_file() else "is gone"
        raise CommandError(
            f"run {run.name} was made with {file}, which {state}\n"
            f"put it back (a copy is {run.path / 'plugins' / f'{role}-{file.name}'}), "
            "or train again"
        )


def _load_data(run: Run, config: dict[str, Any], selection: Selection) -> Data:
    stored = config.get("facts", {})
    folder = selection.data_dir or Path(stored.get("data_dir", DEFAULT_DATA_DIR))
    with usage(errors=NAMING):
        data = load_data(
            config["dataset"],
            config["dataset_arg"],
            folder,
            fraction=config["fraction"],
            val_fraction=config["val_fraction"],
            split_seed=config["split_seed"],
            download=selection.download,
        )
    expected = stored.get("data_digest")
    if expected is not None and data.info.digest != expected:
        raise CommandError(
            f"run {run.name} was trained on data with digest {expected[:12]}, got "
            f"{data.info.digest[:12]} from {folder}\n"
            "point --data-dir at the data of the run"
        )
    return data


def _import_checkpoint(file: Path, selection: Selection, console: Console) -> Subject:
    """Make a run of weights from elsewhere, after all of it has proved to fit."""
    if selection.model is None or selection.dataset is None:
        raise UsageError(
            f"--checkpoint: expected {' or '.join(CHECKPOINTS)}, or a file together with --model "
            f"and --dataset, got {file} alone"
        )
    weights = load_weights(file)
    name = check_name_or_usage(selection.run or file.stem, "RUN")
    config: dict[str, Any] = {
        "run": name,
        "label": name,
        "model": absolute_spec(selection.model),
        "model_arg": key_values(selection.model_arg, "--model-arg"),
        "dataset": absolute_spec(selection.dataset),
        "dataset_arg": key_values(selection.dataset_arg, "--dataset-arg"),
        "fraction": 1.0,
        "val_fraction": 0.0,
        "split_seed": 0,
        "loss": absolute_spec(selection.loss or "cross-entropy"),
        "loss_arg": key_values(selection.loss_arg, "--loss-arg"),
        "optimizer": "imported",
    }
    facts = {
        "data_dir": str((selection.data_dir or DEFAULT_DATA_DIR).resolve()),
        "imported_from": str(file.resolve()),
        "imported_sha256": file_sha256(file),
        "plugins": plugin_hashes(config),
    }
    folder = selection.results / "runs" / name
    # Without weights it is what an import that was killed left: done again.
    if (folder / "checkpoints" / "last.pt").is_file():
        run = find_run(selection.results, name)
        known = {key: value for key, value in run.config().items() if key != "facts"}
        digest = run.config().get("facts", {}).get("imported_sha256")
        if known != json.loads(json.dumps(config)) or digest != facts["imported_sha256"]:
            raise CommandError(
                f"run {name} exists and is not this import of {file}\n"
                "name the import otherwise: give the run's name as the argument"
            )
        return _subject(run, run.checkpoint(), run.config(), selection)
    run = create_run(selection.results, name, {**config, "facts": facts}, force=folder.exists())
    try:
        copy_plugins(run, config)
        save_weights(run.checkpoints / "last.pt", weights)
        subject = _subject(run, run.checkpoint(), run.config(), selection)
    except BaseException:
        shutil.rmtree(run.path)
        raise
    run.write_manifest("finished", imported_from=facts["imported_from"])
    console.say(f"imported {file} as run {name}")
    return subject
