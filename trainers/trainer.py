"""A network in training: epochs over a split, each reproducible from the seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from isoloss.errors import IsolossError
from isoloss.evaluation.networks import LossSums, loss_sums, placement
from isoloss.landscape.batches import Samples, as_batch
from isoloss.landscape.losses import PerSampleLoss, per_sample_loss
from isoloss.landscape.memory import explaining
from isoloss.landscape.objective import Closure, Loss, objective
from isoloss.parallel.ranks import Group
from isoloss.split import Split
from isoloss.structure import describe
from isoloss.trainers.checkpoints import load_into
from isoloss.trainers.schedules import SCHEDULES, Horizon, create_schedule
from isoloss.trainers.seeds import AUGMENTATION, NETWORK, epoch_order, epoch_seed
from isoloss.trainers.settings import EpochRecord, TrainingError, TrainingSettings, best_epoch
from isoloss.trainers.stepper import as_stepper

Augmentation = Callable[[Any, torch.Generator], Any]

# A loss of so many times the first one has exploded, long before float32 ends at 3e38: the epoch
# must not take the place of the last good one. Losses below 1 count as 1.
EXPLODED = 1e9


class TrainingDiverged(IsolossError, RuntimeError):  # noqa: N818 - a state that is reached, not a mistake
    """The loss has exploded, or loss or weights are no longer finite."""


class Trainer:
    """A network in training: holds what changes, and takes it one epoch further.

    The order of the samples, the augmentation and torch's global generators (dropout) are seeded
    from (seed, epoch) as each epoch starts, so an epoch depends on the state before it alone.

    Args:
        model: The network, on the device to train on. It is trained in place.
        loss: Sum and weight of each sample, what `per_sample_loss` takes, or a closure; a step
            minimises the sums over the batch divided by the weights over the batch, of all ranks
            together.
        optimizer: From `build_optimizer`, any that steps without a closure, or a `Stepper`.
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
        loss: Loss,
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
        self.model, self.optimizer = model, optimizer
        device, dtype = placement(model)
        self.loss: Closure | PerSampleLoss = (
            loss if isinstance(loss, Closure) else per_sample_loss(loss, device, dtype)
        )
        self._objective = objective(model, self.loss, device=device, dtype=dtype)
        self._stepper = as_stepper(optimizer)
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
            TrainingDiverged: If a loss, or a weight at the end, is not finite, or a loss above
                1e9 times that of the first epoch (in it, of the first step). The history is left
                without the epoch.
            MemoryShortError: If memory runs out.
        """
        began = time.perf_counter()
        epoch = self.epoch
        step = epoch * self.steps_per_epoch
        losses = self.monitored
        lr = self._set_lr(step, losses)
        torch.manual_seed(self._seed(epoch, NETWORK))
        self.model.train()
        sums = LossSums()
        first = self.history[0].train_loss if self.history else None
        for index, (subsets, samples) in enumerate(self._batches(epoch)):
            self._set_lr(step, losses)
            where = f"epoch {epoch + 1}, step {index + 1} of {self.steps_per_epoch}"
            with explaining(max((part.count for part in subsets), default=0)):
                taken = self._step(subsets, samples, where, first)
            first = taken.mean_loss if first is None else first
            sums, step = sums + taken, step + 1
            if after_step is not None:
                after_step(step)
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise self._diverged(f"weights not finite after epoch {epoch + 1}")
        self.group.average_buffers(self.model)
        validation = self._validate(f"after epoch {epoch + 1}")
        seconds = time.perf_counter() - began
        record = EpochRecord(epoch + 1, sums.mean_loss, sums.accuracy, *validation, lr, seconds)
        self.history.append(record)
        return record

    def _batches(self, epoch: int) -> Iterator[tuple[list[Samples], int]]:
        """Yield for each step this rank's subsets, and the samples of the step over all ranks.

        There is one subset, or, with m-sharpness, as many of m samples as fall to this rank.
        """
        device, dtype = placement(self.model)
        generator = torch.Generator().manual_seed(self._seed(epoch, AUGMENTATION))
        order = epoch_order(self.settings.seed, epoch, len(self.train))
        for indices in order.split(self.batch_size):
            subsets = []
            for part in self._subsets(indices):
                item = next(iter(self.train.batches(len(part), order=part)))
                if self.augment is not None:
                    item = _augmented(item, self.augment, generator)
                batch = self._objective.read(item)
                subsets.append(batch.to(device, dtype, channels_last=True))
            yield subsets, len(indices)

    def _subsets(self, indices: Tensor) -> list[Tensor]:
        m = self._stepper.m
        if m is None:
            parts = [self.group.shard(indices)]
        else:
            cut = indices.split(m)
            parts = [cut[i] for i in self.group.shard(torch.arange(len(cut))).tolist()]
        return [part for part in parts if len(part)]

    def _validate(self, when: str) -> tuple[float, float]:
        if self.validation is None:
            return math.nan, math.nan
        split: Split = self.validation
        if self.group.size > 1:
            split = split.subset(self.group.shard(torch.arange(len(split))))
        sums = LossSums()
        if len(split):
            sums = loss_sums(self.model, self.loss, split)
        sums = LossSums(*self.group.sum(astuple(sums)))
        if math.isnan(sums.loss) and self._finite(split):
            raise self._diverged(f"validation loss {sums.loss} {when}")
        return sums.mean_loss, sums.accuracy

    def _finite(self, split: Split) -> bool:
        """Return whether all data of a split are finite, on every rank."""
        items = split.batches(self.batch_size) if len(split) else []
        batches = map(self._objective.read, items)
        lost = not all(bool(t.isfinite().all()) for b in batches for t in b.tensors().values())
        return not self.group.sum([float(lost)])[0]

    def _step(
        self, subsets: list[Samples], samples: int, where: str, first: float | None
    ) -> LossSums:
        """Take one step; return the sums over its samples at the weights it starts from."""
        stepper, own = self._stepper, _StepSums()
        if stepper.m is None:
            batch = subsets[0] if subsets else None
            closures, shares = [self._closure(batch, samples, own, together=True)], [1.0]
        else:
            closures = [self._closure(batch, batch.count, own) for batch in subsets]
            shares = [batch.count / samples for batch in subsets]
        self.optimizer.zero_grad()
        if closures:  # else no subset fell to this rank
            stepper.descent_gradient(closures, shares)
        if stepper.m is not None:
            self.group.sum_gradients(self._parameters)
        *totals, elsewhere = self.group.sum([*astuple(own.at_start), own.elsewhere])
        sums = LossSums(*totals)
        for value in (sums.loss, elsewhere):
            if not math.isfinite(value):
                # Raised before the step, which leaves the weights of the last one.
                raise self._diverged(f"loss {value / (sums.weight or 1)} at {where}")
        # A first loss is NaN where no target of its batch counts.
        if first is not None and abs(sums.mean_loss) > EXPLODED * max(1.0, abs(first)):
            what = f"loss {sums.mean_loss:.3g} at {where}"
            raise self._diverged(f"{what}, {EXPLODED:.0e} times the first, {first:.3g}")
        self._scale_gradients(samples / sums.weight if sums.weight else 0.0)
        if self.settings.clip is not None:
            clip_grad_norm_(self._parameters, self.settings.clip)
        stepper.descent_step()
        return sums

    @torch.no_grad()
    def _scale_gradients(self, factor: float) -> None:
        """Turn gradients divided by the number of samples into those divided by the weight.

        The weight of all ranks' samples is known only after their forward passes. An ascent of
        SAM before does not depend on it: its length is rho whatever the gradient's.
        """
        if factor == 1.0:
            return
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def _closure(
        self, batch: Samples | None, divisor: int, sums: _StepSums, *, together: bool = False
    ) -> Callable[[], Tensor]:
        """Return what leaves the gradient of (sum of losses) / divisor at the current weights.

        Args:
            batch: This rank's samples, None where it has none.
            divisor: Number of samples.
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
                    terms, hits = self._objective(batch, metric=calls == 1)
                if calls == 1:
                    sums.at_start.add(terms, hits)
                else:  # at weights that the optimizer moved
                    sums.elsewhere += terms.sums.detach().cpu().double().sum().item()
                loss = terms.sums.sum() / divisor
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
        remedy = " or ".join(f"`{name}`" for name in self._stepper.hyperparameters)
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


def _augmented(item: Any, augment: Augmentation, generator: torch.Generator) -> Any:
    pair = as_batch(item)
    # Of targets with positions the pixels would stay where they were.
    if not isinstance(pair.inputs, Tensor) or isinstance(item, Mapping) or pair.targets.ndim > 2:
        raise TrainingError(
            f"`augment` expects pairs (images, targets), a target for each, got {describe(item)}\n"
            "leave it out, or augment in the network's forward under self.training"
        )
    return augment(pair.inputs, generator), pair.targets


@dataclass
class _StepSums:
    """Added up over the samples of one step: at the weights, and the loss at w + e of SAM."""

    at_start: LossSums = field(default_factory=LossSums)
    elsewhere: float = 0.0
