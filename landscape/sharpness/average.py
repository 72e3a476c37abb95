"""The mean rise of the loss: over random directions, and over subsets of the samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from isoloss.landscape.problem import Problem
from isoloss.landscape.sharpness.ball import Ball, SharpnessError, random_direction
from isoloss.landscape.sharpness.worst import one_step_rise
from isoloss.records.progress import Progress


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error.

    Attributes:
        value: The mean.
        standard_error: s / sqrt(count); NaN for one value.
        count: Values averaged.
    """

    value: float
    standard_error: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return mean and standard error of independent values."""
        count = len(values)
        error = statistics.stdev(values) / math.sqrt(count) if count > 1 else math.nan
        return cls(math.fsum(values) / count, error, count)


def average_rise(
    problem: Problem,
    ball: Ball,
    *,
    draws: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimate:
    r"""Estimate E[L(theta0 + T u)] - L(theta0) over u uniform on the sphere ||u||_2 = rho.

    Directions come in pairs u, -u, whose mean has no term of odd order: a draw is a pair. For a
    quadratic loss the mean is rho^2 tr(T H T) / (2 n), n the number of parameters.

    Args:
        problem: The loss.
        ball: Of the sphere.
        draws: Pairs, 1 or more.
        seed: Of the directions.
        progress: Called as `progress(done, draws)`.

    Raises:
        SharpnessError: For fewer than 1 draw.
    """
    if draws < 1:
        raise SharpnessError(f"expected 1 draw or more, got {draws}")
    origin, loss, values = problem.parameters, problem.evaluate().loss, []
    for number in range(draws):
        u = ball.on_sphere(random_direction(origin, seed, number))
        back = {name: -part for name, part in u.items()}
        rises = [problem.evaluate(ball.displaced(origin, side)).loss - loss for side in (u, back)]
        values.append(math.fsum(rises) / 2)
        if progress is not None:
            progress(number + 1, draws)
    return Estimate.of(values)


def m_sharpness(
    problem: Problem,
    ball: Ball,
    m: int,
    *,
    subsets: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimate:
    r"""Estimate the mean over subsets S of m samples of the one-step rise of the loss L_S on each.

    (Foret et al. 2021, section 4.1; what SAM descends in batches of m.) The subsets are disjoint,
    of a random order of the samples. The standard error is that of the mean over draws of subsets;
    as they are disjoint, it errs on the large side where they make up much of the data.

    Args:
        problem: The loss, batch norm under `"eval"`, its samples in tensors.
        ball: The set that each subset's step stays in.
        m: Samples of a subset, 1 to the number there is.
        subsets: Subsets to take at most.
        seed: Of the order.
        progress: Called as `progress(done, subsets)`.

    Raises:
        SharpnessError: For numbers out of range.
        ProblemError: If batch norm couples the samples.
        BatchError: If samples cannot be chosen among (graphs).
    """
    count = problem.count
    if not 1 <= m <= count or subsets < 1:
        raise SharpnessError(
            f"expected subsets, each of 1 to {count} samples, got {subsets} of {m}"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    chosen = [part.sort().values for part in order.split(m) if len(part) == m][:subsets]
    values = []
    for number, part in enumerate(chosen, start=1):
        values.append(one_step_rise(problem.part(part), ball))
        if progress is not None:
            progress(number, len(chosen))
    return Estimate.of(values)
