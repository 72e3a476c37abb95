"""Whether the networks of a surface are compiled: a rule that looks at sizes, never at clocks.

Plans that depended on times would differ from run to run, and with them the last digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isoloss.landscape.compiled import NoCompilationError
from isoloss.landscape.determinism import PROBE_TOLERANCE
from isoloss.landscape.objective import OfOutputs
from isoloss.landscape.plan import activations_of
from isoloss.landscape.probing import gap, second_point
from isoloss.landscape.problem import Problem

# On a CPU networks with convolutions gained 6 to 33 % (five of them, two threads), at least 0.015 s
# for each GB that operations put out; compiling took 3 s and 0.1 s an operation. Twice that must be
# gained. A perceptron gained nothing and a transformer lost 8 %: networks without convolutions are
# compiled where it is asked for, and so are those on accelerators, where nothing was measured.
BYTES, BYTES_OF_OPERATION = 200e9, 6.5e9  # for each thread


def pays(problems: Sequence[Problem], points: int) -> bool:
    """Return whether compiling is expected to be won back, twice over.

    Args:
        problems: What is evaluated at each point.
        points: How many points there are.
    """
    first = problems[0]
    if first.device.type != "cpu" or any(map(obstacle, problems)):
        return False
    found = activations_of(first.objective, first._data)
    work = points * found.bytes * sum(problem.count for problem in problems)
    cost = BYTES + BYTES_OF_OPERATION * found.operations
    return found.convolutions and work >= first.plan.threads * cost * len(problems)


def obstacle(problem: Problem) -> str | None:
    """Return why a problem's network is not compiled, in words; None where it can be."""
    batches = problem._data.batches
    if not isinstance(problem.objective, OfOutputs):
        return "a closure calls the network itself"
    if problem.bn == "train":
        return "batch norm takes its statistics from each batch"
    if len(batches) > 1 or not batches[0].sliceable:
        return "the samples are graphs, or of several shapes"
    return None


def compile_seconds(problem: Problem) -> float:
    """Return how long compiling a problem's network took; 0 where it was not compiled."""
    return 0.0 if problem.compiled is None else problem.compiled.seconds or 0.0


def compile_networks(
    problems: Sequence[Problem], points: int, asked: bool | None = None
) -> str | None:
    """Let problems compute their values by compiled networks, where that pays, and plan it so.

    A compiled network must have the values of the network itself, at theta0 and near it.

    Args:
        problems: What is evaluated at each point; they share a plan.
        points: How many points there are.
        asked: Whether to compile; None for `pays`.

    Returns:
        Why it was not done although it was to be; None otherwise.
    """
    if asked is False or (asked is None and not pays(problems, points)):
        return None
    for problem in problems:
        problem.plan = replace(problem.plan, compile=True)
        reason = obstacle(problem) or _difference(problem)
        if reason is not None:
            for each in problems:
                each.plan, each.compiled = replace(each.plan, compile=False), None
            return reason
    return None


def _difference(problem: Problem) -> str | None:
    """Compile a network; return in words what is wrong with it."""
    network = problem.network()
    assert network is not None
    few = [next(problem.micro_batches())]
    for point in (problem.parameters, second_point(problem.parameters)):
        state = {**problem.buffers_at(point), **point}
        try:
            found, expected = (
                problem.objective.passed(state, few, (), one)[0][0].sums
                for one in (network.at(state), None)
            )
        except NoCompilationError as error:
            return str(error).splitlines()[0].partition("got ")[2]
        if gap(found, expected) > PROBE_TOLERANCE[problem.compute_dtype]:
            return f"its mean loss was {found.mean():.8g} where it is {expected.mean():.8g}"
    return None
