"""Spectra of a subject's Hessian and other matrices: from settings to the file."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoloss.experiments.devices import peak_memory, resolve_device
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.products import (
    seconds_of_product,
    stored_plan,
    warn_of_changed_plan,
)
from isoloss.experiments.reporting import Cost, Reporter, announcing, heard_by
from isoloss.experiments.settings import SpectrumSettings
from isoloss.experiments.trained import Trained, parameter_counts
from isoloss.hessian import Spectrum
from isoloss.hessian.asked import check_stages, smallest_of
from isoloss.hessian.layers import layer_parameters
from isoloss.hessian.operators.named import operator_names
from isoloss.landscape.batch_norm import check_policy
from isoloss.parallel.ranks import Group, local_device, process_group
from isoloss.records.progress import Progress, StageProgress, stage_bars
from isoloss.records.spectra import STAGES, SpectrumData
from isoloss.records.summary import summary


@dataclass(frozen=True)
class SpectrumResult:
    """A finished spectrum.

    Attributes:
        data: The spectrum.
        path: Its file; None where it is in memory only.
        products: Matrix-vector products that this call took.
        seconds: How long that took.
    """

    data: SpectrumData
    path: Path | None
    products: int
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return the numbers with their errors, JSON-able."""
        return {"file": self.path, **summary(self.data)}


class SpectrumExperiment:
    """The spectrum of a subject's Hessian or of other matrices.

    Args:
        subject: The network with its data and loss.
        settings: What to compute.
        path: An .h5 file; one called as the operators in the run's folder where None.
        fresh: Whether to start over where a spectrum is there already.

    Raises:
        UsageError: For settings that ask for nothing.
    """

    def __init__(
        self,
        subject: Trained,
        settings: SpectrumSettings,
        path: Path | str | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        check_spectrum(settings)
        self.subject, self.settings = subject, settings
        name = "-".join(operator_names(settings.operator))
        self.path = subject.file(f"{name}.h5") if path is None else Path(path)
        self.fresh = fresh

    def build(self, group: Group | None = None) -> Spectrum:
        """Assemble problem and operator; a spectrum that was begun lends its plan.

        Args:
            group: Several processes that share the samples.
        """
        plan = stored_plan(self.path, "hessian", fresh=self.fresh)
        problem = self.subject.problem(
            self.settings.split, self.settings, self.settings, plan, group
        )
        about = {**self.subject.notes_of_result(), "asked": asdict(self.settings)}
        return Spectrum(problem, self.settings, about=about)

    def run(self, reporter: Reporter | None = None, *, progress: bool = False) -> SpectrumResult:
        """Compute the stages that are not finished yet.

        Each is kept once it is finished: after an interruption the same call goes on. Several
        processes that torchrun started share the samples; all return the spectrum.

        Args:
            reporter: Told what happens.
            progress: Whether to show bars where there is no reporter.
        """
        with process_group(local_device(resolve_device(self.settings.device))) as group:
            return self._run(group, heard_by(reporter, progress))

    def _run(self, group: Group, reporter: Reporter) -> SpectrumResult:
        task = self.build(group)
        reporter.say(
            f"spectrum of {self.subject.label}: "
            f"{parameter_counts(self.subject.model, task.operator.size)}, "
            f"{task.problem.count:,} samples"
            + (f", {group.size} processes" if group.size > 1 else "")
        )
        began = time.monotonic()
        try:
            with stage_bars(reporter.progress) as bars:
                report = _announced(bars, reporter, self.settings, task)
                data = task.run(self.path, report, fresh=self.fresh)
        except KeyboardInterrupt:
            there = self.path is not None and self.path.exists()
            anew = ", the dense matrix from its beginning" if self.settings.exact else ""
            kept = f"what was finished is kept in {self.path}" if there else "nothing finished"
            raise ExperimentError(
                f"interrupted; {kept}\nthe same command goes on with the rest{anew}"
            ) from None
        warn_of_changed_plan(reporter, task.problem.plan, task.settings["plan"])
        return SpectrumResult(data, self.path, task.products, time.monotonic() - began)

    def cost(self) -> Cost:
        """Time a few products and scale up."""
        with process_group(local_device(resolve_device(self.settings.device))) as group:
            return self._cost(self.build(group))

    def _cost(self, task: Spectrum) -> Cost:
        stages = self.settings
        products = sum(expected_products(stages, task).values())
        each = sum(seconds_of_product(own.operator) for own in task.operators.values())
        count = len(task.operators)
        size = task.problem.dtype.itemsize * task.operator.size
        size *= (stages.top + smallest_of(stages)) * count * stages.eigenvectors
        return Cost(each * products, products * count, "products", size, peak_memory())


def check_spectrum(settings: SpectrumSettings) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    check_policy(settings.bn, settings.bn_batch)
    check_stages(settings)


def layers_of(task: Spectrum) -> int:
    """Return how many layers are measured, for each operator."""
    return len(layer_parameters(task.operator.shapes)) if task.wanted.layers else 0


def expected_products(stages: SpectrumSettings, task: Spectrum) -> dict[str, int]:
    """Return about how many products each stage takes.

    Eigenvalues take 4 to 6 each on trained networks, and the smallest, which stands nearer to the
    others, 16 to 42; the traces of H and of T H T may spend their budget, and T H T has one
    eigenvalue. A layer has an eigenvalue and may spend the budget twice. An exact spectrum takes as
    many as the network has parameters. Gradients of the classes are not counted.
    """
    of_layers = layers_of(task) * (30 + 2 * stages.trace_budget)
    if stages.exact:
        return {**dict.fromkeys(STAGES, 0), "exact": task.operator.size, "layers": of_layers}
    return {
        "exact": 0,
        "eigenpairs": 6 * stages.top + 30 * smallest_of(stages),
        "trace": stages.trace_budget,
        "scaled": 6 * (stages.top > 0) + stages.trace_budget,
        "density": stages.probes * stages.steps,
        "classes": 0,
        "layers": of_layers,
    }


def _announced(
    progress: StageProgress, reporter: Reporter, settings: SpectrumSettings, task: Spectrum
) -> StageProgress:
    """Say what the first stage and those after it will take, as its first products are timed."""
    products, names = expected_products(settings, task), operator_names(settings.operator)
    timed: dict[str, Progress] = {}

    def report(stage: str, done: int, total: int) -> None:
        progress(stage, done, total)
        if not timed:
            # A stage of one of several operators is called as the operator and the stage.
            name, _, of = stage.rpartition(" ")
            order = (*STAGES, "layers")
            left = sum(products[s] for s in order[order.index(of.partition("/")[0]) :])
            after = len(names) - 1 - (names.index(name) if name else 0)
            left += after * sum(products.values())
            advice = "fewer with `samples` or with smaller `trace_budget` and `probes`"
            timed[stage] = announcing(reporter, None, "products", advice, left)
        if stage in timed:
            timed[stage](done, total)

    return report
