"""A training: data, network, optimizer and loop put together, and a run folder around it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from isoloss.datasets import Data, create_augmentation, default_model
from isoloss.evaluation.reports import summary_line
from isoloss.experiments.devices import peak_memory, resolve_device
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.names import spelled
from isoloss.experiments.options import OptionError
from isoloss.experiments.preflight import check_parameters, check_step
from isoloss.experiments.reporting import Cost, Reporter, announcing, heard_by
from isoloss.experiments.scoring import write_evaluation
from isoloss.experiments.settings import DEFAULT_DATA_DIR
from isoloss.experiments.train_options import (
    DEFAULT_LOSS,
    OPTIMIZER_OPTIONS,
    TrainOptions,
    refuse_both,
)
from isoloss.experiments.train_record import (
    TrainingLog,
    copy_plugins,
    describe_loss,
    training_facts,
    write_summary,
)
from isoloss.experiments.trained import check_loss, data_of, parameter_counts, splits_of
from isoloss.landscape.losses import PerSampleLoss
from isoloss.landscape.objective import Closure
from isoloss.models import create_model, default_optimizer
from isoloss.parallel.ranks import Group, local_device, process_group
from isoloss.records.files import FileError, write_bytes
from isoloss.records.provenance import file_sha256
from isoloss.records.runs import Run, check_name, locked_run, new_run, refuse_taken, write_json
from isoloss.trainers import loop
from isoloss.trainers.checkpoints import save_weights
from isoloss.trainers.intel import check_intel, optimise
from isoloss.trainers.losses import choose_loss
from isoloss.trainers.optimizers import (
    OptimizerSettings,
    build_optimizer,
    resolve_optimizer,
    takes_base,
)
from isoloss.trainers.settings import TrainingError, TrainingSettings
from isoloss.trainers.trainer import Trainer, TrainingDiverged


def train(
    options: TrainOptions,
    reporter: Reporter | None = None,
    *,
    results: Path | str = "results",
    data_dir: Path | str | None = None,
    device: str = "auto",
    download: bool = False,
    figures: bool = True,
    resume: bool = False,
    force: bool = False,
    splits: Sequence[str] = ("train", "val", "test"),
    progress: bool = False,
) -> Run:
    """Train as the options say and return the run.

    Under torchrun every process calls this; rank 0 alone writes, and evaluates in the end.

    Args:
        options: What to train and how.
        reporter: Told what happens.
        results: Folder of all results.
        data_dir: Folder of the data; ./data where None.
        device: Where to train.
        download: Whether missing data may be fetched.
        figures: Whether to draw.
        resume: Whether to go on with the run of that name.
        force: Whether to replace it.
        splits: Those that the final weights are scored on.
        progress: Whether to show a bar where there is no reporter.

    Raises:
        UsageError: For options that do not go together.
        RunError: For a run that exists, or, to resume, does not.
        TrainingDiverged: If the loss has exploded, or a loss or weight is not finite.
        ExperimentError: If it was interrupted, or the data are others than at its start.
    """
    results, folder = Path(results), Path(data_dir or DEFAULT_DATA_DIR)
    asked, options = options.loss, with_defaults(options)
    place = local_device(resolve_device(device))
    intel = check_intel() if options.intel else None
    parts = _resolve(options, place)
    began = time.monotonic()
    with contextlib.ExitStack() as held:
        with process_group(place) as group:
            log = TrainingLog(heard_by(reporter, progress), speaks=group.main)
            run = Run(results / "runs" / parts.name)
            if group.main and not (resume or force):
                refuse_taken(run.path)
            data = _load(options, folder, download, group)
            check_loss(asked, options.closure, data.train, data.info)
            trainer = _assemble(parts, options, data, place, group)
            if group.main:
                held.enter_context(locked_run(results, parts.name))
            if resume:
                _go_on(trainer, run, data, log)
            if group.main:
                if resume:
                    held.enter_context(_reopened(run, options, trainer))
                    if not (run.path / "summary.txt").is_file():
                        _record(run, trainer.model, data, figures)
                else:
                    config = parts.config(options)
                    facts = training_facts(trainer.model, data, place, group, intel, config)
                    with new_run(results, parts.name, config, facts, force=force) as begun:
                        _record(begun, trainer.model, data, figures)
                        # With weights, it takes the place of a run of that name.
                        weights = trainer.model.state_dict()
                        save_weights(begun.checkpoints / "last.pt", weights, digest=True)
                log.open(run)
            if resume:
                log.say(f"run {run.name}: going on after epoch {trainer.epoch} of {options.epochs}")
            log.say(
                f"run {parts.name}: {parts.model_spec}, "
                f"{parameter_counts(trainer.model)}, "
                f"{len(data.train):,} training samples, {options.optimizer}, {place}"
                + (f", {group.size} processes" if group.size > 1 else "")
            )
            _train_to_the_end(trainer, run, options, log)
        if group.main:
            seconds = time.monotonic() - began
            _finish(
                trainer, run, parts.loss, data, log, figures=figures, seconds=seconds, splits=splits
            )
        return run


def training_cost(
    options: TrainOptions,
    *,
    data_dir: Path | str | None = None,
    device: str = "auto",
    download: bool = False,
) -> Cost:
    """Time a few steps of a training and scale up; nothing is written."""
    asked, options = options.loss, with_defaults(options)
    place = local_device(resolve_device(device))
    parts = _resolve(options, place)
    with process_group(place) as group:
        data = _load(options, Path(data_dir or DEFAULT_DATA_DIR), download, group)
        check_loss(asked, options.closure, data.train, data.info)
        return _cost(_assemble(parts, options, data, place, group))


@dataclass(frozen=True)
class _Parts:
    """What the options name, before any data are read."""

    name: str
    model_spec: str
    optimizer: OptimizerSettings
    training: TrainingSettings
    loss: PerSampleLoss | Closure

    def config(self, options: TrainOptions) -> dict[str, Any]:
        """Return the options with all defaults resolved."""
        settings = self.optimizer.to_json()
        return {
            **dataclasses.asdict(options),
            "run": self.name,
            "model": self.model_spec,
            **{key: settings.get(key) for key in OPTIMIZER_OPTIONS},
        }


def with_defaults(options: TrainOptions) -> TrainOptions:
    """Fill in the loss, and what data set (its network) and network (its optimizer) decide.

    Names become those that are registered.
    """
    options = spelled(options)
    model = options.model or default_model(options.dataset)
    if model is None:
        raise OptionError("model", "a data set of your own has no default network, name one")
    plain = default_optimizer(model)
    optimizer = options.optimizer or plain
    base = options.base or (plain if takes_base(optimizer) else None)
    loss = options.loss or DEFAULT_LOSS
    return dataclasses.replace(options, model=model, optimizer=optimizer, base=base, loss=loss)


def _resolve(options: TrainOptions, place: torch.device) -> _Parts:
    assert options.model is not None
    assert options.optimizer is not None
    assert options.loss is not None
    refuse_both(options.loss if options.loss != DEFAULT_LOSS else None, options.closure)
    return _Parts(
        check_name(options.run or _default_name(options)),
        options.model,
        resolve_optimizer(
            options.optimizer, **{key: getattr(options, key) for key in OPTIMIZER_OPTIONS}
        ),
        TrainingSettings(
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            schedule=options.schedule,
            schedule_arguments=options.schedule_arg,
            warmup=str(options.warmup),
            patience=options.patience,
            clip=options.clip,
            amp=options.amp,
        ),
        choose_loss(options.loss, options.closure, options.loss_arg, place),
    )


def _default_name(options: TrainOptions) -> str:
    data = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(options.dataset).name).lstrip(".")
    return f"{data}-{options.optimizer}"


def _load(options: TrainOptions, folder: Path, download: bool, group: Group) -> Data:
    with group.main_first() if download else contextlib.nullcontext():
        return data_of(options, folder, download)


def _assemble(
    parts: _Parts, options: TrainOptions, data: Data, place: torch.device, group: Group
) -> Trainer:
    augment = None
    if options.augment is not None:
        augment = create_augmentation(options.augment, data.info)
    torch.manual_seed(options.seed)
    model = create_model(parts.model_spec, options.model_arg, data.info.model_context())
    check_parameters(model)
    model = model.to(place)
    fused = parts.optimizer.base is None  # the base of a wrapper keeps the plain step
    prepare = functools.partial(optimise, model, fused=fused) if options.intel else None
    optimizer = build_optimizer(parts.optimizer, model, prepare)
    trainer = Trainer(
        model,
        parts.loss,
        optimizer,
        data.train,
        data.val,
        parts.training,
        augment=augment,
        group=group,
    )
    check_step(trainer)
    return trainer


@contextlib.contextmanager
def _reopened(run: Run, options: TrainOptions, trainer: Trainer) -> Iterator[None]:
    """Call a run unfinished again; a finished one stays so if no epoch comes of it."""
    files = [run.path / name for name in ("config.json", "run.json")]
    before = {file: file.read_bytes() for file in files if file.is_file()}
    finished, start = len(before) == 2 and run.status == "finished", trainer.epoch
    try:
        # The settings were compared; the number of epochs alone may be another one now.
        write_json(run.path / "config.json", {**run.config(), "epochs": options.epochs})
        run.write_manifest("training")
        yield
    except BaseException:
        if finished and trainer.epoch == start:
            with contextlib.suppress(FileError):  # the first error says why
                for file, content in before.items():
                    write_bytes(file, content)
        raise


def _go_on(trainer: Trainer, run: Run, data: Data, log: TrainingLog) -> None:
    expected = run.facts().data_digest
    if expected is not None and data.info.digest != expected:
        raise ExperimentError(
            f"run {run.name} was begun on data with digest {expected[:12]}, got "
            f"{data.info.digest[:12]}\npoint `data_dir` at the data of the run"
        )
    if (run.checkpoints / "state.pt").is_file():  # else it was stopped before it began
        loop.resume(trainer, run.checkpoints)
    if (run.path / "run.json").is_file() and run.status == "diverged":
        log.warn(
            f"{run.manifest().get('reason', 'training diverged')}; the same settings will end "
            f"there again: train {run.name} anew with a lower learning rate (lr)"
        )


def _record(run: Run, model: torch.nn.Module, data: Data, figures: bool) -> None:
    """Write what a run holds before training, beside its configuration."""
    copy_plugins(run, run.config())
    write_summary(run, model, data)
    if figures:
        from isoloss.experiments.sample_drawing import draw_samples

        draw_samples(run, data.train, data.info)


def _finish(
    trainer: Trainer,
    run: Run,
    loss: PerSampleLoss | Closure,
    data: Data,
    log: TrainingLog,
    *,
    figures: bool,
    seconds: float,
    splits: Sequence[str],
) -> None:
    """Evaluate the final weights, say so in the manifest, and draw."""
    facts = {
        "checkpoint_sha256": file_sha256(run.checkpoint()),
        "loss": describe_loss(run.config()),
    }
    evaluation = write_evaluation(
        run,
        trainer.model,
        loss,
        {name: split for name, split in splits_of(data).items() if name in splits},
        data.info,
        log,
        facts=facts,
        figures=figures,
    )
    run.write_manifest(
        "finished",
        seconds=seconds,
        epochs=trainer.epoch,
        best_epoch=trainer.best_epoch,
        stopped_early=trainer.stopped_early,
    )
    if figures:
        from isoloss.experiments.drawing import draw_training

        draw_training(run)  # its title says how the training ended
    last = evaluation.splits
    name = next((name for name in ("test", "val", "train") if name in last), None)
    log.say(f"{name} {summary_line(last[name])}; {run.path}" if name else f"trained; {run.path}")


def _train_to_the_end(trainer: Trainer, run: Run, options: TrainOptions, log: TrainingLog) -> None:
    main = trainer.group.main

    def on_epoch(history: Any) -> None:
        last = history[-1]
        if main:
            run.write_history(history)
        log.say(
            f"epoch {last.epoch}/{options.epochs}: train loss {last.train_loss:.4f}, "
            f"accuracy {100 * last.train_accuracy:.2f} %; validation loss {last.val_loss:.4f}, "
            f"accuracy {100 * last.val_accuracy:.2f} %; {last.seconds:.1f} s"
        )

    if main:
        run.write_history(trainer.history)
    try:
        with log.progress(f"training {run.name}") as progress:
            advice = "validation comes on top; fewer with `epochs` or `fraction`"
            loop.train(
                trainer,
                run.checkpoints,
                checkpoint_every=options.checkpoint_every,
                progress=announcing(log, progress, "steps", advice) if main else None,
                on_epoch=on_epoch,
            )
    except TrainingDiverged as error:
        if main:
            run.write_manifest("diverged", reason=str(error).splitlines()[0])
            log.note(str(error))
        raise
    except KeyboardInterrupt:
        if main:
            run.write_manifest("interrupted")
        text = (
            f"interrupted after epoch {trainer.epoch} of {options.epochs}\n"
            f"go on with: python cli.py train --run {run.name} --resume"
        )
        log.note(text)
        raise ExperimentError(text) from None
    if trainer.stopped_early:
        log.say(
            f"stopped after epoch {trainer.epoch}: no lower validation loss since epoch "
            f"{trainer.best_epoch}"
        )


def _cost(trainer: Trainer) -> Cost:
    """Time a few steps and scale up."""

    class EnoughError(Exception):
        """Raised to leave the epoch after the steps that are timed."""

    marks: list[float] = []

    def after_step(done: int) -> None:
        marks.append(time.perf_counter())
        if done >= min(6, trainer.steps_per_epoch):
            raise EnoughError

    with contextlib.suppress(EnoughError):
        trainer.train_epoch(after_step)
    if len(marks) < 2:
        raise TrainingError("expected 2 steps or more to time, the epoch has one")
    step = (marks[-1] - marks[0]) / (len(marks) - 1)
    steps = trainer.steps_per_epoch * trainer.settings.epochs
    return Cost(step * steps, steps, "steps", 0, peak_memory())
