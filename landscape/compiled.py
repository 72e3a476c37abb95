"""A network that `torch.compile` made faster, as a function of its tensors.

One compilation serves all points of a surface: the tensors are arguments, and all micro-batches
have one size. Values alone are computed by it; what is compiled has no second derivatives.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from isoloss.errors import is_out_of_memory
from isoloss.landscape.batches import Batch
from isoloss.landscape.objective import OfOutputs
from isoloss.landscape.plan import PlanError

# What speaks of the machine while something is compiled: of CUDA that is not there, and the like.
LOGGERS = ("torch.utils.cpp_extension", "torch._inductor", "torch._dynamo")


class NoCompilationError(PlanError):
    """A network that cannot be compiled, or no compiler."""


class CompiledNetwork:
    """The outputs of a network for micro-batches of one size, compiled when first asked for.

    Args:
        objective: Calls the network.
        model: The network.
        whole: All samples, of which micro-batches are consecutive parts and the last one may be
            smaller: it is computed with some of the samples before it.
        size: Samples of a micro-batch.

    Attributes:
        size: As given.
        seconds: What the first call took, which compiles; None before.
    """

    def __init__(self, objective: OfOutputs, model: nn.Module, whole: Batch, size: int) -> None:
        def function(state: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
            return functional_call(model, dict(state), args, kwargs)

        # torch.compile keeps what it makes, a limited number of them, by code object.
        function.__code__ = function.__code__.replace()
        self._function = torch.compile(function, fullgraph=True, dynamic=False)
        self._objective, self._whole, self.size = objective, whole, size
        self.seconds: float | None = None

    def at(self, state: Mapping[str, Tensor]) -> Callable[[Batch], Any]:
        """Return what computes the outputs of a micro-batch.

        Args:
            state: Tensors of the network by name, which it then has.

        Raises:
            NoCompilationError: At the first call of the result, if it cannot be compiled.
        """

        def network(*args: Any, **kwargs: Any) -> Any:
            return self._function(state, args, kwargs)

        def call(batch: Batch) -> Any:
            if batch.count == self.size:
                return self._objective.call(batch, network)
            last = self._whole[self._whole.count - self.size :]
            return self._objective.call(last, network)[-batch.count :]

        def compiling(batch: Batch) -> Any:
            return call(batch) if self.seconds is not None else self._first(call, batch)

        return compiling

    def _first(self, call: Callable[[Batch], Any], batch: Batch) -> Any:
        began = time.perf_counter()
        try:
            with _silence():
                outputs = call(batch)
        except Exception as error:  # of the tracer, its code generators, a compiler, the network
            if is_out_of_memory(error):
                raise
            line = next(iter(str(error).strip().splitlines()), "")
            raise NoCompilationError(
                "expected a network and a compiler that torch.compile works with, got "
                f"{type(error).__name__}: {line[:200]}\n"
                "go on where they are, or start over with `force` and without `compile`"
            ) from error
        self.seconds = time.perf_counter() - began
        return outputs


@contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
