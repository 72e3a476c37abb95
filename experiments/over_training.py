"""The curvature at the checkpoints of a training: from settings to the file."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isoloss.experiments.devices import peak_memory
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.kept_checkpoints import (
    kept_checkpoints,
    network_at,
    rates_after,
    subject_at,
)
from isoloss.experiments.options import OptionError
from isoloss.experiments.products import (
    seconds_of_product,
    stored_plan,
    warn_of_changed_plan,
)
from isoloss.experiments.reporting import Cost, Reporter, announcing, heard_by
from isoloss.experiments.settings import OverTrainingSettings
from isoloss.experiments.stability import Stability, only_for_reference, stability_of
from isoloss.experiments.train_options import stored_options
from isoloss.experiments.trained import Trained, parameter_counts
from isoloss.hessian.eigenpairs import Eigenpairs
from isoloss.hessian.operators.named import named_operator, operator_names
from isoloss.hessian.over_training import Moment, cold_pairs, curvature_at
from isoloss.hessian.spectrum import refuse_other_spectrum
from isoloss.hessian.stored import columns_of, stored_eigenpairs
from isoloss.landscape import Plan, Problem
from isoloss.landscape.batch_norm import check_policy
from isoloss.records.hdf5 import refuse_other_kind
from isoloss.records.identity import SettingsDifferError
from isoloss.records.locks import locked_file
from isoloss.records.over_training import (
    KIND,
    ColdStart,
    OverTrainingData,
    Row,
    over_training_summary,
    read_over_training,
    write_over_training,
    write_over_training_summary,
)
from isoloss.records.provenance import file_sha256

OPTIONS = ("top", "tol", "max_products", "trace_error", "trace_budget", "seed")


@dataclass(frozen=True)
class OverTrainingResult:
    """The curvature over a training.

    Attributes:
        data: The numbers.
        path: Their file.
        products: Matrix-vector products that this call took.
        seconds: How long that took.
    """

    data: OverTrainingData
    path: Path
    products: int
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return the numbers, JSON-able."""
        return {"file": self.path, **over_training_summary(self.data)}


class OverTrainingExperiment:
    """Largest eigenvalues, and the trace, at the checkpoints of a run.

    The search at each checkpoint begins from the eigenvectors at the one before. At the last, the
    eigenvalues are computed once more from a random start, which shows what that saves and that
    both agree.

    Args:
        subject: The run's network with its data and loss, at any of its checkpoints.
        settings: What to compute.
        path: An .h5 file; OPERATOR-over-training.h5 in the run's folder where None.
        fresh: Whether to start over where one is there already.

    Attributes:
        checkpoints: Those asked for, by epoch.
        path: The file.

    Raises:
        ExperimentError: If the run kept no checkpoints of epochs.
        OptionError: For epochs that were not kept, or several operators.
    """

    def __init__(
        self,
        subject: Trained,
        settings: OverTrainingSettings,
        path: Path | str | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        check_policy(settings.bn, settings.bn_batch)
        if len(operator_names(settings.operator)) != 1:
            raise OptionError("operator", f"expected one along a training, got {settings.operator}")
        if subject.run is None:
            raise ExperimentError("expected a run, whose checkpoints to measure at, got none")
        self.settings, self.fresh, run = settings, fresh, subject.run
        self.checkpoints = kept_checkpoints(run, settings.epochs or "all")
        self.subject = subject_at(subject, next(iter(self.checkpoints.values())))
        name = f"{settings.operator}-over-training.h5"
        self.path = run.path / name if path is None else Path(path)
        self.options = stored_options(run)
        self.stability = self._stability()
        size = len(subject.splits["train"])
        self.steps_per_epoch = math.ceil(size / min(self.options.batch_size or size, size))
        rates = rates_after(run, [*self.checkpoints], self.options.lr or math.nan)
        self._rates = dict(zip(self.checkpoints, rates, strict=True))
        self._products = 0

    def run(
        self, reporter: Reporter | None = None, *, progress: bool = False
    ) -> OverTrainingResult:
        """Measure at the checkpoints that are not finished yet.

        Each is kept once it is finished: after an interruption the same call goes on. It also goes
        on with checkpoints that a longer training has added.

        Args:
            reporter: Told what happens.
            progress: Whether to show a bar where there is no reporter.

        Raises:
            SettingsDifferError: If the file holds another computation.
            LockedError: If another process writes the file.
            FileError: If it is none of ours.
        """
        reporter = heard_by(reporter, progress)
        problem = self._problem()
        reporter.say(
            f"curvature of {self.subject.label} at {len(self.checkpoints)} checkpoints: "
            f"{parameter_counts(self.subject.model)}, {problem.count:,} samples"
        )
        began = time.monotonic()
        try:
            with locked_file(self.path):
                data = self._run(problem, reporter)
        except KeyboardInterrupt:
            kept = f"what was finished is kept in {self.path}"
            raise ExperimentError(
                f"interrupted; {kept if self.path.exists() else 'nothing finished'}\n"
                "the same command goes on with the rest"
            ) from None
        return OverTrainingResult(data, self.path, self._products, time.monotonic() - began)

    def cost(self) -> Cost:
        """Time a few products and scale up."""
        settings, problem = self.settings, self._problem()
        operator = named_operator(problem, settings.operator, settings.seed)
        each = seconds_of_product(operator)
        # About what the digits take, whose largest eigenvalues stand apart.
        products = (10 + 4 * settings.top + settings.trace_budget) * len(self.checkpoints)
        size = problem.dtype.itemsize * operator.size * settings.top
        return Cost(each * products, products, "products", size, peak_memory())

    def _problem(self) -> Problem:
        """Return the loss at the first checkpoint; a file that was begun lends its plan."""
        plan = stored_plan(self.path, KIND, fresh=self.fresh)
        return self.subject.problem(self.settings.split, self.settings, self.settings, plan)

    def _stability(self) -> Stability:
        found = stability_of(self.options, self.subject.model)
        if self.settings.operator != "hessian":
            return Stability("none: it is one of the Hessian", None, found.shift)
        return found

    def _settings(self, problem: Problem) -> dict[str, Any]:
        """Return everything that identifies the computation, as it is stored."""
        moved = sum(tensor.numel() for tensor in problem.parameters.values())
        trained = sum(p.numel() for p in self.subject.model.parameters() if p.requires_grad)
        samples = problem.count if self.settings.split == "train" else 0
        whole = (samples, moved) == (len(self.subject.splits["train"]), trained)
        return {
            **self.subject.notes_of_result(),
            "asked": asdict(self.settings),
            **problem.identity(),
            "operator": self.settings.operator,
            "parameters": moved,
            "options": {name: getattr(self.settings, name) for name in OPTIONS},
            "device": problem.device.type,
            "plan": problem.plan.to_json(),
            "stability": {
                "rule": self.stability.rule,
                "shift": self.stability.shift,
                "for_reference": only_for_reference(
                    self.options, self.subject, self.steps_per_epoch, whole, self.settings.bn
                ),
            },
            "loss_at_weights": problem.evaluate().loss,
        }

    def _begun(self, settings: dict[str, Any]) -> OverTrainingData:
        """Return what is finished already, with learning rates and thresholds as they are known."""
        if self.fresh:
            refuse_other_kind(self.path, KIND)
        if self.fresh or not self.path.exists():
            return OverTrainingData(settings)
        data = read_over_training(self.path)
        refuse_other_spectrum(self.path, data.settings, settings)
        stored = {row.epoch: row.checkpoint for row in data.rows}
        begun = list(self.checkpoints.items())[: len(stored)]
        if list(stored) != [epoch for epoch, _ in begun]:
            raise _differs(
                self.path, f"epochs (stored {_listed(stored)}, now {_listed(self.checkpoints)})"
            )
        if changed := [epoch for epoch, file in begun if stored[epoch] != file_sha256(file)]:
            raise _differs(self.path, f"the checkpoint of epoch {changed[0]}")
        rows = tuple(
            dataclasses.replace(row, **self._known(row.epoch, row.gradient_norm))
            for row in data.rows
        )
        finished = len(rows) == len(self.checkpoints)
        return dataclasses.replace(data, rows=rows, cold=data.cold if finished else None)

    def _run(self, problem: Problem, reporter: Reporter) -> OverTrainingData:
        data = self._begun(self._settings(problem))
        Plan.from_json(data.settings["plan"]).apply()
        total, model = len(self.checkpoints), self.subject.model
        shapes = {name: tuple(tensor.shape) for name, tensor in problem.parameters.items()}
        shift = self.stability.shift
        with reporter.progress("checkpoints") as bar:
            report = announcing(reporter, bar, "checkpoints", "fewer with `epochs` or `samples`")
            for index, (epoch, file) in list(enumerate(self.checkpoints.items()))[len(data.rows) :]:
                # Made of the one before, whose plan it goes on with where memory ran out.
                problem = problem.at(network_at(model, file))
                moment = curvature_at(
                    problem,
                    self.settings,
                    shift=shift,
                    index=index,
                    before=_begin_from(data.eigenvectors),
                )
                vectors = data.eigenvectors
                if moment.pairs is not None and bool(moment.pairs.eigenvectors.isfinite().all()):
                    vectors = stored_eigenpairs(moment.pairs, shapes).eigenvectors
                row = self._row(epoch, file, moment)
                rows = (*data.rows, row)
                data = dataclasses.replace(data, rows=rows, eigenvectors=vectors)
                data = _noted(data, problem.plan)
                self._keep(data)
                report(index + 1, total)
        if data.cold is None and total > 1 and np.isfinite(data.rows[-1].eigenvalues).all():
            problem = problem.at(network_at(model, self.checkpoints[data.rows[-1].epoch]))
            pairs = cold_pairs(problem, self.settings, shift=shift)
            self._products += pairs.products
            found = stored_eigenpairs(pairs)
            cold = ColdStart(found.eigenvalues, found.residuals, pairs.products)
            data = _noted(dataclasses.replace(data, cold=cold), problem.plan)
            self._keep(data)
        elif not self.path.with_suffix(".json").exists():
            self._keep(data)
        warn_of_changed_plan(reporter, problem.plan, data.settings["plan"])
        return data

    def _keep(self, data: OverTrainingData) -> None:
        # A summary that is there is that of the file, also after a kill in between.
        self.path.with_suffix(".json").unlink(missing_ok=True)
        write_over_training(self.path, data)
        write_over_training_summary(self.path.with_suffix(".json"), data)

    def _row(self, epoch: int, file: Path, moment: Moment) -> Row:
        pairs, trace = moment.pairs, moment.trace
        nothing = np.full(self.settings.top, np.nan)
        self._products += 0 if pairs is None else pairs.products
        self._products += 0 if trace is None else trace.products
        return Row(
            epoch=epoch,
            step=epoch * self.steps_per_epoch,
            checkpoint=file_sha256(file),
            loss=moment.loss,
            gradient_norm=moment.gradient_norm,
            eigenvalues=nothing if pairs is None else pairs.eigenvalues.cpu().numpy(),
            residuals=nothing if pairs is None else pairs.residuals.cpu().numpy(),
            converged=pairs is not None and pairs.converged,
            products=0 if pairs is None else pairs.products,
            trace=math.nan if trace is None else trace.value,
            trace_standard_error=math.nan if trace is None else trace.standard_error,
            **self._known(epoch, moment.gradient_norm),
        )

    def _known(self, epoch: int, gradient_norm: float) -> dict[str, Any]:
        """Return what is known of a row without a measurement, or from one before."""
        rate, rule = self._rates[epoch], self.stability.threshold
        known = rule is not None and math.isfinite(gradient_norm)
        value = rule(rate, gradient_norm) if rule is not None and known else math.nan
        return {"learning_rate": rate, "threshold": value}


def _begin_from(vectors: Mapping[str, np.ndarray]) -> Eigenpairs | None:
    """Return stored eigenvectors as pairs to begin from.

    Those of an uninterrupted computation take the same way, so that both have the same bytes.
    """
    if not vectors:
        return None
    columns = columns_of(vectors)
    unknown = torch.full((columns.shape[1],), torch.nan, dtype=torch.float64)
    return Eigenpairs(unknown, unknown, columns, None, None, None, True, "stored", 0)


def _noted(data: OverTrainingData, plan: Plan) -> OverTrainingData:
    """Return the curvature with the plan that was left after running out of memory, if so."""
    if plan.to_json() == data.settings["plan"]:
        return data
    noted = {**data.settings, "plan_after_running_out_of_memory": plan.to_json()}
    return dataclasses.replace(data, settings=noted)


def _differs(path: Path, what: str) -> SettingsDifferError:
    return SettingsDifferError(
        f"expected {path} to hold this computation, but it differs in {what}\n"
        "write to another file (`out`), or start over in place of this one (`force`)"
    )


def _listed(epochs: Iterable[int]) -> str:
    texts = [str(epoch) for epoch in epochs]
    return ", ".join(texts if len(texts) <= 4 else [*texts[:3], "..", texts[-1]])
