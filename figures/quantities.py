"""The numbers that a comparison sets side by side, each with its errors, of one run or of several.

A column of the table is a `Quantity`: where its value, errors and marks are read from. Runs that
differ in their seeds alone may form a `ComparisonGroup`, of which medians and ranges are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from isoloss.records.spectra import SpectrumData
    from isoloss.records.surfaces import SurfaceData

Value = str | float | bool | None


@dataclass(frozen=True)
class ComparisonRow:
    """One run of a comparison and what is known of it; anything but the names may be missing.

    Attributes:
        label: What the figure calls the run.
        optimizer: Name of the optimizer; decides colour and line style.
        run: The run's name, or how else the command line knows it; None repeats the label.
        surface: A 2-D surface.
        curve: A 1-D surface; None takes the row y = 0 of `surface` where the grid has it.
        hessian: Eigenvalues, trace and density, each of which may be missing.
        accuracy: Test accuracy as a fraction.
        accuracy_se: Its standard error over test samples, as a fraction.
        test_loss: Mean test loss.
        test_loss_se: Its standard error over test samples.
        accuracy_interval: 95 % interval of the accuracy, as fractions.
        clusters: Number of groups of test samples that errors of test scores are clustered by; None
            where samples are taken as independent.
    """

    label: str
    optimizer: str
    run: str | None = None
    surface: SurfaceData | None = None
    curve: SurfaceData | None = None
    hessian: SpectrumData | None = None
    accuracy: float | None = None
    accuracy_se: float | None = None
    test_loss: float | None = None
    test_loss_se: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    clusters: int | None = None

    @property
    def name(self) -> str:
        """How the command line knows the run."""
        return self.run or self.label


@dataclass(frozen=True)
class ComparisonGroup:
    """Runs that are shown as one: a single run, or several seeds.

    Attributes:
        label: What the figure calls them.
        rows: The runs, one or more.
    """

    label: str
    rows: tuple[ComparisonRow, ...]

    @property
    def optimizer(self) -> str:
        """The optimizer of the first run, which decides colour and line style."""
        return self.rows[0].optimizer

    @property
    def several(self) -> bool:
        """Whether there is more than one run."""
        return len(self.rows) > 1


def single(rows: Sequence[ComparisonRow]) -> list[ComparisonGroup]:
    """Return each run as a group of its own."""
    return [ComparisonGroup(row.label, (row,)) for row in rows]


@dataclass(frozen=True)
class Reading:
    """One number of one run.

    Attributes:
        value: The number; None where it is not known.
        error: Its standard error: of accuracies and losses over test samples, of traces over
            probes.
        sample_error: Its standard error over draws of the samples it was measured on; None where
            every sample was used, too.
        residual: ||A u - lambda u|| of an eigenvalue.
        interval: 95 % interval.
        converged: Whether error or residual met what was asked; None where that is not known.
    """

    value: float | None = None
    error: float | None = None
    sample_error: float | None = None
    residual: float | None = None
    interval: tuple[float, float] | None = None
    converged: bool | None = None


@dataclass(frozen=True)
class Quantity:
    """A column.

    Attributes:
        key: Its name in CSV and JSON.
        heading: Its name on the figure.
        read: What it is of a run.
        parts: Errors and marks that are stored beside the value, as CSV name by `Reading` field.
        percent: Whether the value is a fraction that is printed in percent.
    """

    key: str
    heading: str
    read: Callable[[ComparisonRow], Reading]
    parts: dict[str, str]
    percent: bool = False


def _accuracy(row: ComparisonRow) -> Reading:
    return Reading(row.accuracy, row.accuracy_se, interval=row.accuracy_interval)


def _test_loss(row: ComparisonRow) -> Reading:
    return Reading(row.test_loss, row.test_loss_se)


def _measured_loss(row: ComparisonRow) -> Reading:
    """Return the loss at the weights on the samples that curvature, or else the surface, is of."""
    if row.hessian is not None and "loss_at_weights" in row.hessian.settings:
        return Reading(float(row.hessian.settings["loss_at_weights"]))
    for stored in (row.surface, row.curve):
        if stored is not None and "train_loss" in stored.origin:
            return Reading(float(stored.origin["train_loss"]))
    return Reading()


def _lambda_max(row: ComparisonRow) -> Reading:
    pairs = None if row.hessian is None else row.hessian.eigenpairs
    if pairs is None or not len(pairs.eigenvalues):
        return Reading()
    errors = pairs.sample_standard_error
    return _eigenvalue(
        pairs.account,
        float(pairs.eigenvalues[0]),
        float(pairs.residuals[0]),
        None if errors is None else float(errors[0]),
    )


def _lambda_min(row: ComparisonRow) -> Reading:
    pairs = None if row.hessian is None else row.hessian.eigenpairs
    if pairs is None or pairs.smallest_eigenvalues is None or pairs.smallest_residuals is None:
        return Reading()
    value, residual = float(pairs.smallest_eigenvalues[0]), float(pairs.smallest_residuals[0])
    return _eigenvalue(pairs.account, value, residual)


def _eigenvalue(
    account: dict[str, Any], value: float, residual: float, sample_error: float | None = None
) -> Reading:
    """Return an eigenvalue, which may have met its tolerance where others of the run did not."""
    converged = account.get("converged")
    if converged is False and "settings" in account:
        tolerance = account["settings"].get("tol")
        converged = residual <= (_TOLERANCE if tolerance is None else tolerance) * abs(value)
    return Reading(value, residual=residual, sample_error=sample_error, converged=converged)


def _trace(row: ComparisonRow) -> Reading:
    trace = None if row.hessian is None else row.hessian.trace
    if trace is None:
        return Reading()
    return Reading(
        float(trace.estimate),
        float(trace.standard_error),
        trace.sample_standard_error,
        converged=trace.account.get("converged"),
    )


def _scaled_lambda_max(row: ComparisonRow) -> Reading:
    scaled = None if row.hessian is None else row.hessian.scaled
    if scaled is None or scaled.eigenvalue is None:
        return Reading()
    account = scaled.account.get("eigenvalue", {})
    return Reading(scaled.eigenvalue, residual=scaled.residual, converged=account.get("converged"))


def _scaled_trace(row: ComparisonRow) -> Reading:
    scaled = None if row.hessian is None else row.hessian.scaled
    if scaled is None or scaled.trace is None:
        return Reading()
    account = scaled.account.get("trace", {})
    return Reading(scaled.trace, scaled.trace_standard_error, converged=account.get("converged"))


_TOLERANCE = 1e-4  # of an eigenvalue, where none was asked for
_EIGENVALUE = {"residual": "residual", "converged": "converged"}
_TRACE = {"se": "error", "converged": "converged"}
QUANTITIES = (
    Quantity("accuracy", "test accuracy (%)", _accuracy, {"se": "error"}, percent=True),
    Quantity("test_loss", "test loss", _test_loss, {"se": "error"}),
    Quantity("measured_loss", "train loss", _measured_loss, {}),
    Quantity("lambda_max", "λmax", _lambda_max, {"sample_se": "sample_error", **_EIGENVALUE}),
    Quantity("lambda_min", "λmin", _lambda_min, _EIGENVALUE),
    Quantity("trace", "trace", _trace, {"sample_se": "sample_error", **_TRACE}),
    Quantity("scaled_lambda_max", "λmax of THT", _scaled_lambda_max, _EIGENVALUE),
    Quantity("scaled_trace", "trace of THT", _scaled_trace, _TRACE),
)


@dataclass(frozen=True)
class Summary:
    """What several runs say of one quantity.

    Attributes:
        runs: Runs whose value is known and finite.
        median: Median over them.
        low: Smallest value.
        high: Largest value.
        converged: False where one of the values did not converge.
    """

    runs: int
    median: float
    low: float
    high: float
    converged: bool | None


def summarise(quantity: Quantity, rows: Sequence[ComparisonRow]) -> Summary | None:
    """Return median and range of a quantity over runs; None where no value is known."""
    readings = [reading for row in rows if (reading := quantity.read(row)).value is not None]
    values = [r.value for r in readings if r.value is not None and math.isfinite(r.value)]
    if not values:
        return None
    failed = any(reading.converged is False for reading in readings)
    return Summary(
        len(values),
        float(np.median(values)),
        min(values),
        max(values),
        False if failed else None,
    )


def comparison_table(groups: Sequence[ComparisonGroup]) -> list[dict[str, Value]]:
    """Return the numbers of a comparison, unrounded, one dictionary a run; None where not known.

    Accuracies are fractions. `lambda_max_residual` is ||H u - lambda u|| of the unit eigenvector.
    `.._converged` says whether residual or standard error met what was asked of them; `.._se` is a
    standard error over test samples or probes, `.._sample_se` one over draws of the samples that
    curvature was measured on.
    """
    table: list[dict[str, Value]] = []
    for group in groups:
        for row in group.rows:
            cells: dict[str, Value] = {
                "run": row.name,
                "label": row.label,
                "group": group.label,
                "optimizer": row.optimizer,
            }
            for quantity in QUANTITIES:
                reading = quantity.read(row)
                cells[quantity.key] = reading.value
                for name, part in quantity.parts.items():
                    cells[f"{quantity.key}_{name}"] = getattr(reading, part)
            low, high = row.accuracy_interval or (None, None)
            table.append({**cells, "accuracy_low": low, "accuracy_high": high})
    return table


def group_table(groups: Sequence[ComparisonGroup]) -> list[dict[str, Any]]:
    """Return medians and ranges over the runs of each group, unrounded, one dictionary a group."""
    return [
        {
            "group": group.label,
            "runs": [row.name for row in group.rows],
            **{
                quantity.key: summary and vars(summary)
                for quantity in QUANTITIES
                for summary in [summarise(quantity, group.rows)]
            },
        }
        for group in groups
    ]
