"""What is computed at each point of a surface: measures, each of which fills one column or more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.landscape.objective import Metric
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import norm
from isoloss.records.surface_reading import NO_COLUMNS

# The problems of a surface by split, and a point: a tensor for each moved parameter, and for
# buffers that differ from the network's.
Problems = Mapping[str, Problem]
Point = Mapping[str, Tensor]


class ColumnError(IsolossError, ValueError):
    """Columns that cannot stand in one file."""


class Measure(Protocol):
    """What is computed at a point, by the names of its columns.

    A value depends on the point alone, never on the points before it: a surface that is resumed
    then has the same bytes. Where a value cannot be had because the loss is not finite it is NaN.
    The point's tensors become those of the next point: what keeps them copies them.
    """

    def names(self, problems: Problems) -> tuple[str, ...]:
        """Return the names of the columns, `train_loss`, `max_eig`, .."""

    def values(self, problems: Problems, point: Point) -> tuple[float, ...]:
        """Return a value for each name."""

    def settings(self) -> dict[str, Any]:
        """Return what identifies it, JSON-able; empty for what every surface has."""


class LossAndAccuracy:
    """Loss, accuracy in percent, and metrics of one's own, of every split and in one pass.

    The columns of a split are `<split>_loss`, `<split>_acc` and `<split>_<metric>`; where its
    samples are a part of it, there are standard errors `<split>_loss_se` and `<split>_<metric>_se`.

    Args:
        metrics: By name, `metric(outputs, targets) -> (batch,)`, or a pair (sums, weights): a mean
            over samples as the loss. With a closure in place of a loss it is
            `metric(model, batch)`.
        about: What identifies the metrics, JSON-able.

    Raises:
        ColumnError: For names that mean something else.
    """

    def __init__(
        self, metrics: Mapping[str, Metric] | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        self.metrics, self._about = dict(metrics or {}), dict(about or {})
        for name in self.metrics:
            if not name.isidentifier() or name in ("loss", "acc") or name.endswith("_se"):
                raise ColumnError(
                    f"expected a name for a metric that is a word, and not loss, acc or .._se, "
                    f"got {name!r}"
                )

    def names(self, problems: Problems) -> tuple[str, ...]:
        """Return the names of the columns, split after split."""
        found: list[str] = []
        for split, problem in problems.items():
            sampled = _sampled(problem)
            found += [f"{split}_loss", f"{split}_acc", *([f"{split}_loss_se"] * sampled)]
            for name in self.metrics:
                found += [f"{split}_{name}", *([f"{split}_{name}_se"] * sampled)]
        return tuple(found)

    def values(self, problems: Problems, point: Point) -> tuple[float, ...]:
        """Return a value for each name."""
        found: list[float] = []
        for problem in problems.values():
            sampled = _sampled(problem)
            result = problem.evaluate(point, tuple(self.metrics.values()))
            found += [result.loss, 100.0 * result.accuracy, *([result.sampling_error] * sampled)]
            for value, error in zip(result.metrics, result.metric_errors, strict=True):
                found += [value, *([error] * sampled)]
        return tuple(found)

    def settings(self) -> dict[str, Any]:
        """Return the names of the metrics and what identifies them."""
        if not self.metrics:
            return {}
        return {"metrics": {name: self._about.get(name) for name in self.metrics}}


class GradientNorm:
    """`grad_norm`, the Euclidean norm of the gradient of the loss of the first split."""

    def names(self, problems: Problems) -> tuple[str, ...]:
        """Return the name of the column."""
        return ("grad_norm",)

    def values(self, problems: Problems, point: Point) -> tuple[float, ...]:
        """Return the norm, summed in float64."""
        return (norm(first(problems).gradient(point)),)

    def settings(self) -> dict[str, Any]:
        """Return that it is there."""
        return {"grad_norm": {}}


def first(problems: Problems) -> Problem:
    """Return the problem of the first split, which columns without a split's name are of."""
    return next(iter(problems.values()))


def names_of(measures: Sequence[Measure], problems: Problems) -> list[str]:
    """Return the names of all columns, in order.

    Raises:
        ColumnError: If two are the same, or one is that of something else in a file.
    """
    names = [name for measure in measures for name in measure.names(problems)]
    for index, name in enumerate(names):
        if name in names[:index] or name in NO_COLUMNS or not name.isidentifier():
            raise ColumnError(
                f"expected columns of different names that nothing else in a file has, got "
                f"{', '.join(names)}: {name} is taken\nrename the metric"
            )
    return names


def _sampled(problem: Problem) -> bool:
    """Whether a problem's samples are a part of its split, so that its means have an error."""
    return problem.sample is not None and problem.sample.partial
