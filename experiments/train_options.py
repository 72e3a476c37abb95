"""The settings of a training: as options, in a configuration file, and in the run to resume."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.errors import UsageError
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import (
    LARGEST_COUNT,
    LARGEST_EPOCHS,
    LARGEST_SEED,
    OptionError,
    Options,
    declared,
    make,
    option,
)
from isoloss.plugins import absolute_spec
from isoloss.records.runs import Run, find_run, newest_run

DEFAULT_LOSS = "cross-entropy"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """All settings of a training, as stored in a run's `config.json` and read from files.

    None stands for a default that another setting decides (the data set's network, the
    optimizer's learning rate); a stored configuration has all of them resolved. A plug-in is kept
    by its absolute path: a later command may be given in another folder.
    """

    run: str | None = option(None, "Name of the run.", otherwise="DATASET-OPTIMIZER")
    label: str | None = option(None, "What figures call the run; any text.", otherwise="its name")
    model: str | None = option(
        None,
        "Network: a name of `list models`, file.py:factory or module:factory.",
        otherwise="the data set's",
        convert=absolute_spec,
    )
    model_arg: dict[str, Any] = option({}, "Argument of the network.")
    dataset: str = option(
        "digits",
        "Data: a name of `list data`, file.py:factory or module:factory.",
        convert=absolute_spec,
    )
    dataset_arg: dict[str, Any] = option({}, "Argument of the data set.")
    fraction: float = option(
        1.0, "Class-balanced share of the samples.", low=0, high=1, aliases=("percentage",)
    )
    val_fraction: float = option(0.1, "Share of train set aside for validation.", low=0, high=1)
    split_seed: int = option(0, "Seed of splits and fractions alone.", low=0, high=LARGEST_SEED)
    augment: str | None = option(
        None, "Augmentation of training images, such as affine.", none="none", otherwise="none"
    )
    optimizer: str | None = option(
        None, "A name of `list optimizers`.", otherwise="sgd; adam for ecg-attention and gcn"
    )
    base: str | None = option(
        None,
        "Base of sam and its kin: sgd, adam, adamw or rmsprop.",
        otherwise="the network's own",
        none="none",
    )
    rho: float | None = option(
        None, "Of sam, asam, asam-elementwise, grad-shift.", otherwise="0.05, 0.5, 2, 0.05"
    )
    m: int | None = option(
        None,
        "Samples that share one perturbation in sam and kin.",
        low=1,
        high=LARGEST_COUNT,
        otherwise="the batch",
    )
    lr: float | None = option(
        None,
        "Learning rate.",
        otherwise="sgd 0.05, all others 0.001",
        aliases=("learning_rate",),
    )
    momentum: float | None = option(None, "Momentum.", otherwise="sgd 0.9, rmsprop 0")
    weight_decay: float | None = option(None, "Weight decay.", otherwise="0, adamw 0.01")
    nesterov: bool | None = option(None, "Nesterov momentum.", otherwise="no", off="no-nesterov")
    schedule: str = option("constant", "constant, cosine, halve, step or plateau.")
    schedule_arg: dict[str, Any] = option({}, "Argument of the schedule: every=5.")
    warmup: int | str = option(
        "0", "Linear warm-up: 3 (epochs) or 500steps.", metavar="EPOCHS|Nsteps", convert=str
    )
    epochs: int = option(5, "Passes over the training split.", low=0, high=LARGEST_EPOCHS)
    patience: int | None = option(
        None,
        "Stop after so many epochs without a lower validation loss.",
        low=1,
        high=LARGEST_EPOCHS,
        otherwise="never",
    )
    checkpoint_every: int | None = option(
        None,
        "Keep the initial weights and those of every N-th epoch.",
        low=1,
        high=LARGEST_EPOCHS,
    )
    batch_size: int | None = option(
        128,
        "Samples of a step, or full.",
        low=1,
        high=LARGEST_COUNT,
        none="full",
    )
    clip: float | None = option(None, "Largest norm of the gradient.", otherwise="no limit")
    amp: str | None = option(
        None, "bf16: train under autocast.", none="float32", otherwise="float32"
    )
    intel: bool = option(False, "Use Intel's extension for PyTorch.", off="no-intel")
    loss: str | None = option(
        None,
        "Loss: a name of `list losses`, file.py:function or module:function.",
        otherwise=f"{DEFAULT_LOSS}; none for targets that are no classes",
        aliases=("loss_name",),
        convert=absolute_spec,
    )
    closure: str | None = option(
        None,
        "In place of a loss: file.py:function, or module:function, of (model, batch), one value "
        "a sample.",
        convert=absolute_spec,
        otherwise="the loss",
    )
    loss_arg: dict[str, Any] = option({}, "Argument of the loss or closure.")
    seed: int = option(0, "Seed of weights, order and dropout.", low=0, high=LARGEST_SEED)


# What runs of version 0.1 did not store: it could have no other value than its default.
ADDED = ("closure",)
# What may differ when a run goes on.
FREE = ("run", "epochs")
OPTIMIZER_OPTIONS = ("base", "rho", "m", "lr", "momentum", "weight_decay", "nesterov")


def refuse_both(loss: str | None, closure: str | None) -> None:
    """Raise `OptionError` where a loss and a closure are named."""
    if loss is not None and closure is not None:
        raise OptionError("closure", f"takes the place of a loss, got `loss` {loss} as well")


def read_config(path: Path) -> dict[str, Any]:
    """Return the options in a TOML or JSON file by name, checked, a run's facts left out.

    Raises:
        OptionError: For a file that cannot be read, a name that is no option, or a wrong value.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise OptionError("config", f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise OptionError("config", f"{path} is neither TOML nor JSON: {error}") from error
    if not isinstance(content, dict):
        raise OptionError("config", f"expected options by name in {path}, got a list")
    named = {key.replace("-", "_"): value for key, value in content.items() if key != "facts"}
    try:
        make(TrainOptions, named)
    except OptionError as error:
        raise OptionError("config", str(error)) from error
    return named


def stored_options(run: Run) -> TrainOptions:
    """Return the settings a run was made with.

    Raises:
        ExperimentError: If its configuration is damaged.
    """
    config, damaged = run.config(), f"{run.path / 'config.json'} is damaged"
    remedy = f"put a copy of it back, or train again: `run` {run.name} with `force`"
    try:
        options = make(TrainOptions, config)
    except OptionError as error:
        raise ExperimentError(f"{damaged}: {error.option}: {error.problem}\n{remedy}") from error
    missing = [o.name for o in declared(TrainOptions) if o.name not in {*config, *ADDED}]
    if missing:  # a default in place of what the run was trained with would go unseen
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ExperimentError(f"{damaged}: it lacks {', '.join(missing[:3])}{more}\n{remedy}")
    if options.model is None:
        raise ExperimentError(f"{damaged}: it names no model\n{remedy}")
    return options


def options_to_resume(
    results: Path, name: str | None, given: dict[str, Any], data_dir: Path | None
) -> tuple[dict[str, Any], Path | None]:
    """Return the options of the run to resume, and the folder of its data.

    Args:
        results: Folder of all results.
        name: Name of the run; the newest where None.
        given: The options that were given, by name.
        data_dir: Folder of the data, the run's own where None.

    Raises:
        UsageError: If options differ from the run's, the number of epochs apart.
        ExperimentError: If there is no run.
    """
    run = find_run(results, name) if name is not None else newest_run(results)
    if run is None:
        raise ExperimentError(f"expected a run to resume in {results}, got none")
    from isoloss.experiments.names import spelled  # imports torch

    config = run.config()
    stored, asked = stored_options(run), spelled(make(TrainOptions, given))
    differing = [
        f"`{key}` {getattr(stored, key)} (now {getattr(asked, key)})"
        for key in given
        if key not in FREE and getattr(stored, key) != getattr(asked, key)
    ]
    if differing:
        raise UsageError(
            f"`resume` goes on with the settings of run {run.name}: {', '.join(differing)}"
        )
    folder = run.facts().data_dir
    return config, data_dir or (None if folder is None else Path(folder))
