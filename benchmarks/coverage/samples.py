"""Errors of curvature over draws of the samples: 500 of the digits against all 1,293, for one.

The largest eigenvalue of a draw is compared with that of the whole split. It lies above it on
average; rows say which bias was subtracted: none, the one stated for the draw, or the mean of
those. The error is of first order, which is claimed where the gap to the next eigenvalue exceeds
four standard errors. The trace of a draw is exact; its standard error is estimated as `hessian`
does, from four probes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from benchmarks.coverage.judgement import Row, of_errors
from benchmarks.coverage.networks import OPTIMIZERS, digits, problem_of, trained
from isoloss.datasets import proportional_indices
from isoloss.datasets.splits import TensorSplit
from isoloss.hessian import (
    HessianOperator,
    sample_error,
    sampling_bias,
    top_eigenpairs,
    trace_sample_error,
)
from isoloss.landscape import Problem

REPEATS = 200
SIZE = 500
SIMPLE_GAP = 4.0  # standard errors


@dataclass(frozen=True, eq=False)
class Draw:
    """A draw of samples and what it says.

    Attributes:
        chosen: (500,) positions.
        eigenvalue: The largest.
        error: Its standard error over draws.
        bias: By how much it lies above that of all samples, as stated.
        trace_error: Standard error of the trace over draws.
    """

    chosen: NDArray[np.int64]
    eigenvalue: float
    error: float
    bias: float
    trace_error: float


def positions(targets: Tensor, how: str, seed: int) -> Tensor:
    """Return the positions of 500 samples, at random or each class in proportion."""
    if how == "proportional":
        return proportional_indices(targets, SIZE, seed)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    return order[:SIZE].sort().values


def sample_traces(model: nn.Module, split: TensorSplit) -> NDArray[np.float64]:
    """Return tr H_i of each sample, exactly.

    Outputs f of such a network are linear in each single weight, so that a diagonal entry of H_i
    is j^T P j with j = df/dw and P = diag(p) - p p^T the curvature of the cross-entropy.
    """
    weights = {name: weight.detach().double() for name, weight in model.named_parameters()}

    def outputs(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, weights, (image[None],))[0]

    images = split.inputs.double()
    slopes = vmap(jacrev(outputs), (None, 0))(weights, images)
    J = torch.cat([part.flatten(2) for part in slopes.values()], dim=2)
    p = vmap(outputs, (None, 0))(weights, images).softmax(1)[:, :, None]
    traces = (p * J.square()).sum((1, 2)) - (p * J).sum(1).square().sum(1)
    return traces.numpy()


def measured(whole: Problem, chosen: Tensor) -> Draw:
    """Return what the samples at some positions say of the whole."""
    part = whole.part(chosen)
    with HessianOperator(part) as operator:
        pairs = top_eigenpairs(operator, 1)
    value, vector = float(pairs.eigenvalues[0]), pairs.eigenvectors[:, 0]
    return Draw(
        chosen.numpy(),
        value,
        sample_error(part, vector, population=whole.count).standard_error,
        sampling_bias(part, value, population=whole.count),
        trace_sample_error(part, population=whole.count).standard_error,
    )


def regression() -> Problem:
    """Return a problem of 2,000 samples whose largest eigenvalue stands apart.

    A network of 3-4-1 units with its first weights, squared errors of noisy linear responses.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = 0.5 + torch.randn(2000, 3, generator=generator)
    y = x[:, :1] + torch.randn(2000, 1, generator=generator)
    return Problem(model, nn.MSELoss(), [(x, y)])


def eigenvalue_rows(case: str, whole: Problem, draws: Sequence[Draw]) -> Iterator[Row]:
    """Yield the rows of the largest eigenvalue of one problem."""
    with HessianOperator(whole) as operator:
        first, second = top_eigenpairs(operator, 2).eigenvalues.tolist()
    values, errors, biases = np.array([(d.eigenvalue, d.error, d.bias) for d in draws]).T
    gap = float((first - second) / errors.mean())
    note = f"gap {gap:.1f} s.e.; mean error {np.mean(values - first):+.2g}, bias stated "
    for which, bias in {"none": 0.0, "its own": biases, "mean": biases.mean()}.items():
        yield of_errors(
            f"{case}: lambda {first:.3g}",
            f"less bias: {which}",
            values - bias - first,
            errors,
            freedom=SIZE - 1,
            asked=which == "its own" and gap > SIMPLE_GAP,
            note=f"{note}{biases.mean():+.2g} ± {biases.std():.2g}",
        )


def trace_row(case: str, traces: NDArray[np.float64], draws: Sequence[Draw]) -> Row:
    """Return the row of the trace, from the traces of the single samples."""
    exact = float(traces.mean())
    errors = [traces[draw.chosen].mean() - exact for draw in draws]
    claimed = [draw.trace_error for draw in draws]
    return of_errors(f"{case}: trace {exact:.3g}", "4 probes", errors, claimed, freedom=SIZE - 1)


def rows(repeats: int | None = None) -> Iterator[Row]:
    """Yield the rows of SGD's and SAM's network, drawn both ways, and of a regression."""
    count = repeats or REPEATS
    split = digits()
    for name in OPTIMIZERS:
        whole, traces = problem_of(trained(name), split), sample_traces(trained(name), split)
        for how in ("random", "proportional"):
            draws = [measured(whole, positions(split.targets, how, seed)) for seed in range(count)]
            case = f"{name.upper()}, {how}"
            yield from eigenvalue_rows(case, whole, draws)
            yield trace_row(case, traces, draws)
    whole = regression()
    draws = [
        measured(whole, positions(torch.empty(whole.count), "random", seed))
        for seed in range(count)
    ]
    yield from eigenvalue_rows("regression, random", whole, draws)
