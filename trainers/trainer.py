"""A network in training: epochs over a split, each reproducible from the seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from isoloss.landscape.batches import Batch, as_batch
from isoloss.landscape.losses import PerSampleLoss
from isoloss.trainers.checkpoints import load_into
from isoloss.trainers.distributed import Group
from isoloss.trainers.evaluation import Split, correct, mean_scores, placement
from isoloss.trainers.sam import SAM
from isoloss.trainers.schedules import SCHEDULES, Horizon, create_schedule
from isoloss.trainers.seeds import AUGMENTATION, NETWORK, epoch_order, epoch_seed
from isoloss.trainers.settings import EpochRecord, TrainingError, TrainingSettings, best_epoch

Augmentation = Callable[[Any, torch.Generator], Any]


class TrainingDiverged(RuntimeError):  # noqa: N818 - a state that is reached, not a mistake
    """The loss or the weights are no longer finite."""


class Trainer:
    """A network in training: holds what changes, and takes it one epoch further.

    The order of the samples, the augmentation and torch's global generators (dropout) are seeded
    from (seed, epoch) as each epoch starts, so an epoch depends on the state before it alone.

    Args:
        model: The network, on the device to train on. It is trained in place.
        loss: One value a sample; its mean over the batch is minimised.
        optimizer: From `build_optimizer`, or any that steps without a closure.
        train: The training split.
        validation: The validation split, which chooses the best weights, or None.
        settings: How to train.
        augment: `augment(inputs, generator) -> inputs` for each training batch.
        group: The processes that train together.

    Raises:
        TrainingError: If the training split is empty.
        UnknownNameError: For an unknown schedule.
        ScheduleError: For arguments a schedule cannot take.
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
        group: Group | None = None,
    ) -> None:
        if not len(train):
            raise TrainingError("expected training samples, got an empty split")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.group = Group() if group is None else group
        self.train, self.settings, self.augment = train, settings, augment
        self.validation = validation if validation is not None and len(validation) else None
        self.batch_size = min(settings.batch_size or len(train), len(train))
        self.steps_per_epoch = math.ceil(len(train) / self.batch_size)
        self._schedule = create_schedule(
            settings.schedule,
            Horizon(settings.epochs, self.steps_per_epoch),
            settings.schedule_arguments,
            settings.warmup_steps(self.steps_per_epoch),
        )
        self._parameters = [p for entry in optimizer.param_groups for p in entry["params"]]
        for entry in optimizer.param_groups:
            entry.setdefault("initial_lr", entry["lr"])
        self.history: list[EpochRecord] = []

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)

    @property
    def monitored(self) -> list[float]:
        """The losses that choose, one an epoch: on validation, of training without a split."""
        return [r.train_loss if self.validation is None else r.val_loss for r in self.history]

    @property
    def best_epoch(self) -> int:
        """Epoch of the lowest monitored loss; 0 before any."""
        return best_epoch(self.monitored)

    @property
    def stopped_early(self) -> bool:
        """Whether the monitored loss has not improved for `patience` epochs."""
        patience = self.settings.patience
        return patience is not None and self.epoch - self.best_epoch >= patience

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.epoch >= self.settings.epochs or self.stopped_early

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
        losses = self.monitored
        lr = self._set_lr(step, losses)
        torch.manual_seed(self._seed(epoch, NETWORK))
        self.model.train()
        total = hits = 0.0
        for index, (subsets, samples) in enumerate(self._batches(epoch)):
            self._set_lr(step, losses)
            where = f"epoch {epoch + 1}, step {index + 1} of {self.steps_per_epoch}"
            batch_total, batch_hits = self._step(subsets, samples, where)
            total, hits, step = total + batch_total, hits + batch_hits, step + 1
            if after_step is not None:
                after_step(step)
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise self._diverged(f"weights not finite after epoch {epoch + 1}")
        self.group.average_buffers(self.model)
        validation = self._validate()
        seconds = time.perf_counter() - began
        record = EpochRecord(epoch + 1, total / count, hits / count, *validation, lr, seconds)
        self.history.append(record)
        return record

    def _batches(self, epoch: int) -> Iterator[tuple[list[Batch], int]]:
        """Yield for each step this rank's subsets, and the samples of the step over all ranks.

        There is one subset, or, with m-sharpness, as many of m samples as fall to this rank.
        """
        device, dtype = placement(self.model)
        generator = torch.Generator().manual_seed(self._seed(epoch, AUGMENTATION))
        order = epoch_order(self.settings.seed, epoch, len(self.train))
        for indices in order.split(self.batch_size):
            subsets = []
            for part in self._subsets(indices):
                batch = as_batch(next(iter(self.train.batches(len(part), order=part))))
                if self.augment is not None:
                    inputs = self.augment(batch.inputs, generator)
                    batch = Batch(inputs, batch.targets, batch.count)
                subsets.append(batch.to(device, dtype, self.settings.channels_last))
            yield subsets, len(indices)

    def _subsets(self, indices: Tensor) -> list[Tensor]:
        m = self.optimizer.m if isinstance(self.optimizer, SAM) else None
        if m is None:
            parts = [self.group.shard(indices)]
        else:
            cut = indices.split(m)
            parts = [cut[i] for i in self.group.shard(torch.arange(len(cut))).tolist()]
        return [part for part in parts if len(part)]

    def _validate(self) -> tuple[float, float]:
        if self.validation is None:
            return math.nan, math.nan
        if self.group.size == 1:
            return self._scores(self.validation)
        part = _Part(self.validation, self.group.shard(torch.arange(len(self.validation))))
        loss, accuracy = self._scores(part) if len(part) else (0.0, 0.0)
        total, hits = self.group.sum([loss * len(part), accuracy * len(part)])
        return total / len(self.validation), hits / len(self.validation)

    def _scores(self, split: Split) -> tuple[float, float]:
        return mean_scores(
            self.model,
            self.loss,
            split,
            batch_size=self.settings.evaluation_batch,
            channels_last=self.settings.channels_last,
        )

    def _step(self, subsets: list[Batch], samples: int, where: str) -> tuple[float, float]:
        """Take one step; return the sums of losses and of hits at the weights it starts from."""
        optimizer, sums = self.optimizer, _Sums()
        if isinstance(optimizer, SAM) and optimizer.m is not None:
            closures = [self._closure(batch, batch.count, sums) for batch in subsets]
            optimizer.zero_grad()
            if subsets:
                optimizer.descent_gradient(closures, [b.count / samples for b in subsets])
            self.group.sum_gradients(self._parameters)
        else:
            closure = self._closure(subsets[0] if subsets else None, samples, sums, together=True)
            if isinstance(optimizer, SAM):
                optimizer.descent_gradient([closure], [1.0])
            else:
                closure()
        total, hits, ascended = self.group.sum([sums.loss, sums.hits, sums.perturbed])
        for value in (total, ascended):
            if not math.isfinite(value):
                # Raised before the step, which leaves the weights of the last one.
                raise self._diverged(f"loss {value / samples} at {where}")
        if self.settings.clip is not None:
            clip_grad_norm_(self._parameters, self.settings.clip)
        (optimizer.base if isinstance(optimizer, SAM) else optimizer).step()
        return total, hits

    def _closure(
        self, batch: Batch | None, divisor: int, sums: _Sums, *, together: bool = False
    ) -> Callable[[], Tensor]:
        """Return what leaves the gradient of (sum of losses) / divisor at the current weights.

        Args:
            batch: This rank's samples, None where it has none.
            divisor: Samples to average over.
            sums: Where losses and hits are added.
            together: Whether the gradient is that of all ranks' samples.
        """
        device = placement(self.model)[0]
        calls = 0

        def closure() -> Tensor:
            nonlocal calls
            calls += 1
            self.optimizer.zero_grad()
            loss = torch.zeros((), device=device)
            if batch is not None:
                with torch.autocast(device.type, torch.bfloat16, self.settings.amp == "bf16"):
                    outputs = batch.call(self.model)
                    losses = self.loss(outputs, batch.targets)
                total = losses.detach().cpu().double().sum().item()
                if calls == 1:
                    sums.loss += total
                    sums.hits += correct(outputs.detach(), batch.targets)
                else:  # SAM, at w + e
                    sums.perturbed += total
                loss = losses.sum() / divisor
                loss.backward()
            if together:
                self.group.sum_gradients(self._parameters)
            return loss.detach()

        return closure

    def _seed(self, epoch: int, purpose: int) -> int:
        return epoch_seed(self.settings.seed, epoch, purpose, self.group.rank)

    def _set_lr(self, step: int, losses: Sequence[float]) -> float:
        factor = self._schedule(step, losses)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def _diverged(self, what: str) -> TrainingDiverged:
        lr = self.optimizer.param_groups[0]["lr"]
        remedy = "`lr` or `rho`" if isinstance(self.optimizer, SAM) else "`lr`"
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
                may differ under a schedule that does not plan for it.
            CheckpointError: If the weights are of another network.
        """
        own, stored = asdict(self.settings), state["settings"]
        if not SCHEDULES.get(self.settings.schedule).facts["planned"]:
            stored = {**stored, "epochs": own["epochs"]}
        differing = [name for name in own if own[name] != stored.get(name)]
        if differing:
            raise TrainingError(
                f"{source} is of a training with other settings: "
                + ", ".join(f"{n} {stored.get(n)} (now {own[n]})" for n in differing)
                + "\ncontinue with the same settings, or start anew with `force`"
            )
        load_into(self.model, state["model"], source)
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [EpochRecord(**record) for record in state["history"]]


@dataclass
class _Sums:
    """Added up over the samples of one step."""

    loss: float = 0.0
    hits: float = 0.0
    perturbed: float = 0.0


@dataclass(frozen=True)
class _Part:
    """Some samples of a split, as a split."""

    split: Split
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[Any]:
        chosen = self.indices if order is None else self.indices[order]
        yield from self.split.batches(size, order=chosen)
