"""Learning-rate schedules: the factor that multiplies the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from registry import Registry

SCHEDULES: Registry = Registry("schedule")

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Horizon:
    """How long a training lasts."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Optimizer steps in total."""
        return self.epochs * self.steps_per_epoch


@SCHEDULES.register("constant", description="the same learning rate throughout")
def constant(horizon: Horizon) -> Schedule:
    """Return f(t) = 1."""
    return lambda step: 1.0


@SCHEDULES.register("cosine", description="half a cosine from the learning rate to 0, by step")
def cosine(horizon: Horizon) -> Schedule:
    """Return f(t) = (1 + cos(pi t / T)) / 2 over T steps (Loshchilov & Hutter 2017, eq. 5)."""
    return lambda step: 0.5 * (1.0 + math.cos(math.pi * step / horizon.steps))


def create_schedule(name: str, horizon: Horizon) -> Schedule:
    """Return the schedule: a function of the step (0 is the first) alone, so resuming needs none.

    Raises:
        UnknownNameError: For an unknown name.
    """
    return SCHEDULES.get(name).factory(horizon)
