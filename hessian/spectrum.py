"""Spectra of a problem's Hessian and other matrices, stage by stage and kept as they come.

The twin of `landscape.Surface`: the same call on the same file goes on where it was interrupted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from isoloss.errors import IsolossError
from isoloss.hessian.asked import (
    OPTIONS,
    SELDOM,
    SpectrumError,
    Stages,
    check_stages,
    smallest_of,
)
from isoloss.hessian.exact import exact_bytes
from isoloss.hessian.operators.named import operator_names
from isoloss.hessian.operators.of_problem import ProblemOperator
from isoloss.hessian.operators.views import check_dense
from isoloss.hessian.stages import OperatorStages
from isoloss.landscape import Plan, Problem
from isoloss.landscape.finite import where_not_finite
from isoloss.landscape.memory import require, require_for_products
from isoloss.records.files import FileError
from isoloss.records.hdf5 import refuse_other_kind
from isoloss.records.identity import refuse_other_function, refuse_other_settings
from isoloss.records.locks import locked_file
from isoloss.records.progress import Progress, StageProgress, bar, stage_bars
from isoloss.records.spectra import SpectrumData, read_spectrum, write_spectrum
from isoloss.records.summary import write_summary


class SpectrumUndefinedError(IsolossError, ArithmeticError):
    """A loss without a curvature."""


class Spectrum:
    """Extreme eigenpairs, trace and density of the Hessian of a problem, or of other matrices.

    Args:
        problem: The loss as a function of the weights.
        stages: What to compute, and of which operators.
        about: What else to store with the result, JSON-able; compared when it is resumed.

    Attributes:
        operators: What is computed of each operator, by its name.
        smallest: Algebraically smallest eigenvalues that are computed.
        settings: Everything that identifies the computation, as it is stored.

    Raises:
        SpectrumError: If nothing is asked for, or more eigenvalues than the network has parameters.
        OperatorError: If the problem's loss has no such matrix.

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
        names = operator_names(stages.operator)
        self.settings: dict[str, Any] = {
            **(about or {}),
            **problem.identity(),
            "operator": names[0],
            **({"operators": list(names)} if len(names) > 1 else {}),
            "parameters": size,
            "options": {name: getattr(stages, name) for name in OPTIONS}
            | {n: getattr(stages, n) for n, usual in SELDOM.items() if getattr(stages, n) != usual},
            "device": problem.device.type,
            "plan": problem.plan.to_json(),
        }
        population = self.settings.get("population")
        self.operators = {n: OperatorStages(problem, n, stages, population) for n in names}
        if stages.exact:
            check_dense(self.operator)

    @property
    def operator(self) -> ProblemOperator[Any]:
        """The first operator."""
        return next(iter(self.operators.values())).operator

    @property
    def products(self) -> int:
        """Matrix-vector products taken so far."""
        return sum(
            one.operator.products + one.products_of_layers for one in self.operators.values()
        )

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

        Of several processes (the problem's `group`) all compute, and rank 0 reads and writes.

        Returns:
            The spectrum. What was finished when an exception (Ctrl-C too) ended the work is on
            disk, and the same call goes on with the rest.

        Raises:
            SettingsDifferError: If the file holds another computation.
            LockedError: If another process writes the file.
            FileError: If it is none of ours.
        """
        bars = stage_bars(bar) if progress is True else nullcontext(progress or None)
        file = None if path is None or not self.problem.group.main else Path(path)
        with bars as report, nullcontext() if file is None else locked_file(file):
            return self._run(file, report, fresh)

    def _run(self, path: Path | None, progress: StageProgress | None, fresh: bool) -> SpectrumData:
        if path is not None and fresh:
            refuse_other_kind(path, "hessian")
        settings = {**self.settings, "loss_at_weights": self._loss_at_weights()}
        data = SpectrumData(settings)
        if path is not None and path.exists() and not fresh:
            data = read_spectrum(path)
            refuse_other_spectrum(path, data.settings, settings)
            data = dataclasses.replace(data, settings=self._with_added(data.settings))
        data = self.problem.group.share(data)
        begun = False
        for name, own in self.operators.items():
            found = data.operators.get(name, SpectrumData())
            stages = own.stages(found)
            missing = [stage for stage in stages if stage not in found.finished]
            if missing and not begun:
                Plan.from_json(data.settings["plan"]).apply()
                require_for_products(self.problem, self._vectors())
                if self.wanted.exact:
                    require(
                        exact_bytes(self.operator.size),
                        f"the dense matrix of {self.operator.size:,} parameters and its spectrum",
                        "choose fewer `parameters`, or leave `exact` out",
                    )
                begun = True
            with own.operator, closing(own):
                for stage in missing:
                    report = None if progress is None else self._reporting(progress, name, stage)
                    found = found.with_stage(stage, stages[stage](report))
                    data = self._noted(self._with(data, name, found))
                    if path is not None:
                        # A summary that is there is that of the file, also after a kill in between.
                        path.with_suffix(".json").unlink(missing_ok=True)
                        write_spectrum(path, data)
                        write_summary(path.with_suffix(".json"), data)
        if path is not None and not path.with_suffix(".json").exists():
            write_summary(path.with_suffix(".json"), data)
        return data

    def _with_added(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return settings of a file with what is added to it, which was not asked for at first."""
        asked = stored.get("asked")
        if not isinstance(asked, dict):
            return stored
        added = {name: True for name in ("layers", "classes") if getattr(self.wanted, name)}
        return {**stored, "asked": {**asked, **added}}

    def _noted(self, data: SpectrumData) -> SpectrumData:
        """Return the spectra with the plan that was left after running out of memory, if so."""
        plan = self.problem.plan.to_json()
        if plan == self.settings["plan"]:
            return data
        noted = {**data.settings, "plan_after_running_out_of_memory": plan}
        return dataclasses.replace(data, settings=noted)

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
        steps = min(wanted.steps, size, wanted.basis or size)
        return max(pairs, steps if wanted.probes else 0)

    def _with(self, data: SpectrumData, name: str, found: SpectrumData) -> SpectrumData:
        """Return the spectra with that of one operator replaced."""
        if name == self.settings["operator"]:
            return dataclasses.replace(found, settings=data.settings, others=data.others)
        own = dataclasses.replace(found, settings={**data.settings, "operator": name})
        return dataclasses.replace(data, others={**data.others, name: own})

    def _reporting(self, progress: StageProgress, name: str, stage: str) -> Progress:
        shown = stage if len(self.operators) == 1 else f"{name} {stage}"
        return lambda done, total: progress(shown, done, total)


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
