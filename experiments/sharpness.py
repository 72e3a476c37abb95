"""The sharpness of a subject: from settings to the file, a measure at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoloss.experiments.devices import peak_memory
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import OptionError
from isoloss.experiments.reporting import Cost, Reporter, heard_by
from isoloss.experiments.sharpness_settings import SharpnessSettings
from isoloss.experiments.trained import Trained, parameter_counts
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.relative_flatness import relative_flatness
from isoloss.hessian.trace import trace
from isoloss.landscape import Plan, Problem
from isoloss.landscape.batch_norm import check_policy
from isoloss.landscape.batches import BatchError
from isoloss.landscape.determinism import ProblemError
from isoloss.landscape.sharpness import (
    Ball,
    adaptive_ball,
    average_rise,
    euclidean_ball,
    find_relu_pair,
    m_sharpness,
    one_step_rise,
    rescaled,
    worst_rise,
)
from isoloss.records.identity import refuse_other_settings
from isoloss.records.locks import locked_file
from isoloss.records.progress import Progress
from isoloss.records.sharpness import Measured, SharpnessData, read_sharpness, write_sharpness

OPTIONS = (
    "rho", "adaptive_rho", "eta", "starts", "ascent_steps", "draws", "m", "subsets", "probes",
    "trace_budget", "rescale_check", "seed",
)  # fmt: skip
# A measure of a problem, its name, ball and radius known.
Compute = Callable[[Problem, Progress | None], Measured]


@dataclass(frozen=True)
class SharpnessResult:
    """The sharpness of a subject.

    Attributes:
        data: The measures.
        path: Their file; None where it is in memory only.
        computed: Measures that this call computed.
        seconds: How long that took.
    """

    data: SharpnessData
    path: Path | None
    computed: int
    seconds: float


class SharpnessExperiment:
    """The sharpness of a subject.

    Args:
        subject: The network with its data and loss.
        settings: What to compute.
        path: A .json file; `sharpness.json` in the run's folder where None.
        fresh: Whether to start over where one is there already.

    Raises:
        UsageError: For settings that ask for nothing, or radii that are none.
    """

    def __init__(
        self,
        subject: Trained,
        settings: SharpnessSettings,
        path: Path | str | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        check_policy(settings.bn, settings.bn_batch)
        self.radii = radii(settings)
        if not (any(self.radii.values()) or settings.probes):
            raise OptionError("rho", "expected a radius, or `probes`: nothing is asked for")
        self.subject, self.settings, self.fresh = subject, settings, fresh
        self.path = subject.file("sharpness.json") if path is None else Path(path)

    def run(self, reporter: Reporter | None = None, *, progress: bool = False) -> SharpnessResult:
        """Compute the measures that are not there yet.

        Each is kept once it is finished: after an interruption the same call goes on.

        Args:
            reporter: Told what happens.
            progress: Whether to show a bar where there is no reporter.

        Raises:
            SettingsDifferError: If the file holds another computation.
            SharpnessError: For a rescaling that no two layers of the network take.
        """
        reporter, began = heard_by(reporter, progress), time.monotonic()
        locked = contextlib.nullcontext() if self.path is None else locked_file(self.path)
        with locked:
            data, computed = self._run(reporter)
        return SharpnessResult(data, self.path, computed, time.monotonic() - began)

    def _run(self, reporter: Reporter) -> tuple[SharpnessData, int]:
        stored = None
        if self.path is not None and self.path.exists() and not self.fresh:
            stored = read_sharpness(self.path)
        problem = self._problem(stored)
        settings = self._identity(problem)
        data = SharpnessData(settings)
        if stored is not None and self.path is not None:
            refuse_other_settings(self.path, stored.settings, settings)
            data = stored
        Plan.from_json(data.settings["plan"]).apply()
        reporter.say(
            f"sharpness of {self.subject.label}: "
            f"{parameter_counts(self.subject.model, _size(problem))}, {problem.count:,} samples"
        )
        other = None
        if self.settings.rescale_check is not None:
            pair = find_relu_pair(self.subject.model, problem, self.settings.rescale_check)
            data = dataclasses.replace(
                data, rescaling={**asdict(pair), "factor": self.settings.rescale_check}
            )
            other = problem.at(rescaled(self.subject.model, pair, self.settings.rescale_check))
        done, computed = {row.key for row in data.rows}, 0
        wanted = list(self.measures())
        try:
            with reporter.progress(f"sharpness of {self.subject.label}") as report:
                for number, (key, compute) in enumerate(wanted):
                    if key not in done:
                        row = compute(problem, _part(report, number, len(wanted)))
                        if other is not None:
                            row = dataclasses.replace(row, rescaled=compute(other, None).value)
                        data = dataclasses.replace(data, rows=(*data.rows, row))
                        computed += 1
                        if self.path is not None:
                            write_sharpness(self.path, data)
        except KeyboardInterrupt:
            raise ExperimentError(
                f"interrupted; {len(data.rows)} of {len(wanted)} measures are kept in {self.path}\n"
                "the same command goes on with the rest"
            ) from None
        return data, computed

    def cost(self) -> Cost:
        """Time a pass and a gradient, and scale up; a product counts as two gradients."""
        problem = self._problem(None)
        problem.evaluate(), problem.gradient()
        began = time.perf_counter()
        problem.evaluate()
        middle = time.perf_counter()
        problem.gradient()
        gradient, loss = time.perf_counter() - middle, middle - began
        s, balls = self.settings, sum(map(len, self.radii.values()))
        share = min(1.0, s.subsets * s.m / problem.count)
        each = 2 * loss + gradient + s.starts * (1 + s.ascent_steps) * (loss + gradient)
        each += 2 * s.draws * loss + share * (2 * loss + gradient)
        products = (s.probes + s.trace_budget + 30) * bool(s.probes)
        seconds = balls * each + 2 * gradient * products
        count = sum(1 for _ in self.measures())
        seconds *= 1 if s.rescale_check is None else 2
        return Cost(seconds, count, "measures", 0, peak_memory())

    def measures(self) -> Iterator[tuple[tuple[str, str, float], Compute]]:
        """Yield the key of each measure that is asked for, and what computes it."""
        s = self.settings
        for kind, values in self.radii.items():
            for radius in values:
                ball = _ball(kind, radius, s.eta)
                found: dict[str, Compute] = {"one step": _one_step(ball)}
                found["worst case"] = _worst(ball, s)
                if s.draws:
                    found["average"] = _average(ball, s)
                if s.m:
                    found["m-sharpness"] = _of_subsets(ball, s)
                for name, compute in found.items():
                    yield (name, kind, radius), compute
        if s.probes:
            yield ("relative flatness", "", -1.0), _flatness(s)
            yield ("lambda_max", "", -1.0), _eigenvalue(s)
        if s.probes and s.trace_budget:
            yield ("trace", "", -1.0), _trace(s)

    def _problem(self, stored: SharpnessData | None) -> Problem:
        plan = stored.settings.get("plan") if stored is not None else None
        plan = None if plan is None else Plan.from_json(plan)
        return self.subject.problem(self.settings.split, self.settings, self.settings, plan)

    def _identity(self, problem: Problem) -> dict[str, Any]:
        return {
            **self.subject.notes_of_result(),
            "asked": asdict(self.settings),
            **problem.identity(),
            "parameters": _size(problem),
            "options": {name: getattr(self.settings, name) for name in OPTIONS},
            "loss_at_weights": problem.evaluate().loss,
            "device": problem.device.type,
            "plan": problem.plan.to_json(),
        }


def radii(settings: SharpnessSettings) -> dict[str, list[float]]:
    """Return the radii by kind of ball, ascending.

    Raises:
        OptionError: For text that is no list of numbers above 0.
    """
    found = {}
    for kind, option in (("l2", "rho"), ("adaptive", "adaptive_rho")):
        text = getattr(settings, option)
        try:
            values = [] if text == "none" else sorted({float(part) for part in text.split(",")})
        except ValueError:
            values = [math.nan]
        if not all(value > 0 and math.isfinite(value) for value in values):
            raise OptionError(
                option, f"expected numbers above 0, separated by commas, or none, got {text!r}"
            )
        found[kind] = values
    return found


def _size(problem: Problem) -> int:
    return sum(tensor.numel() for tensor in problem.parameters.values())


def _part(progress: Progress | None, number: int, total: int) -> Progress | None:
    """Return the progress of one measure among several, in hundredths of each."""
    if progress is None:
        return None
    return lambda done, of: progress(100 * number + 100 * done // max(of, 1), 100 * total)


def _ball(kind: str, radius: float, eta: float) -> Callable[[Problem], Ball]:
    if kind == "l2":
        return lambda problem: euclidean_ball(radius)
    return lambda problem: adaptive_ball(problem.parameters, radius, eta)


def _named(measure: str, ball: Ball, value: float, **more: Any) -> Measured:
    eta = math.nan if ball.eta is None else ball.eta
    return Measured(measure, ball.kind, ball.radius, value, eta=eta, **more)


def _one_step(ball_of: Callable[[Problem], Ball]) -> Compute:
    def compute(problem: Problem, progress: Progress | None) -> Measured:
        ball = ball_of(problem)
        return _named("one step", ball, one_step_rise(problem, ball))

    return compute


def _worst(ball_of: Callable[[Problem], Ball], s: SharpnessSettings) -> Compute:
    def compute(problem: Problem, progress: Progress | None) -> Measured:
        ball = ball_of(problem)
        found = worst_rise(
            problem, ball, starts=s.starts, steps=s.ascent_steps, seed=s.seed, progress=progress
        )
        lowest, value = min(found.of_starts), found.value
        account = asdict(found) | {"bound": "lower"}
        return _named("worst case", ball, value, lowest=lowest, account=account)

    return compute


def _average(ball_of: Callable[[Problem], Ball], s: SharpnessSettings) -> Compute:
    def compute(problem: Problem, progress: Progress | None) -> Measured:
        ball = ball_of(problem)
        found = average_rise(problem, ball, draws=s.draws, seed=s.seed, progress=progress)
        error = {"error": found.standard_error, "error_of": "draws"}
        return _named("average", ball, found.value, **error, account=asdict(found))

    return compute


def _of_subsets(ball_of: Callable[[Problem], Ball], s: SharpnessSettings) -> Compute:
    def compute(problem: Problem, progress: Progress | None) -> Measured:
        ball, m = ball_of(problem), min(s.m, problem.count)
        try:
            found = m_sharpness(problem, ball, m, subsets=s.subsets, seed=s.seed, progress=progress)
        except (ProblemError, BatchError) as refusal:
            account = {"reason": str(refusal).splitlines()[0]}
            return _named("m-sharpness", ball, math.nan, account=account)
        error = {"error": found.standard_error, "error_of": "subsets"}
        return _named("m-sharpness", ball, found.value, **error, account=asdict(found) | {"m": m})

    return compute


def _flatness(s: SharpnessSettings) -> Compute:
    def compute(problem: Problem, progress: Progress | None) -> Measured:
        name = "relative flatness"
        try:
            found = relative_flatness(
                problem, probes=max(2, s.probes), seed=s.seed, progress=progress
            )
        except OperatorError as refusal:
            account = {"reason": str(refusal).splitlines()[0]}
            return Measured(name, "", math.nan, math.nan, account=account)
        error, account = found.standard_error, asdict(found)
        return Measured(
            name, "", math.nan, found.value, error=error, error_of="probes", account=account
        )

    return compute


def _eigenvalue(s: SharpnessSettings) -> Compute:
    def compute(problem: Problem, progress: Progress | None) -> Measured:
        with HessianOperator(problem) as operator:
            found = top_eigenpairs(operator, 1, tol=1e-3, seed=s.seed, progress=progress)
        account = {"converged": found.converged, "reason": found.reason}
        return Measured(
            "lambda_max", "", math.nan, float(found.eigenvalues[0]),
            error=float(found.residuals[0]), error_of="solver", account=account,
        )  # fmt: skip

    return compute


def _trace(s: SharpnessSettings) -> Compute:
    def compute(problem: Problem, progress: Progress | None) -> Measured:
        with HessianOperator(problem) as operator:
            found = trace(operator, budget=s.trace_budget, seed=s.seed, progress=progress)
        account = {"converged": found.converged, "reason": found.reason}
        return Measured(
            "trace", "", math.nan, found.value,
            error=found.standard_error, error_of="probes", account=account,
        )  # fmt: skip

    return compute
