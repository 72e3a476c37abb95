"""The training loop: epochs over a split, reproducible from the seed and resumable by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.batches import Batch, as_batch
from landscape.losses import PerSampleLoss
from trainers.checkpoints import load_into, load_state, save_state, save_weights
from trainers.evaluation import EVALUATION_BATCH, Split, correct, mean_scores, placement
from trainers.sam import SAM
from trainers.schedules import Horizon, create_schedule

Augmentation = Callable[[Any, torch.Generator], Any]
# What a seed is drawn for; each gets a sequence of its own.
ORDER, AUGMENTATION, NETWORK = range(3)


class TrainingError(ValueError):
    """Settings, data or a stored state that a training cannot start from."""


class TrainingDiverged(RuntimeError):  # noqa: N818 - a state that is reached, not a mistake
    """The loss or the weights are no longer finite."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train, apart from what.

    Attributes:
        epochs: Passes over the training split; 0 leaves the network as it is.
        batch_size: Samples of one step; None takes all of them. The last batch may be smaller.
        seed: Fixes the order, the augmentation and the dropout of every epoch; 0 or more.
        schedule: A name in `SCHEDULES`.
        channels_last: Whether images are laid out channels last (1.8x faster on CPUs).
        evaluation_batch: Samples of one forward pass on the validation split.
    """

    epochs: int
    batch_size: int | None = 128
    seed: int = 0
    schedule: str = "constant"
    channels_last: bool = True
    evaluation_batch: int = EVALUATION_BATCH

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch_size", 1), ("seed", 0), ("evaluation_batch", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise TrainingError(f"expected {name} of {least} or more, got {value}")


@dataclass(frozen=True)
class EpochRecord:
    """One line of the history.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean over the epoch's samples as they were trained on: in training mode,
            augmented, each batch at the weights of its step.
        train_accuracy: The same mean of hits, a fraction; NaN for a regression.
        val_loss: Mean over the validation split after the epoch; NaN without such a split.
        val_accuracy: Fraction; NaN without a validation split and for a regression.
        lr: Learning rate of the epoch's first step.
        seconds: Wall time, validation included.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float


class Trainer:
    """A network in training: holds what changes, and takes it one epoch further.

    The order of the samples, the augmentation and torch's global generators (dropout) are seeded
    from (seed, epoch) as each epoch starts, so an epoch depends on the state before it alone.

    Args:
        model: The network, on the device to train on. It is trained in place.
        loss: One value a sample; its mean over the batch is minimised.
        optimizer: From `build_optimizer`, or any that takes `step(closure)`.
        train: The training split.
        validation: The validation split, which chooses the best weights, or None.
        settings: How to train.
        augment: `augment(inputs, generator) -> inputs` for each training batch.

    Raises:
        TrainingError: If the training split is empty.
        UnknownNameError: For an unknown schedule.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: PerSampleLoss,
        optimizer: Optimizer,
        train: Split,
        validation: Split | None,
        settings: TrainingSettings,
        *,
        augment: Augmentation | None = None,
    ) -> None:
        if not len(train):
            raise TrainingError("expected training samples, got an empty split")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.train, self.settings, self.augment = train, settings, augment
        self.validation = validation if validation is not None and len(validation) else None
        self.batch_size = min(settings.batch_size or len(train), len(train))
        self.steps_per_epoch = math.ceil(len(train) / self.batch_size)
        self._schedule = create_schedule(
            settings.schedule, Horizon(settings.epochs, self.steps_per_epoch)
        )
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.history: list[EpochRecord] = []

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """Epoch of the lowest validation loss (training loss without a split); 0 before any."""
        losses = [r.train_loss if self.validation is None else r.val_loss for r in self.history]
        finite = [loss for loss in losses if math.isfinite(loss)]
        return losses.index(min(finite)) + 1 if finite else 0

    def train_epoch(self, after_step: Callable[[int], None] | None = None) -> EpochRecord:
        """Train one epoch and validate.

        Args:
            after_step: Called with the number of steps taken since training began.

        Returns:
            The record, which is also appended to `history`.

        Raises:
            TrainingDiverged: If a loss, or a weight at the end, is not finite. The history is left
                without the epoch.
        """
        began = time.perf_counter()
        epoch, count = self.epoch, len(self.train)
        step = epoch * self.steps_per_epoch
        lr = self._set_lr(step)
        torch.manual_seed(epoch_seed(self.settings.seed, epoch, NETWORK))
        self.model.train()
        total = hits = 0.0
        for index, batch in enumerate(self._batches(epoch)):
            self._set_lr(step)
            where = f"epoch {epoch + 1}, step {index + 1} of {self.steps_per_epoch}"
            batch_total, batch_hits = self._step(batch, where)
            total, hits, step = total + batch_total, hits + batch_hits, step + 1
            if after_step is not None:
                after_step(step)
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise self._diverged(f"weights not finite after epoch {epoch + 1}")
        validation = self._validate()
        seconds = time.perf_counter() - began
        record = EpochRecord(epoch + 1, total / count, hits / count, *validation, lr, seconds)
        self.history.append(record)
        return record

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, augmented and where the network is."""
        seed = self.settings.seed
        device, dtype = placement(self.model)
        generator = torch.Generator().manual_seed(epoch_seed(seed, epoch, AUGMENTATION))
        order = epoch_order(seed, epoch, len(self.train))
        for item in self.train.batches(self.batch_size, order=order):
            batch = as_batch(item)
            if self.augment is not None:
                inputs = self.augment(batch.inputs, generator)
                batch = Batch(inputs, batch.targets, batch.count)
            yield batch.to(device, dtype, self.settings.channels_last)

    def _validate(self) -> tuple[float, float]:
        if self.validation is None:
            return math.nan, math.nan
        return mean_scores(
            self.model,
            self.loss,
            self.validation,
            batch_size=self.settings.evaluation_batch,
            channels_last=self.settings.channels_last,
        )

    def _step(self, batch: Batch, where: str) -> tuple[float, float]:
        """Take one step; return the sums of losses and of hits at the weights it starts from."""
        first: tuple[float, float] | None = None

        def closure() -> Tensor:
            nonlocal first
            self.optimizer.zero_grad()
            outputs = batch.call(self.model)
            losses = self.loss(outputs, batch.targets)
            total = losses.detach().cpu().double().sum().item()
            if not math.isfinite(total):
                # Raised before the step, which leaves the weights of the last one.
                raise self._diverged(f"loss {total / batch.count} at {where}")
            if first is None:  # SAM calls again, at perturbed weights
                first = total, correct(outputs.detach(), batch.targets)
            loss = losses.mean()
            loss.backward()
            return loss

        self.optimizer.step(closure)  # type: ignore[arg-type]
        assert first is not None
        return first

    def _set_lr(self, step: int) -> float:
        factor = self._schedule(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def _diverged(self, what: str) -> TrainingDiverged:
        lr = self.optimizer.param_groups[0]["lr"]
        remedy = "--lr or --rho" if isinstance(self.optimizer, SAM) else "--lr"
        return TrainingDiverged(
            f"training diverged: {what} (lr {lr:g})\n"
            f"train with a lower {remedy}; the checkpoints hold the last finished epoch"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimizer state, history and settings: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(record) for record in self.history],
            "settings": asdict(self.settings),
        }

    def load_state_dict(self, state: dict[str, Any], source: str = "the stored state") -> None:
        """Continue from a state.

        Args:
            state: From `state_dict`.
            source: What to call it in an error.

        Raises:
            TrainingError: If the state is of a training with other settings. The number of epochs
                may differ under a constant schedule.
            CheckpointError: If the weights are of another network.
        """
        own, stored = asdict(self.settings), state["settings"]
        if self.settings.schedule == "constant":
            stored = {**stored, "epochs": own["epochs"]}
        differing = [name for name in own if own[name] != stored.get(name)]
        if differing:
            raise TrainingError(
                f"{source} is of a training with other settings: "
                + ", ".join(f"{n} {stored.get(n)} (now {own[n]})" for n in differing)
                + "\ncontinue with the same settings, or start anew with --force"
            )
        load_into(self.model, state["model"], source)
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [EpochRecord(**record) for record in state["history"]]


def train(
    trainer: Trainer,
    folder: Path | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Sequence[EpochRecord]], None] | None = None,
) -> Sequence[EpochRecord]:
    """Train to the end, leaving checkpoints after every epoch.

    Args:
        trainer: At its start, or where `resume` put it.
        folder: Where `last.pt`, `best.pt` and `state.pt` go; nothing is written where None.
        progress: Called as progress(steps done, steps in all).
        on_epoch: Called with the whole history after each epoch, checkpoints being written.

    Returns:
        The history.

    Raises:
        TrainingDiverged: If a loss or weight is not finite; the checkpoints stay those of the
            last finished epoch (of the initial weights before the first).
    """
    epochs = trainer.settings.epochs
    steps = epochs * trainer.steps_per_epoch

    def after_step(done: int) -> None:
        if progress is not None:
            progress(done, steps)

    if folder is not None and trainer.epoch == 0:
        _save(trainer, folder)
    while trainer.epoch < epochs:
        trainer.train_epoch(after_step)
        if folder is not None:
            _save(trainer, folder)
        if on_epoch is not None:
            on_epoch(trainer.history)
    return trainer.history


def resume(trainer: Trainer, folder: Path) -> None:
    """Put a trainer where the training that wrote `state.pt` stood.

    Args:
        trainer: Made as for that training.
        folder: The folder given to `train`.

    Raises:
        CheckpointError: If there is no such file, or it is of another network.
        TrainingError: If it is of a training with other settings.
    """
    path = folder / "state.pt"
    trainer.load_state_dict(load_state(path), str(path))


def epoch_seed(seed: int, epoch: int, purpose: int) -> int:
    """Return a 64-bit seed that belongs to (seed, epoch, purpose) alone."""
    return int(np.random.SeedSequence((seed, epoch, purpose)).generate_state(1, np.uint64)[0])


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the permutation (count,) in which an epoch, counted from 0, takes the samples."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch, ORDER))
    return torch.randperm(count, generator=generator)


def _save(trainer: Trainer, folder: Path) -> None:
    # The state last: until it is there, resuming repeats the epoch and writes the same again.
    weights = trainer.model.state_dict()
    if trainer.best_epoch == trainer.epoch:
        save_weights(folder / "best.pt", weights)
    save_weights(folder / "last.pt", weights)
    save_state(folder / "state.pt", trainer.state_dict())
