"""Plans by trial: micro-batches, and compiled or not, as they are timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from isoloss.landscape.compiling import compile_networks, compile_seconds, obstacle
from isoloss.landscape.plan import LARGEST_MICRO_BATCH
from isoloss.landscape.problem import Problem

# Multiples of the planned size that are tried, and on how many samples at least; rounds in which
# all take turns, of which the least time counts.
FACTORS, SAMPLES, ROUNDS = (0.25, 0.5, 1, 2, 4), 1000, 3


def autotune(problems: Sequence[Problem], points: int, asked: bool | None = None) -> str | None:
    """Replace the plan of problems by the one that was fastest in short trials.

    The micro-batch is tried on a part of the samples. With the fastest the network is compiled, and
    stays so where what a pass gains, at all points, is more than compiling took.

    Args:
        problems: What is evaluated at each point; they share a plan. The first is timed.
        points: How many points there are.
        asked: Whether to compile, without a trial; None for one.

    Returns:
        Why a network was not compiled although it was to be; None otherwise.
    """
    first = problems[0]
    planned = first.plan.micro_batch
    largest = min(first.count, LARGEST_MICRO_BATCH)
    sizes = sorted({max(1, min(int(factor * planned), largest)) for factor in FACTORS})
    tried = first
    if first.bn == "eval" and not obstacle(first):
        tried = first.part(torch.arange(min(first.count, max(SAMPLES, 2 * sizes[-1]))))
    best = planned if first.bn == "train" else _fastest(tried, sizes)
    for problem in problems:
        problem.plan = replace(problem.plan, micro_batch=best)
    if asked is not None or any(map(obstacle, problems)):
        return compile_networks(problems, points, asked or False)
    reason = compile_networks(problems, points, True)
    if reason is None and not _won_back(problems, points):
        for problem in problems:
            problem.plan, problem.compiled = replace(problem.plan, compile=False), None
    return reason


def _fastest(problem: Problem, sizes: Sequence[int]) -> int:
    """Return the micro-batch with which a pass takes least."""
    least = dict.fromkeys(sizes, float("inf"))
    for _ in range(ROUNDS):
        for size in sizes:
            problem.plan = replace(problem.plan, micro_batch=size)
            least[size] = min(least[size], _seconds(problem))
    return min(least, key=lambda size: least[size])


def _won_back(problems: Sequence[Problem], points: int) -> bool:
    pairs = [(problem, problem.uncompiled()) for problem in problems]
    saved = sum(
        min(_seconds(plain) for _ in range(ROUNDS)) - min(_seconds(one) for _ in range(ROUNDS))
        for one, plain in pairs
    )
    return saved * points > sum(map(compile_seconds, problems))


def _seconds(problem: Problem) -> float:
    began = time.perf_counter()
    problem.evaluate()
    return time.perf_counter() - began
