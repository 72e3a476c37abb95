"""Standard errors of traces, on the Hessians of two networks trained on the digits.

The Hessian over the training split is formed once, column by column in float64, which gives the
exact trace; the estimators then see it as a matrix in float32, as `hessian` computes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.coverage.judgement import Row
from benchmarks.coverage.traces import METHODS, STOPS, trace_row
from isoloss.datasets import load_data
from isoloss.datasets.splits import TensorSplit
from isoloss.hessian import HessianOperator, MatrixOperator
from isoloss.landscape import Problem
from isoloss.trainers.sam import SAM

EPOCHS, BATCH, LR, MOMENTUM, RHO = 10, 32, 0.05, 0.9, 0.05
OPTIMIZERS = ("sgd", "sam")
REPEATS = 200


@functools.cache
def digits() -> TensorSplit:
    """Return the training split, 1,293 of the digits, averaged to images of 7x7."""
    split = load_data("digits").train
    assert isinstance(split, TensorSplit)
    return TensorSplit(F.avg_pool2d(split.inputs, 4), split.targets)


@functools.cache
def trained(optimizer: str) -> nn.Sequential:
    """Return a network of 970 parameters after 10 epochs of SGD, or of SAM over it."""
    split = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(49, 16), nn.ReLU(), nn.Linear(16, 10))
    base = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    stepper = SAM(model, base, rho=RHO) if optimizer == "sam" else base
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        order = torch.randperm(len(split), generator=generator)
        for inputs, targets in split.batches(BATCH, order):

            def closure(
                inputs: torch.Tensor = inputs, targets: torch.Tensor = targets
            ) -> torch.Tensor:
                model.zero_grad()
                loss = F.cross_entropy(model(inputs), targets)
                loss.backward()
                return loss

            stepper.step(closure)
    return model


def problem_of(model: nn.Module, split: TensorSplit, dtype: torch.dtype = torch.float32) -> Problem:
    """Return the loss over all samples of a split."""
    return Problem(model, nn.CrossEntropyLoss(), [(split.inputs, split.targets)], dtype=dtype)


def rows(repeats: int | None = None) -> Iterator[Row]:
    """Yield a row a network and method, at the settings of `hessian`."""
    stop = list(STOPS)[1]
    for name in OPTIMIZERS:
        with HessianOperator(problem_of(trained(name), digits(), torch.float64)) as operator:
            H = operator.matmat(torch.eye(operator.size, dtype=torch.float64))
        exact = float(H.trace())
        dense = MatrixOperator(((H + H.T) / 2).float())
        for method in METHODS:
            yield trace_row(
                f"{name.upper()}, trace {exact:.4g}", dense, exact, method, stop, repeats or REPEATS
            )
