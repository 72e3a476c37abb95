"""The spectrum of a problem's Hessian, stage by stage: eigenpairs, trace, scale, density.

The twin of `landscape.Surface`: the same call on the same file goes on where it was interrupted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from isoloss.errors import IsolossError, UsageError
from isoloss.hessian.density import spectral_density
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.hessian_operator import HessianOperator
from isoloss.hessian.operators import LinearOperator
from isoloss.hessian.sample_error import (
    PROBES,
    SampleErrorUnavailableError,
    sample_error,
    sampling_bias,
    trace_sample_error,
)
from isoloss.hessian.scaled_operator import ScaledOperator, filter_scale
from isoloss.hessian.stored import (
    stored_density,
    stored_eigenpairs,
    stored_scaled,
    stored_trace,
)
from isoloss.hessian.trace import Trace, trace
from isoloss.landscape import Plan, Problem
from isoloss.landscape.batches import BatchError
from isoloss.landscape.determinism import ProblemError
from isoloss.landscape.finite import where_not_finite
from isoloss.landscape.memory import require_for_products
from isoloss.records.files import FileError
from isoloss.records.hdf5 import refuse_other_kind
from isoloss.records.identity import refuse_other_function, refuse_other_settings
from isoloss.records.locks import locked_file
from isoloss.records.progress import Progress, StageProgress, bar, stage_bars
from isoloss.records.spectra import (
    DensityData,
    EigenpairsData,
    ScaledData,
    SpectrumData,
    TraceData,
    read_spectrum,
    write_spectrum,
)
from isoloss.records.summary import write_summary

T = TypeVar("T")

OPTIONS = (
    "top", "smallest", "tol", "max_products", "trace_error", "trace_budget", "probes", "steps",
    "seed",
)  # fmt: skip


class SpectrumError(UsageError, ValueError):
    """Settings that ask for nothing, or for what the problem does not have."""


class SpectrumUndefinedError(IsolossError, ArithmeticError):
    """A loss without a curvature."""


class Stages(Protocol):
    """What to compute of a spectrum, as `isoloss.experiments.SpectrumSettings` holds it.

    A stage is left out where its number (`top`, `trace_budget`, `probes`) is 0. What is asked for
    by `top` and `trace_budget` is also found in units of the filters, for T H T.

    Attributes:
        top: Algebraically largest eigenvalues.
        smallest: Algebraically smallest eigenvalues, with `top` of 1 or more; None for 1 with it.
        tol: Residual asked of an eigenpair, relative to the eigenvalue; None for 1e-4 or what
            products of the problem's precision allow.
        max_products: Products to spend on eigenvalues.
        trace_error: Standard error asked of the trace, relative to it.
        trace_budget: Products to spend on the trace.
        probes: Random probes of the density.
        steps: Lanczos steps for each probe.
        seed: Seed of start vectors and probes.
    """

    @property
    def top(self) -> int: ...  # noqa: D102

    @property
    def smallest(self) -> int | None: ...  # noqa: D102

    @property
    def tol(self) -> float | None: ...  # noqa: D102

    @property
    def max_products(self) -> int: ...  # noqa: D102

    @property
    def trace_error(self) -> float: ...  # noqa: D102

    @property
    def trace_budget(self) -> int: ...  # noqa: D102

    @property
    def probes(self) -> int: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def seed(self) -> int: ...  # noqa: D102


class Spectrum:
    """Extreme eigenpairs, trace and spectral density of the Hessian of a problem.

    Args:
        problem: The loss as a function of the weights.
        stages: What to compute.
        about: What else to store with the result, JSON-able; compared when it is resumed.

    Attributes:
        operator: The Hessian.
        smallest: Algebraically smallest eigenvalues that are computed.
        settings: Everything that identifies the computation, as it is stored.

    Raises:
        SpectrumError: If nothing is asked for, or more eigenvalues than the network has parameters.

    Example:
        Spectrum(problem, SpectrumSettings(top=3, probes=0)).run("hessian.h5")
    """

    def __init__(
        self, problem: Problem, stages: Stages, *, about: Mapping[str, Any] | None = None
    ) -> None:
        self.problem, self.wanted = problem, stages
        check_stages(stages)
        size = sum(tensor.numel() for tensor in problem.parameters.values())
        self.smallest = smallest_of(stages)
        if max(self.wanted.top, self.smallest) > size:
            raise SpectrumError(
                f"expected at most {size} eigenvalues, as many as the network has parameters, "
                f"got top {self.wanted.top}, smallest {self.smallest}"
            )
        self.operator = HessianOperator(problem)
        self.settings: dict[str, Any] = {
            **(about or {}),
            **problem.identity(),
            "operator": "hessian",
            "parameters": size,
            "options": {name: getattr(stages, name) for name in OPTIONS},
            "device": problem.device.type,
            "plan": problem.plan.to_json(),
        }

    @property
    def products(self) -> int:
        """Matrix-vector products taken so far."""
        return self.operator.products

    def run(
        self,
        path: Path | str | None = None,
        progress: StageProgress | bool | None = None,
        *,
        fresh: bool = False,
    ) -> SpectrumData:
        """Compute the stages that are not finished yet, keeping each as soon as it is.

        Args:
            path: An .h5 file to write and to resume from, a summary for people with the suffix
                `.json` beside it; nothing is written where None.
            progress: Called as `progress(stage, done, total)`; True for bars.
            fresh: Whether to start over. A spectrum that is there is replaced by the first
                finished stage, and is as it was until then.

        Returns:
            The spectrum. What was finished when an exception (Ctrl-C too) ended the work is on
            disk, and the same call goes on with the rest.

        Raises:
            SettingsDifferError: If the file holds another computation.
            LockedError: If another process writes the file.
            FileError: If it is none of ours.
        """
        bars = stage_bars(bar) if progress is True else nullcontext(progress or None)
        with bars as report, nullcontext() if path is None else locked_file(Path(path)):
            return self._run(None if path is None else Path(path), report, fresh)

    def _run(self, path: Path | None, progress: StageProgress | None, fresh: bool) -> SpectrumData:
        if path is not None and fresh:
            refuse_other_kind(path, "hessian")
        settings = {**self.settings, "loss_at_weights": self._loss_at_weights()}
        data = SpectrumData(settings)
        if path is not None and path.exists() and not fresh:
            data = read_spectrum(path)
            refuse_other_spectrum(path, data.settings, settings)
        stages = self._stages()
        if missing := [stage for stage in stages if stage not in data.stages]:
            Plan.from_json(data.settings["plan"]).apply()
            require_for_products(self.problem, self._vectors())
        with self.operator:
            for stage in missing:
                report = None if progress is None else _reporting(progress, stage)
                data = dataclasses.replace(data, **{stage: stages[stage](report)})
                if (plan := self.problem.plan.to_json()) != self.settings["plan"]:
                    noted = {**data.settings, "plan_after_running_out_of_memory": plan}
                    data = dataclasses.replace(data, settings=noted)
                if path is not None:
                    # A summary that is there is that of the file, also after a kill in between.
                    path.with_suffix(".json").unlink(missing_ok=True)
                    write_spectrum(path, data)
                    write_summary(path.with_suffix(".json"), data)
        if path is not None and not path.with_suffix(".json").exists():
            write_summary(path.with_suffix(".json"), data)
        return data

    def _loss_at_weights(self) -> float:
        """Return L(theta0); refuse one that is not finite, which has no curvature."""
        loss = self.problem.evaluate().loss
        if math.isfinite(loss) or not self.problem.total_weight:
            return loss
        raise SpectrumUndefinedError(
            f"expected a finite loss at the network's weights, got {loss}: "
            f"{where_not_finite(self.problem)}\nthere is no curvature where the loss is not finite"
        )

    def _vectors(self) -> int:
        """Return how many vectors of the parameters' size are held at once, at least."""
        wanted, size = self.wanted, self.operator.size
        pairs = 2 * (wanted.top + self.smallest)  # a basis that spans them, and themselves
        return max(pairs, min(wanted.steps, size) if wanted.probes else 0)

    def _stages(self) -> dict[str, Callable[..., Any]]:
        """Return what computes each stage that is asked for."""
        wanted = self.wanted
        stages = {
            "eigenpairs": (wanted.top, self._eigenpairs),
            "trace": (wanted.trace_budget, self._trace),
            "scaled": (wanted.top + wanted.trace_budget, self._scaled),
            "density": (wanted.probes, self._density),
        }
        return {stage: compute for stage, (number, compute) in stages.items() if number}

    def _eigenpairs(self, progress: Progress | None) -> EigenpairsData:
        wanted = self.wanted
        pairs = top_eigenpairs(
            self.operator,
            wanted.top,
            smallest=self.smallest,
            tol=wanted.tol,
            max_products=max(wanted.max_products, wanted.top + self.smallest),
            seed=wanted.seed,
            progress=progress,
        )

        def errors(population: int | None) -> np.ndarray:
            vectors = pairs.eigenvectors.T
            found = [sample_error(self.problem, u, population=population) for u in vectors]
            return np.array([error.standard_error for error in found])

        over_samples, account = self._over_samples(errors, np.zeros(wanted.top))
        if "reason" not in account:
            account["bias"] = self._bias(float(pairs.eigenvalues[0]))
        return stored_eigenpairs(pairs, self.operator.shapes, over_samples, account)

    def _trace(self, progress: Progress | None) -> TraceData:
        estimate, seed = self._trace_of(self.operator, progress), self.wanted.seed

        def error(population: int | None) -> float:
            found = trace_sample_error(self.problem, seed=seed, population=population)
            return found.standard_error

        over_samples, account = self._over_samples(error, 0.0)
        return stored_trace(estimate, over_samples, {**account, "probes": PROBES})

    def _bias(self, eigenvalue: float) -> float | None:
        """Return the sampling bias of the largest eigenvalue; None without halves.

        Graphs are held in batches; of very few samples, those of a half may all have weight 0.
        """
        self.operator.close()  # the graphs of the halves take the place of the whole's
        population, seed = self.settings.get("population"), self.wanted.seed
        try:
            return sampling_bias(self.problem, eigenvalue, population=population, seed=seed)
        except (BatchError, ProblemError):
            return None

    def _over_samples(
        self, errors: Callable[[int | None], T], none: T
    ) -> tuple[T | None, dict[str, Any]]:
        """Return errors over draws of the samples and what to store of them, a reason if none."""
        count, population = self.problem.count, self.settings.get("population")
        account = {"count": count, "population": population}
        if count == population:
            return none, {**account, "reason": "every sample of the split is used"}
        try:
            return errors(population), account
        except SampleErrorUnavailableError as error:
            return None, {**account, "reason": str(error)}

    def _trace_of(self, operator: LinearOperator, progress: Progress | None) -> Trace:
        wanted = self.wanted
        return trace(
            operator,
            relative_error=wanted.trace_error,
            budget=wanted.trace_budget,
            seed=wanted.seed,
            progress=progress,
        )

    def _scaled(self, progress: Progress | None) -> ScaledData:
        wanted, scale = self.wanted, filter_scale(self.problem.parameters)
        if not bool(scale.any()):
            reason = "no filter has a weight other than 0 (biases and batch norm are ignored)"
            return ScaledData(None, None, None, None, {"reason": reason})
        operator = ScaledOperator(self.operator, scale)
        pairs = estimate = None
        if wanted.top:
            pairs = top_eigenpairs(
                operator,
                1,
                tol=wanted.tol,
                max_products=wanted.max_products,
                seed=wanted.seed,
                progress=progress,
            )
        if wanted.trace_budget:
            estimate = self._trace_of(operator, progress)
        return stored_scaled(pairs, estimate)

    def _density(self, progress: Progress | None) -> DensityData:
        wanted = self.wanted
        density = spectral_density(
            self.operator,
            probes=wanted.probes,
            steps=wanted.steps,
            seed=wanted.seed,
            progress=progress,
        )
        return stored_density(density)


def check_stages(stages: Stages) -> None:
    """Refuse what asks for nothing.

    Raises:
        SpectrumError: If every stage is left out, or `smallest` is asked for without `top`.
    """
    if stages.top + stages.trace_budget + stages.probes == 0:
        raise SpectrumError("nothing to compute: `top`, `trace_budget` and `probes` are all 0")
    if stages.smallest and not stages.top:
        raise SpectrumError("`smallest`: expected `top` of 1 or more with it, got 0")


def smallest_of(stages: Stages) -> int:
    """Return how many of the smallest eigenvalues to compute: one beside the largest by default."""
    return min(1, stages.top) if stages.smallest is None else stages.smallest


def refuse_other_spectrum(path: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise where a file holds another spectrum than the one it is asked to continue."""
    if "plan" not in stored:
        raise FileError(
            f"expected a file of this computation, got {path} without its settings\n"
            "write to another file, or start over"
        )
    refuse_other_settings(path, stored, wanted)
    before = stored.get("loss_at_weights", math.nan)
    refuse_other_function(path, "a loss of", [before], [wanted["loss_at_weights"]])


def _reporting(progress: StageProgress, stage: str) -> Progress:
    return lambda done, total: progress(stage, done, total)
