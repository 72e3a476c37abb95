"""Curvature along a training, in anybody's loop."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from isoloss.hessian.eigenpairs import Eigenpairs
from isoloss.hessian.operators.named import named_operator, operator_names
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.over_training import largest_pairs
from isoloss.hessian.trace import trace as estimate_trace
from isoloss.landscape.problem import Problem
from isoloss.records.json_text import to_json
from isoloss.records.tables import data_frame

if TYPE_CHECKING:
    import pandas as pd


class ScalarWriter(Protocol):
    """What takes scalars, as TensorBoard's `SummaryWriter` does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class Measurement:
    """The curvature at one step.

    Attributes:
        step: Of the training.
        loss: Of the problem's samples at these weights, not that of a mini-batch.
        eigenvalues: Largest ones, descending.
        residuals: Of the eigenvalues.
        converged: Whether these met the tolerance.
        trace: None if not asked for.
        trace_standard_error: Over random probes; None with it.
        products: Products that it took.
        seconds: Time that it took.
    """

    step: int
    loss: float
    eigenvalues: list[float]
    residuals: list[float]
    converged: bool
    trace: float | None
    trace_standard_error: float | None
    products: int
    seconds: float


@dataclass
class CurvatureMonitor:
    """Measures the largest eigenvalues, and the trace, as a network is trained.

    `monitor(step, model)` measures at every `every`-th step, on a copy. The training goes on as if
    it had not been called: parameters, gradients, buffers, modes, and the states of the random
    number generators of torch, NumPy and Python are bit for bit what they were. Eigenvectors of a
    measurement begin the search of the next one, beside a random vector (`warm_start`).

    Example:
        problem = Problem(model, nn.CrossEntropyLoss(), [(x[:1000], y[:1000])])
        monitor = CurvatureMonitor(problem, every=50, file="curvature.jsonl")
        for step, (inputs, targets) in enumerate(loader):
            ...
            optimizer.step()
            monitor(step, model)

    Args:
        problem: The loss over fixed samples, of a network of the same architecture.
        every: Steps from one measurement to the next; at step 0, too.
        top: Eigenvalues, 1 or more.
        trace: Products to spend on the trace; 0 for none.
        file: Where each measurement is appended as a line of JSON as soon as it is made.
        operator: Of `hessian.operators.named`.
        tol: Residual asked for, relative to the eigenvalue.
        max_products: Products to spend on eigenvalues at one step.
        seed: Of random vectors.
        writer: What takes scalars, TensorBoard's `SummaryWriter`, say: `curvature/lambda_max`,
            `curvature/trace`, `curvature/loss`.

    Attributes:
        measurements: Those made so far.

    Raises:
        OperatorError: For numbers out of range.
        OperatorNameError: For an unknown operator.
    """

    problem: Problem
    every: int = 100
    top: int = 1
    trace: int = 0
    file: Path | str | None = None
    operator: str = "hessian"
    tol: float | None = None
    max_products: int = 300
    seed: int = 0
    writer: ScalarWriter | None = None
    measurements: list[Measurement] = field(default_factory=list, init=False)
    _before: Eigenpairs | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.every < 1 or self.top < 1 or self.trace < 0:
            raise OperatorError(
                "expected `every` and `top` of 1 or more and `trace` of 0 or more, got "
                f"{self.every}, {self.top} and {self.trace}"
            )
        if len(operator_names(self.operator)) != 1:
            raise OperatorError(f"expected one operator, got {self.operator!r}")

    def __call__(self, step: int, model: nn.Module | Mapping[str, Tensor]) -> Measurement | None:
        """Measure, if it is time.

        Args:
            step: Of the training, from 0.
            model: The network as it is now, in any mode, or its state dictionary.

        Returns:
            The measurement; None between two of them.
        """
        if step % self.every:
            return None
        began = time.monotonic()
        with _undisturbed():
            found = self._measure(step, self.problem.at(model), began)
        self.measurements.append(found)
        self._write(found)
        return found

    def to_dataframe(self) -> pd.DataFrame:
        """Return a pandas data frame with a row for each measurement."""
        rows = [
            {
                **{k: v for k, v in asdict(one).items() if not isinstance(v, list)},
                **{f"lambda_{i + 1}": value for i, value in enumerate(one.eigenvalues)},
            }
            for one in self.measurements
        ]
        return data_frame(rows or {"step": []})

    def _measure(self, step: int, problem: Problem, began: float) -> Measurement:
        loss = problem.evaluate().loss
        if not math.isfinite(loss):
            nothing = [math.nan] * self.top
            spent = time.monotonic() - began
            return Measurement(step, loss, nothing, nothing, False, None, None, 0, spent)
        # Of one seed, each measurement has random vectors of its own.
        seed = self.seed + len(self.measurements)
        with named_operator(problem, self.operator, self.seed) as operator:
            pairs = largest_pairs(operator, self, seed, self._before)
            found = None
            if self.trace:
                found = estimate_trace(operator, budget=self.trace, seed=seed)
            finite = bool(torch.isfinite(pairs.eigenvectors).all())
            self._before = pairs if finite else self._before
            return Measurement(
                step,
                loss,
                pairs.eigenvalues.tolist(),
                pairs.residuals.tolist(),
                pairs.converged,
                None if found is None else found.value,
                None if found is None else found.standard_error,
                operator.products,
                time.monotonic() - began,
            )

    def _write(self, found: Measurement) -> None:
        if self.file is not None:
            path = Path(self.file)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(to_json(found)) + "\n")
        if self.writer is not None:
            self.writer.add_scalar("curvature/loss", found.loss, found.step)
            self.writer.add_scalar("curvature/lambda_max", found.eigenvalues[0], found.step)
            if found.trace is not None:
                self.writer.add_scalar("curvature/trace", found.trace, found.step)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Give back gradient mode and random number generators as they were."""
    # NumPy's global generator is what other people's loops use.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
