"""What is selected: a run, or weights from elsewhere, as network, data and loss."""

from __future__ import annotations

import dataclasses
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from isoloss.datasets import Data
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.foreign import account_of_form, caveat
from isoloss.experiments.names import spelled
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
from isoloss.experiments.trained import Trained, check_loss, data_of, splits_of
from isoloss.models import MODELS, create_model
from isoloss.plugins import describe_plugin, plugin_file, plugin_identity
from isoloss.records.facts import Facts
from isoloss.records.leftovers import sweep, sweep_beside
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
from isoloss.registry import load_factory
from isoloss.trainers.checkpoints import (
    CheckpointError,
    Fit,
    Weights,
    load_into,
    load_weights,
    match_names,
    read_weights,
    save_weights,
)
from isoloss.trainers.errors import shown
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
    reporter, selection = reporter or Reporter(), spelled(selection)
    which = selection.checkpoint or "last"
    if epoch := re.fullmatch(r"epoch-(\d+)", which):
        which = f"epoch-{int(epoch[1]):04d}"  # as its file is called
    elif which not in CHECKPOINTS:
        return _import_checkpoint(Path(which), selection, reporter)
    for option in ("model", "dataset", "key", "trust_pickle"):
        if getattr(selection, option):
            raise OptionError(
                option, "a run has its own; give it with `checkpoint` FILE for other weights"
            )
    sweep_beside(selection.results / "runs")
    run = _chosen_run(selection, reporter)
    sweep(run.path)
    return _trained(run, run.checkpoint(which), selection)[0]


def again(selection: Selection) -> Trained:
    """Load a run as `select` did once, from `Trained.selection`, and touch nothing in its folder.

    Raises:
        RunError: For a run that is missing or damaged.
        CheckpointError: For weights that cannot be read or do not fit the network.
        ExperimentError: For data or files of the user's that changed.
    """
    assert selection.run is not None
    run = find_run(selection.results, selection.run)
    return _trained(run, run.checkpoint(selection.checkpoint or "last"), selection)[0]


def _again(run: Run, checkpoint: Path, selection: Selection) -> Selection:
    """Return what selects the same from any folder; weights from elsewhere are a run by now."""
    folder = selection.data_dir
    return Selection(
        run=run.name,
        results=run.path.parent.parent.resolve(),
        checkpoint=checkpoint.stem,
        data_dir=None if folder is None else folder.resolve(),
        loss=selection.loss,
        closure=selection.closure,
        loss_arg=selection.loss_arg,
    )


def _chosen_run(selection: Selection, reporter: Reporter) -> Run:
    if selection.run is not None:
        return find_run(selection.results, selection.run)
    run = newest_run(selection.results)
    if run is None:
        from isoloss.experiments.training import train

        options = TrainOptions(run="digits-sgd")
        reporter.say(f"no run in {selection.results}: training {options.run} first")
        return train(options, reporter, results=selection.results)
    reporter.say(f"newest run: {run.name}")
    return run


def _trained(
    run: Run,
    checkpoint: Path,
    selection: Selection,
    weights: Weights | None = None,
    source: Path | None = None,
) -> tuple[Trained, Fit, str]:
    """Put network, data and loss together; of an import say how the weights were taken.

    Args:
        run: The run.
        checkpoint: Which of its checkpoints.
        selection: What else is asked for.
        weights: Of an import: written to the checkpoint under the network's names.
        source: Of an import: what errors call the weights.
    """
    options, facts = stored_options(run), run.facts()
    _refuse_changed_plugins(run, options, facts, selection)
    data = _load_data(run, options, facts, selection)
    loss = _loss_options(options, selection)
    assert options.model is not None
    model = create_model(options.model, options.model_arg, data.info.model_context())
    doubt = caveat(run.name, options, data) if facts.imported_from is not None else ""
    fit, form = Fit(), ""
    if weights is not None:
        form = account_of_form(options, data.info, weights.tensors, str(source))
        named, fit = match_names(model, weights.tensors, str(source))
        save_weights(checkpoint, named, digest=True)
    load_into(model, load_weights(checkpoint), str(source or checkpoint))
    trained = Trained(
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
        notes={
            "run": run.name,
            "checkpoint": str(checkpoint.relative_to(run.path)),
            **({"caveat": doubt} if doubt else {}),
        },
        selection=_again(run, checkpoint, selection),
    )
    return trained, fit, form


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
        found, file = plugin_identity(spec), plugin_file(spec)
        if found == expected:
            continue
        if file is None:
            raise ExperimentError(
                f"run {run.name} was made with {spec} of {expected}, here it is {found or 'gone'}\n"
                f"install that (pip install {expected}), or train again"
            )
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
    if not file.is_file():
        raise CheckpointError(f"expected a checkpoint, got no file at {file}")
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
    sha256 = file_sha256(file)
    run = Run(selection.results / "runs" / name)
    if run.path.exists():
        if stored_options(run) != options or not _is_import(run.facts(), sha256, selection):
            raise ExperimentError(
                f"run {name} exists and is not this import of {file}\n"
                "name the import otherwise: RUN as the argument, or NAME=FILE to `compare`"
            )
        return _trained(run, run.checkpoint(), selection)[0]
    if selection.trust_pickle:
        reporter.warn(f"--trust-pickle: code in {file} may be run, with all that you may do")
    with _classes(selection):
        weights = read_weights(file, key=selection.key, trust_pickle=selection.trust_pickle)
    config = dataclasses.asdict(options)
    facts = Facts(
        data_dir=str((selection.data_dir or DEFAULT_DATA_DIR).resolve()),
        imported_from=str(file.resolve()),
        imported_sha256=sha256,
        imported={
            "key": weights.key,
            "chosen": selection.key is not None,
            "unpickled": weights.unpickled,
        },
        plugins=plugin_hashes(config),
    )
    with (
        locked_run(selection.results, name),
        new_run(selection.results, name, config, facts) as begun,
    ):
        copy_plugins(begun, config)
        last = begun.checkpoints / "last.pt"
        trained, fit, form = _trained(begun, last, selection, weights, file)
        check_loss(selection.loss, selection.closure, trained.splits["train"], trained.info)
        begun.write_manifest("finished", imported_from=facts.imported_from)
    reporter.say(f"imported {file} as run {name}: {_account(weights, fit, sha256)}")
    if form:
        reporter.say(form)
    if text := trained.notes.get("caveat"):
        reporter.warn(text)
    if bad := weights.not_finite():
        reporter.warn(
            f"{file}: NaN or infinite values in {len(bad)} tensors, first {shown(bad[0])}"
        )
    where = _again(run, run.checkpoint(), selection)
    return dataclasses.replace(trained, run=run, selection=where)


def _classes(selection: Selection) -> AbstractContextManager[None]:
    """Put the plug-in of the network in place, whose modules a pickle of it names."""
    assert selection.model is not None
    plugin = load_factory(selection.model, MODELS).plugin if selection.trust_pickle else None
    return nullcontext() if plugin is None or plugin.modules is None else plugin.modules.active()


def _is_import(facts: Facts, sha256: str, selection: Selection) -> bool:
    """Return whether a run is of this file and of the weights in it that are asked for."""
    if facts.imported_sha256 != sha256:
        return False
    if selection.key is None:
        return not facts.imported.get("chosen", False)
    return selection.key == facts.imported.get("key")


def _account(weights: Weights, fit: Fit, sha256: str) -> str:
    """Return in a line what was taken of a file, and what is known of its integrity."""
    taken = f"{len(weights.tensors) - len(fit.left_out)} tensors"
    if weights.key:
        taken += f" of {shown(weights.key)}"
    others = [*weights.others, *fit.others]
    parts = [taken + (f" (also there: {shown(*others)}; choose with --key)" if others else "")]
    if prefix := weights.prefix + fit.prefix:
        parts.append(f"prefix {shown(prefix)} taken off")
    if fit.added:
        parts.append(f"prefix {fit.added} put on")
    if fit.left_out:
        more = ", .." if len(fit.left_out) > 1 else ""
        parts.append(f"{len(fit.left_out)} left out ({shown(fit.left_out[0])}{more})")
    if weights.unpickled:
        parts.append("unpickled, running its code")
    digest = "its digest holds" if weights.digested else "no digest came with it"
    sums = "its checksums hold" if weights.summed else "it has no checksums"
    parts.append(f"{sums}, {digest}, SHA-256 {sha256[:12]}..")
    return "; ".join(parts)
