"""Learning-rate schedules: the factor that multiplies the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isoloss.errors import UsageError
from isoloss.registry import Registry, call_with_arguments

SCHEDULES: Registry = Registry("schedule")

# f(step, losses): `step` counts from 0; `losses` are those of the finished epochs, on the
# validation split where there is one. As f depends on nothing else, resuming needs no state.
Schedule = Callable[[int, Sequence[float]], float]


class ScheduleError(UsageError, ValueError):
    """Arguments that a schedule cannot take."""


@dataclass(frozen=True)
class Horizon:
    """How long a training lasts."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Optimizer steps in total."""
        return self.epochs * self.steps_per_epoch


@SCHEDULES.register("constant", description="the same learning rate throughout", planned=False)
def constant(horizon: Horizon) -> Schedule:
    """Return f = 1."""
    return lambda step, losses: 1.0


@SCHEDULES.register(
    "cosine", description="half a cosine from the learning rate to 0, by step", planned=True
)
def cosine(horizon: Horizon) -> Schedule:
    """Return f(t) = (1 + cos(pi t / T)) / 2 over T steps (Loshchilov & Hutter 2017, eq. 5)."""
    return lambda step, losses: 0.5 * (1.0 + math.cos(math.pi * step / horizon.steps))


@SCHEDULES.register("halve", description="half the learning rate every 5 epochs", planned=False)
def halve(horizon: Horizon, every: int = 5) -> Schedule:
    """Return f = 2^-floor(epoch / every), epochs counted from 0.

    Args:
        horizon: How long the training lasts.
        every: Epochs between two halvings.
    """
    if every < 1:
        raise ScheduleError(f"schedule 'halve': expected every of 1 epoch or more, got {every}")
    return lambda step, losses: 0.5 ** (step // horizon.steps_per_epoch // every)


@SCHEDULES.register(
    "step", description="a fifth of the learning rate after 30, 60 and 80 % of epochs", planned=True
)
def step_(horizon: Horizon, factor: float = 0.2, at: Sequence[float] = (0.3, 0.6, 0.8)) -> Schedule:
    """Return f = factor^k, k being how many of the marks `at` the epoch has reached.

    The defaults are those of the wide ResNet recipe of github.com/davda54/sam; with factor 0.1 it
    is the usual step schedule of ImageNet recipes at other marks.

    Args:
        horizon: How long the training lasts.
        factor: Of each drop.
        at: Shares of all epochs, each in (0, 1).
    """
    _check_factor("step", factor)
    marks = list(at) if isinstance(at, Sequence) else [at]
    if not all(isinstance(mark, int | float) and 0 < mark < 1 for mark in marks):
        raise ScheduleError(f"schedule 'step': expected at in (0, 1), got {marks}")
    epochs = [mark * horizon.epochs for mark in marks]

    def rule(step: int, losses: Sequence[float]) -> float:
        epoch = step // horizon.steps_per_epoch
        return factor ** sum(epoch >= mark for mark in epochs)

    return rule


@SCHEDULES.register(
    "plateau",
    description="a tenth of the learning rate where the loss has stopped falling",
    planned=False,
)
def plateau(
    horizon: Horizon,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    cooldown: int = 0,
    least: float = 0.0,
) -> Schedule:
    """Drop the learning rate when the loss has not improved for more than `patience` epochs.

    The rule and the defaults are those of torch's `ReduceLROnPlateau`. A loss that is not a number
    is no improvement.

    Args:
        horizon: How long the training lasts.
        factor: Of each drop.
        patience: Epochs without improvement that are let pass.
        threshold: An improvement is a loss below (1 - threshold) of the best.
        cooldown: Epochs after a drop that are not counted.
        least: The smallest factor.
    """
    _check_factor("plateau", factor)

    def rule(step: int, losses: Sequence[float]) -> float:
        result, best, bad, cooling = 1.0, math.inf, 0, 0
        for loss in losses:
            if loss < best * (1.0 - threshold):
                best, bad = loss, 0
            else:
                bad += 1
            if cooling > 0:
                cooling, bad = cooling - 1, 0
            if bad > patience:
                result, cooling, bad = max(result * factor, least), cooldown, 0
        return result

    return rule


def create_schedule(
    name: str,
    horizon: Horizon,
    arguments: Mapping[str, Any] | None = None,
    warmup_steps: int = 0,
) -> Schedule:
    """Return a schedule: a function of the step and of the losses of the finished epochs.

    Args:
        name: A name in `SCHEDULES`.
        horizon: How long the training lasts.
        arguments: Settings of the schedule, such as `every`.
        warmup_steps: Steps W over which the schedule's factor is multiplied by (t + 1) / W
            (gradual warm-up, Goyal et al. 2017, section 2.2). The schedule runs meanwhile.

    Raises:
        UnknownNameError: For an unknown name.
        ArgumentError: For arguments the schedule does not take.
        ScheduleError: For values out of range.
    """
    factory = SCHEDULES.get(name).factory
    rule = call_with_arguments(
        factory, arguments or {}, {}, f"schedule {name!r}", positional=(horizon,)
    )
    if warmup_steps < 0:
        raise ScheduleError(f"expected a warm-up of 0 steps or more, got {warmup_steps}")
    if not warmup_steps:
        return rule
    return lambda step, losses: min(1.0, (step + 1) / warmup_steps) * rule(step, losses)


def _check_factor(name: str, factor: float) -> None:
    if not 0 < factor < 1:
        raise ScheduleError(f"schedule {name!r}: expected a factor in (0, 1), got {factor}")
