"""A trained network with its data and loss: what every measurement starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from isoloss.datasets import Data, DataInfo, Split, load_data
from isoloss.experiments.devices import DTYPES, resolve_device
from isoloss.experiments.options import OptionError
from isoloss.experiments.settings import (
    LARGEST_SAMPLE,
    SAMPLE_SEED,
    Numerics,
    SampleSettings,
    Selection,
)
from isoloss.experiments.train_options import TrainOptions
from isoloss.landscape import Plan, Problem, Sample
from isoloss.parallel.ranks import Group, local_device
from isoloss.records.provenance import command_line, git_commit, versions
from isoloss.records.runs import Run


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with its data and loss.

    Attributes:
        model: The network with its weights; lent, never changed.
        loss: A torch loss module, `loss(outputs, targets)` with one value a sample, or a `Closure`.
        splits: By name: train, and val and test where there are such.
        info: What is known of the data.
        label: What figures call it.
        run: The run whose folder results go to; None where they are kept in memory.
        about: What identifies weights, network, data and loss, JSON-able.
        optimizer: Name of the optimizer that trained it; empty where not known.
        notes: What else to store with results, JSON-able.
        selection: What loads it again in another process; None of one that is in memory.
    """

    model: nn.Module = field(repr=False)
    loss: Any = field(repr=False)
    splits: Mapping[str, Split] = field(repr=False)
    info: DataInfo = field(repr=False)
    label: str
    run: Run | None = None
    optimizer: str = ""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    selection: Selection | None = field(default=None, repr=False)

    def split(self, name: str) -> Split:
        """Return a split by name.

        Raises:
            OptionError: If the data have none of that name.
        """
        if name not in self.splits:
            raise OptionError("split", f"expected one of {', '.join(self.splits)}, got {name!r}")
        return self.splits[name]

    def problem(
        self,
        split: str = "train",
        settings: SampleSettings | None = None,
        numerics: Numerics | None = None,
        plan: Plan | None = None,
        group: Group | None = None,
    ) -> Problem:
        """Return the loss on a split as a function of the weights.

        Args:
            split: Name of the split.
            settings: How many samples, which parameters, which batch-norm policy.
            numerics: Where to compute and how exactly.
            plan: How to compute; chosen where None.
            group: Several processes that share the samples.
        """
        settings, numerics = settings or SampleSettings(), numerics or Numerics()
        whole = self.split(split)
        part, sample = draw(whole, settings)
        return Problem(
            self.model,
            self.loss,
            list(part.batches(part.handover_batch)),
            bn=settings.bn,
            bn_batch=settings.bn_batch,
            device=local_device(resolve_device(numerics.device)),
            dtype=DTYPES[numerics.dtype],
            plan=plan,
            group=group,
            parameters=settings.parameters or None,
            batch_size=settings.batch_size,
            sample=sample,
            about={**self.about, "split": split, "population": len(whole)},
        )

    def notes_of_result(self) -> dict[str, Any]:
        """Return what is stored with a result beside its identity; it may differ on resumption."""
        return {
            "label": self.label,
            "optimizer": self.optimizer,
            **self.notes,
            "command": command_line(),
            "versions": versions(),
            "git": git_commit(),
        }

    def file(self, name: str) -> Path | None:
        """Return the path of a result in the run's folder; None without a run."""
        return None if self.run is None else self.run.path / name


def parameter_counts(model: nn.Module, moved: int | None = None) -> str:
    """Return how many parameters a network has, in words: "323 parameters, 99 trainable".

    Args:
        model: The network.
        moved: How many are moved, said where these are not the trainable ones.
    """
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trainable = sum(n for n, _ in sizes), sum(n for n, free in sizes if free)
    parts = [f"{total:,} parameters"]
    if trainable < total:
        parts.append(f"{trainable:,} trainable")
    if moved not in (None, trainable):
        parts.append(f"{moved:,} moved")
    return ", ".join(parts)


def check_loss(loss: str | None, closure: str | None, train: Split, info: DataInfo) -> None:
    """Refuse data that the default loss means nothing for, or that no loss can be asked of.

    Args:
        loss: The loss that was asked for; None for the default.
        closure: The closure, or None.
        train: The training split.
        info: What is known of the data.

    Raises:
        OptionError: If the loss has to be named, or must be a closure.
    """
    if closure is not None:
        return
    if not train.targets.numel():
        raise OptionError(
            "closure",
            "expected file.py:function of (model, batch), as the data set has no targets, got none"
            "\nor give it targets: (inputs, targets), or a dict with `labels`",
        )
    if loss is None and info.task == "regression":
        raise OptionError(
            "loss",
            f"expected one for targets that are numbers ({train.targets.dtype}), got none\n"
            "give mse, or file.py:function; cross-entropy where they are class probabilities",
        )


def data_of(options: TrainOptions, folder: Path, download: bool = False) -> Data:
    """Load the data of a training.

    Args:
        options: Its settings.
        folder: Folder of the data.
        download: Whether missing data may be fetched.
    """
    return load_data(
        options.dataset,
        options.dataset_arg,
        folder,
        fraction=options.fraction,
        val_fraction=options.val_fraction,
        split_seed=options.split_seed,
        download=download,
    )


def splits_of(data: Data) -> dict[str, Split]:
    """Return the splits of loaded data that are there, by name."""
    named = {"train": data.train, "val": data.val, "test": data.test}
    return {name: split for name, split in named.items() if split is not None}


def draw(whole: Split, settings: SampleSettings) -> tuple[Split, Sample]:
    """Draw the samples that stand for a split, and say how.

    Each class keeps its share, so that the sample's loss estimates the split's; with
    `sample_balance` as many of each class are drawn as can be, whose loss is another one.
    """
    count = sample_count(settings.samples, len(whole), settings.sample_fraction)
    choose = whole.balanced if settings.sample_balance else whole.stratified
    part = choose(count, SAMPLE_SEED)
    drawn = "balanced" if settings.sample_balance else "proportional"
    return part, Sample.of(part.targets, whole.targets, drawn=drawn, seed=SAMPLE_SEED)


def sample_count(asked: int | str | None, available: int, fraction: float | None = None) -> int:
    """Return how many of a split's samples to use: "all", a number, or None for the default.

    A fraction takes the place of all these.
    """
    if fraction is not None:
        return max(1, round(fraction * available))
    if asked is None:
        return min(available, LARGEST_SAMPLE)
    return available if isinstance(asked, str) else min(asked, available)
