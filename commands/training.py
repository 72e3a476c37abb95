"""Assembles data, network, optimizer and loop into a training, and a run folder around it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.commands.console import Console
from isoloss.commands.errors import NAMING, CommandError, UsageError, usage
from isoloss.commands.options import (
    DEFAULT_DATA_DIR,
    check_name_or_usage,
    peak_memory,
    resolve_device,
)
from isoloss.commands.train_options import OPTIMIZER_OPTIONS, TrainOptions
from isoloss.commands.train_record import (
    TrainingLog,
    copy_plugins,
    plugin_hashes,
    training_facts,
    write_summary,
)
from isoloss.records.provenance import describe_plugin, file_sha256

if TYPE_CHECKING:
    import torch

    from isoloss.datasets import Data
    from isoloss.landscape.losses import PerSampleLoss
    from isoloss.records.runs import Run
    from isoloss.trainers.distributed import Group
    from isoloss.trainers.optimizers import OptimizerSettings
    from isoloss.trainers.settings import TrainingSettings
    from isoloss.trainers.trainer import Trainer


def train_run(
    options: TrainOptions,
    console: Console,
    *,
    results: Path,
    data_dir: Path | None = None,
    device: str = "auto",
    download: bool = False,
    figures: bool = True,
    resume: bool = False,
    force: bool = False,
    estimate: bool = False,
    splits: Sequence[str] = ("train", "val", "test"),
) -> Run:
    """Train as the options say and return the run; see `train` for what it leaves.

    Under torchrun every process calls this; rank 0 alone writes, and evaluates in the end.

    Args:
        options: What to train and how.
        console: Where to say what happens.
        results: Folder of all results.
        data_dir: Folder of the data.
        device: Where to train.
        download: Whether missing data may be fetched.
        figures: Whether to draw.
        resume: Whether to go on with the run of that name.
        force: Whether to replace it.
        estimate: Whether to time a few steps and stop.
        splits: Those that the final weights are scored on.
    """
    from isoloss.records.runs import Run, locked_run, new_run, refuse_taken, write_json
    from isoloss.trainers.checkpoints import save_weights
    from isoloss.trainers.distributed import local_device, process_group
    from isoloss.trainers.intel import check_intel

    options = with_defaults(options)
    place = local_device(resolve_device(device))
    intel = check_intel() if options.intel else None
    parts = _resolve(options, place)
    began = time.monotonic()
    with contextlib.ExitStack() as held:
        with process_group(place) as group:
            log = TrainingLog(console, speaks=group.main)
            run = Run(results / "runs" / parts.name)
            if group.main and not (resume or force or estimate):
                refuse_taken(run.path)
            with group.main_first() if download else contextlib.nullcontext():
                data = _load(options, data_dir or DEFAULT_DATA_DIR, download)
            trainer = _assemble(parts, options, data, place, group)
            if estimate:
                _estimate(trainer, log)
                return run
            if group.main:
                held.enter_context(locked_run(results, parts.name))
            if resume:
                _go_on(trainer, run, data)
            if group.main:
                facts = training_facts(trainer.model, data, place, group, intel)
                config = parts.config(options)
                config["facts"] = {**facts, "plugins": plugin_hashes(config)}
                if resume:
                    # They were compared; the number of epochs alone may be another one now.
                    write_json(run.path / "config.json", {**run.config(), "epochs": options.epochs})
                    run.write_manifest("training")
                    if not (run.path / "summary.txt").is_file():
                        _record(run, trainer.model, data, config, figures)
                else:
                    with new_run(results, parts.name, config, force=force) as begun:
                        _record(begun, trainer.model, data, config, figures)
                        # With weights, it takes the place of a run of that name.
                        weights = trainer.model.state_dict()
                        save_weights(begun.checkpoints / "last.pt", weights, digest=True)
                log.open(run)
            if resume:
                log.say(f"run {run.name}: going on after epoch {trainer.epoch} of {options.epochs}")
            log.say(
                f"run {parts.name}: {parts.model_spec}, "
                f"{sum(p.numel() for p in trainer.model.parameters()):,} parameters, "
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


@dataclass(frozen=True)
class _Parts:
    """What the options name, before any data are read."""

    name: str
    model_spec: str
    optimizer: OptimizerSettings
    training: TrainingSettings
    loss: PerSampleLoss

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
    """Fill in what the data set (its network) and the network (its optimizer) decide."""
    from isoloss.datasets import default_model
    from isoloss.models import default_optimizer
    from isoloss.trainers.optimizers import takes_base

    with usage():
        model = options.model or default_model(options.dataset)
        if model is None:
            raise UsageError("--model: a data set of your own has no default network, name one")
        plain = default_optimizer(model)
        optimizer = options.optimizer or plain
        base = options.base or (plain if takes_base(optimizer) else None)
    return dataclasses.replace(options, model=model, optimizer=optimizer, base=base)


def _resolve(options: TrainOptions, place: torch.device) -> _Parts:
    from isoloss.trainers.losses import build_loss
    from isoloss.trainers.optimizers import resolve_optimizer
    from isoloss.trainers.settings import TrainingSettings

    assert options.model is not None
    assert options.optimizer is not None
    with usage():
        return _Parts(
            check_name_or_usage(options.run or _default_name(options), "--run"),
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
                warmup=options.warmup,
                patience=options.patience,
                clip=options.clip,
                amp=options.amp,
            ),
            build_loss(options.loss, options.loss_arg, place),
        )


def _default_name(options: TrainOptions) -> str:
    data = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(options.dataset).name).lstrip(".")
    return f"{data}-{options.optimizer}"


def _load(options: TrainOptions, folder: Path, download: bool) -> Data:
    from isoloss.datasets import load_data

    with usage(errors=NAMING):
        return load_data(
            options.dataset,
            options.dataset_arg,
            folder,
            fraction=options.fraction,
            val_fraction=options.val_fraction,
            split_seed=options.split_seed,
            download=download,
        )


def _assemble(
    parts: _Parts, options: TrainOptions, data: Data, place: torch.device, group: Group
) -> Trainer:
    import torch

    from isoloss.datasets import create_augmentation
    from isoloss.models import create_model
    from isoloss.trainers.intel import optimise
    from isoloss.trainers.optimizers import build_optimizer
    from isoloss.trainers.trainer import Trainer

    with usage():
        augment = None
        if options.augment is not None:
            augment = create_augmentation(options.augment, data.info)
        torch.manual_seed(options.seed)
        model = create_model(parts.model_spec, options.model_arg, data.info.model_context())
        model = model.to(place)
        fused = parts.optimizer.base is None  # the base of a wrapper keeps the plain step
        prepare = functools.partial(optimise, model, fused=fused) if options.intel else None
        optimizer = build_optimizer(parts.optimizer, model, prepare)
        return Trainer(
            model,
            parts.loss,
            optimizer,
            data.train,
            data.val,
            parts.training,
            augment=augment,
            group=group,
        )


def _go_on(trainer: Trainer, run: Run, data: Data) -> None:
    from isoloss.trainers.loop import resume

    expected = run.config().get("facts", {}).get("data_digest")
    if expected is not None and data.info.digest != expected:
        raise CommandError(
            f"run {run.name} was begun on data with digest {expected[:12]}, got "
            f"{data.info.digest[:12]}\npoint --data-dir at the data of the run"
        )
    if (run.checkpoints / "state.pt").is_file():  # else it was stopped before it began
        resume(trainer, run.checkpoints)


def _record(
    run: Run,
    model: torch.nn.Module,
    data: Data,
    config: dict[str, Any],
    figures: bool,
) -> None:
    """Write what a run holds before training, beside its configuration."""
    copy_plugins(run, config)
    write_summary(run, model, data)
    if figures:
        from isoloss.commands.sample_drawing import draw_samples

        draw_samples(run, data)


def _finish(
    trainer: Trainer,
    run: Run,
    loss: PerSampleLoss,
    data: Data,
    log: TrainingLog,
    *,
    figures: bool,
    seconds: float,
    splits: Sequence[str],
) -> None:
    """Evaluate the final weights, say so in the manifest, and draw."""
    from isoloss.commands.evaluate import summary_line, write_evaluation

    config = run.config()
    facts = {
        "checkpoint_sha256": file_sha256(run.checkpoint()),
        "loss": describe_plugin(config["loss"], config["loss_arg"]),
    }
    evaluation = write_evaluation(
        run, trainer.model, loss, data, log, facts=facts, figures=figures, splits=splits
    )
    run.write_manifest(
        "finished",
        seconds=seconds,
        epochs=trainer.epoch,
        best_epoch=trainer.best_epoch,
        stopped_early=trainer.stopped_early,
    )
    if figures:
        from isoloss.commands.drawing import draw_training

        draw_training(run)  # its title says how the training ended
    last = evaluation["splits"]
    name = next((name for name in ("test", "val", "train") if name in last), None)
    log.say(f"{name} {summary_line(last[name])}; {run.path}" if name else f"trained; {run.path}")


def _train_to_the_end(trainer: Trainer, run: Run, options: TrainOptions, log: TrainingLog) -> None:
    from isoloss.trainers import loop
    from isoloss.trainers.trainer import TrainingDiverged

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
            loop.train(
                trainer,
                run.checkpoints,
                checkpoint_every=options.checkpoint_every,
                progress=progress,
                on_epoch=on_epoch,
            )
    except TrainingDiverged as error:
        if main:
            run.write_manifest("diverged")
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
        raise CommandError(text) from None
    if trainer.stopped_early:
        log.say(
            f"stopped after epoch {trainer.epoch}: no lower validation loss since epoch "
            f"{trainer.best_epoch}"
        )


def _estimate(trainer: Trainer, console: Console) -> None:
    """Time a few steps and scale up."""
    from isoloss.trainers.settings import TrainingError

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
    console.say(
        f"about {step * steps:.0f} s for {steps} steps of {1000 * step:.1f} ms; "
        f"peak memory {peak_memory() / 2**20:.0f} MiB"
    )
    console.result({"seconds": step * steps, "steps": steps, "peak_memory_bytes": peak_memory()})
