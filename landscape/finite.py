"""Where NaN and infinite values arise: looked for once there are some, at no cost before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.landscape.batches import Samples
from isoloss.landscape.problem import Problem
from isoloss.structure import leaves


def where_not_finite(problem: Problem, at: Mapping[str, Tensor] | None = None) -> str:
    """Return in words what is not finite first: a parameter, a layer, the loss or its gradient.

    Args:
        problem: A problem whose loss, gradient or products are not finite.
        at: The point; theta0 where None.

    Returns:
        Part of a sentence; empty where all up to the gradient is finite.
    """
    point = problem.parameters if at is None else {name: t.detach() for name, t in at.items()}
    for name, tensor in point.items():
        if lost := _lost(tensor):
            return f"the parameter {name} has {lost} that are not"
    return _in_a_pass(problem, point) or _in_the_gradient(problem, point)


def _in_a_pass(problem: Problem, point: Mapping[str, Tensor]) -> str:
    with torch.no_grad(), _watched(problem._model) as seen:
        buffers = problem.buffers_at(point)
        if seen:
            return f"{seen[0]}, where batch-norm statistics are estimated"
        before = 0
        for number, batch in enumerate(problem.micro_batches(), start=1):
            losses = problem.loss_terms(point, batch, buffers).sums
            wrong = (~losses.isfinite()).nonzero()
            if len(wrong):
                source = _in_data(batch) or (seen[0] if seen else "every layer's output is finite")
                sample = before + int(wrong[0])
                return f"{source}; batch {number}, the loss of sample {sample} first"
            seen.clear()
            before += batch.count
    return ""


def _in_data(batch: Samples) -> str:
    for name, tensor in batch.tensors().items():
        if lost := _lost(tensor):
            return f"the data hold {lost} that are not, in {name}"
    return ""


def _in_the_gradient(problem: Problem, point: Mapping[str, Tensor]) -> str:
    for name, tensor in problem.gradient(point).items():
        if lost := _lost(tensor):
            return f"the loss is finite, but its gradient by {name} has {lost} that are not"
    return ""


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """Yield what is seen of outputs that are not finite, in words and in order."""
    seen: list[str] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not any(map(_lost, _tensors(output))):
            return
        place = f"{names[module]} ({type(module).__name__})" if names[module] else "the network"
        if any(map(_lost, _tensors(inputs))):
            seen.append(f"the inputs of {place} are not finite")
            return
        own = [f"its {name} is not" for name, t in module.named_buffers(recurse=False) if _lost(t)]
        why = own[0] if own else "its inputs are"
        seen.append(f"the output of {place} is not finite, {why}")

    names = {module: name for name, module in model.named_modules()}
    scripted = torch.jit.ScriptModule  # takes no hooks
    hooks = [m.register_forward_hook(look) for m in names if not isinstance(m, scripted)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(content: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(content).values() if isinstance(leaf, Tensor)]


def _lost(tensor: Tensor) -> str:
    """Return how many entries are NaN or infinite: "3 of 10 entries"; empty where none is."""
    count = int((~tensor.isfinite()).sum())
    return f"{count:,} of {tensor.numel():,} entries" if count else ""
