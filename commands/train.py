"""`train`: one network, from data to a run folder that describes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from isoloss.commands.console import Console
from isoloss.commands.options import (
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
)
from isoloss.commands.train_options import (
    TrainOptions,
    make_options,
    read_config,
    stored_options,
)
from isoloss.commands.training import train_run

__all__ = ["TrainOptions", "train", "train_run"]


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
    augment: Annotated[
        str | None,
        typer.Option("--augment", help="Augmentation of training images, such as affine. [none]"),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            "--optimizer",
            help="A name of `list optimizers`. [sgd; adam for ecg-attention and gcn]",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Base of sam and its kin: sgd, adam, adamw or rmsprop. [the network's own]",
        ),
    ] = None,
    rho: Annotated[
        float | None,
        typer.Option(
            "--rho", help="Of sam, asam, asam-elementwise, grad-shift. [0.05, 0.5, 2, 0.05]"
        ),
    ] = None,
    m: Annotated[
        int | None,
        typer.Option(
            "--m", min=1, help="Samples that share one perturbation in sam and kin. [the batch]"
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Learning rate. [sgd 0.05, all others 0.001]")
    ] = None,
    momentum: Annotated[
        float | None, typer.Option("--momentum", help="Momentum. [sgd 0.9, rmsprop 0]")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="Weight decay. [0, adamw 0.01]")
    ] = None,
    nesterov: Annotated[
        bool | None, typer.Option("--nesterov/--no-nesterov", help="Nesterov momentum. [no]")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", help="constant, cosine, halve, step or plateau. [constant]"),
    ] = None,
    schedule_arg: Annotated[
        list[str] | None,
        typer.Option("--schedule-arg", metavar="K=V", help="Argument of the schedule: every=5."),
    ] = None,
    warmup: Annotated[
        str | None,
        typer.Option("--warmup", help="Linear warm-up: 3 (epochs) or 500steps. [none]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=0, help="Passes over the training split. [5]")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            min=1,
            help="Stop after so many epochs without a lower validation loss. [never]",
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            "--checkpoint-every",
            min=1,
            help="Keep the initial weights and those of every N-th epoch.",
        ),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option("--batch-size", "--batch_size", help="Samples of a step, or full. [128]"),
    ] = None,
    clip: Annotated[
        float | None, typer.Option("--clip", help="Largest norm of the gradient. [no limit]")
    ] = None,
    amp: Annotated[
        str | None, typer.Option("--amp", help="bf16: train under autocast. [float32]")
    ] = None,
    intel: Annotated[
        bool | None,
        typer.Option("--intel/--no-intel", help="Use Intel's extension for PyTorch. [no]"),
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

    On several processes (mind the "--"): torchrun --nproc-per-node 2 -- cli.py train --run a
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
        "augment": augment,
        "optimizer": optimizer,
        "base": base,
        "rho": rho,
        "m": m,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "schedule": schedule,
        "schedule_arg": key_values(schedule_arg, "--schedule-arg") or None,
        "warmup": warmup,
        "epochs": epochs,
        "patience": patience,
        "checkpoint_every": checkpoint_every,
        "batch_size": batch_size,
        "clip": clip,
        "amp": amp,
        "intel": intel,
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
    from isoloss.trainers.distributed import is_main

    if not estimate and is_main():
        console.result(
            {"run": finished.name, "path": finished.path, "evaluation": finished.evaluation()}
        )
