"""`train`: one network, from data to a run folder that describes itself."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.console import Console
from commands.errors import NAMING, CommandError, UsageError, usage
from commands.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RESULTS,
    DataDirOption,
    DatasetArgOption,
    DatasetOption,
    DeviceOption,
    DownloadOption,
    EstimateOption,
    FiguresOption,
    JsonOption,
    LossArgOption,
    LossOption,
    ModelArgOption,
    ModelOption,
    ResultsOption,
    key_values,
    peak_memory,
    resolve_device,
)
from commands.train_options import (
    OPTIMIZER_OPTIONS,
    TrainOptions,
    make_options,
    read_config,
    stored_options,
)

if TYPE_CHECKING:
    from trainers.loop import Trainer
    from trainers.runs import Run


def train(
    run: Annotated[
        str | None, typer.Option("--run", help="Name of the run; DATASET-OPTIMIZER where left out.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="What figures call the run; any text.")
    ] = None,
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    dataset: DatasetOption = None,
    dataset_arg: DatasetArgOption = None,
    fraction: Annotated[
        float | None,
        typer.Option("--fraction", min=0, max=1, help="Class-balanced share of the samples. [1]"),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            "--val-fraction", min=0, max=1, help="Share of train set aside for validation. [0.1]"
        ),
    ] = None,
    split_seed: Annotated[
        int | None,
        typer.Option("--split-seed", min=0, help="Seed of splits and fractions alone. [0]"),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="A name of `list optimizers`. [sgd]")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Base of sam and asam: sgd or adam. [sgd]")
    ] = None,
    rho: Annotated[
        float | None, typer.Option("--rho", help="Radius of sam and asam. [0.05, 0.5]")
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Learning rate. [sgd 0.05, adam 0.001]")
    ] = None,
    momentum: Annotated[
        float | None, typer.Option("--momentum", help="Momentum of sgd. [0.9]")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="Coefficient of the L2 penalty. [0]")
    ] = None,
    nesterov: Annotated[
        bool | None, typer.Option("--nesterov/--no-nesterov", help="Nesterov momentum. [no]")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="constant or cosine. [constant]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=0, help="Passes over the training split. [5]")
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option("--batch-size", "--batch_size", help="Samples of a step, or full. [128]"),
    ] = None,
    loss: LossOption = None,
    loss_arg: LossArgOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of weights, order and dropout. [0]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="TOML or JSON file of these options (a run's config.json, too); options on the "
            "command line win.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, as if never stopped.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a run of the same name and all its results.")
    ] = False,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    download: DownloadOption = False,
    figures: FiguresOption = True,
    as_json: JsonOption = False,
    estimate: EstimateOption = False,
) -> None:
    """Train a network and leave a run: weights, configuration, history, scores and curves.

    For example: train --dataset mnist --data-dir data --model fashion-cnn --optimizer sam --run a
    """
    console = Console(as_json)
    given = {
        "run": run,
        "label": label,
        "model": model,
        "model_arg": key_values(model_arg, "--model-arg") or None,
        "dataset": dataset,
        "dataset_arg": key_values(dataset_arg, "--dataset-arg") or None,
        "fraction": fraction,
        "val_fraction": val_fraction,
        "split_seed": split_seed,
        "optimizer": optimizer,
        "base": base,
        "rho": rho,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "schedule": schedule,
        "epochs": epochs,
        "batch_size": batch_size,
        "loss": loss,
        "loss_arg": key_values(loss_arg, "--loss-arg") or None,
        "seed": seed,
    }
    given = {key: value for key, value in given.items() if value is not None}
    stored: dict[str, Any] = {}
    if resume:
        stored, data_dir = stored_options(results, run, given, data_dir)
    elif config is not None:
        stored = read_config(config)
    options = make_options({**stored, **given})
    finished = train_run(
        options,
        console,
        results=results,
        data_dir=data_dir,
        device=device,
        download=download,
        figures=figures,
        resume=resume,
        force=force,
        estimate=estimate,
    )
    if not estimate:
        console.result(
            {"run": finished.name, "path": finished.path, "evaluation": finished.evaluation()}
        )


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
) -> Run:
    """Train as the options say and return the run; see `train` for what it leaves."""
    import torch

    from commands.evaluate import evaluate_model
    from commands.provenance import command_line, git_commit, versions
    from datasets import default_model, load_data
    from models import create_model, model_facts
    from trainers import loop
    from trainers.losses import build_loss
    from trainers.optimizers import build_optimizer, resolve_optimizer
    from trainers.runs import Run, check_name, create_run, find_run

    place = resolve_device(device)
    with usage():
        name = check_name_or_usage(options.run or f"{options.dataset}-{options.optimizer}")
        model_spec = options.model or default_model(options.dataset)
        settings = resolve_optimizer(
            options.optimizer, **{key: getattr(options, key) for key in OPTIMIZER_OPTIONS}
        )
        training = loop.TrainingSettings(
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            schedule=options.schedule,
        )
        if model_spec is None:
            raise UsageError("--model: a data set of your own has no default network, name one")
        loss = build_loss(options.loss, options.loss_arg, place)
    folder = data_dir or DEFAULT_DATA_DIR
    taken = results / "runs" / name
    if (taken / "config.json").is_file() and not (resume or force or estimate):
        create_run(results, name, {})  # raises, and says what to do
    with usage(errors=NAMING):
        data = load_data(
            options.dataset,
            options.dataset_arg,
            folder,
            fraction=options.fraction,
            val_fraction=options.val_fraction,
            split_seed=options.split_seed,
            download=download,
        )
    with usage():
        torch.manual_seed(options.seed)
        model = create_model(model_spec, options.model_arg, data.info.model_context()).to(place)
        trainer = loop.Trainer(
            model, loss, build_optimizer(settings, model), data.train, data.val, training
        )
    resolved = {**dataclasses.asdict(options), "run": name, "model": model_spec}
    resolved |= {key: settings.to_json().get(key) for key in OPTIMIZER_OPTIONS}
    resolved["facts"] = {
        "parameters": model_facts(model).parameters,
        "samples": data.provenance["samples"],
        "data_dir": data.provenance["data_dir"],
        "data_digest": data.info.digest,
        "data": data.info.to_json(),
        "device": place.type,
        "threads": torch.get_num_threads(),
        "command": command_line(),
        "versions": versions(),
        "git": git_commit(),
    }
    if estimate:
        _estimate(trainer, console)
        return Run(taken)
    if resume:
        run = find_run(results, check_name(name))
        loop.resume(trainer, run.checkpoints)
        console.say(f"run {name}: going on after epoch {trainer.epoch} of {options.epochs}")
    else:
        run = create_run(results, name, resolved, force=force)
        _copy_plugins(run, options, model_spec)
    console.say(
        f"run {name}: {model_spec}, {model_facts(model).parameters:,} parameters, "
        f"{len(data.train):,} training samples, {options.optimizer}, {place}"
    )
    began = time.monotonic()
    _train_to_the_end(trainer, run, options, console)
    evaluation = evaluate_model(model, loss, data)
    run.write_evaluation(evaluation)
    if figures:
        from commands.drawing import draw_run

        for path in draw_run(run):
            console.say(f"wrote {path}")
    run.write_manifest("finished", seconds=time.monotonic() - began)
    test = evaluation["splits"]["test"]
    console.say(_summary(run, test))
    return run


def check_name_or_usage(name: str) -> str:
    """Return a run's name; one that is none is wrong usage."""
    from trainers.runs import RunError, check_name

    try:
        return check_name(name)
    except RunError as error:
        raise UsageError(f"--run: {error}") from error


def _train_to_the_end(trainer: Trainer, run: Run, options: TrainOptions, console: Console) -> None:
    from trainers import loop

    def on_epoch(history: Any) -> None:
        run.write_history(history)
        last = history[-1]
        console.say(
            f"epoch {last.epoch}/{options.epochs}: train loss {last.train_loss:.4f}, "
            f"accuracy {100 * last.train_accuracy:.2f} %; validation loss {last.val_loss:.4f}, "
            f"accuracy {100 * last.val_accuracy:.2f} %; {last.seconds:.1f} s"
        )

    run.write_history(trainer.history)
    try:
        with console.progress(f"training {run.name}") as progress:
            loop.train(trainer, run.checkpoints, progress=progress, on_epoch=on_epoch)
    except loop.TrainingDiverged:
        run.write_manifest("diverged")
        raise
    except KeyboardInterrupt:
        run.write_manifest("interrupted")
        raise CommandError(
            f"interrupted after epoch {trainer.epoch} of {options.epochs}\n"
            f"go on with: python cli.py train --run {run.name} --resume"
        ) from None


def _estimate(trainer: Trainer, console: Console) -> None:
    """Time a few steps and scale up."""
    from trainers.loop import TrainingError

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


def _copy_plugins(run: Run, options: TrainOptions, model_spec: str) -> None:
    from registry import is_path

    for role, spec in (("model", model_spec), ("dataset", options.dataset), ("loss", options.loss)):
        if is_path(spec):
            run.copy_plugin(Path(spec.rpartition(":")[0]), role)


def _summary(run: Run, test: Any) -> str:
    if test.accuracy != test.accuracy:  # a regression
        return f"test loss {test.loss:.4f} ± {test.loss_standard_error:.4f}; {run.path}"
    return (
        f"test accuracy {100 * test.accuracy:.2f} ± {100 * test.accuracy_standard_error:.2f} %, "
        f"loss {test.loss:.4f} ± {test.loss_standard_error:.4f}; {run.path}"
    )
