"""The gradient of a mean loss, in passes over micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from isoloss.landscape.batches import Samples
from isoloss.landscape.kernels import derivatives
from isoloss.landscape.memory import release_freed
from isoloss.parallel.ranks import Group


class Differentiable(Protocol):
    """What is needed of a problem; see `landscape.problem`."""

    parameters: dict[str, Tensor]
    recalibration: Any
    objective: Any
    device: torch.device
    dtype: torch.dtype
    group: Group

    @property
    def has_outputs(self) -> bool: ...  # noqa: D102

    @property
    def total_weight(self) -> float: ...  # noqa: D102

    def buffers_at(self, point: Mapping[str, Tensor]) -> dict[str, Tensor]: ...  # noqa: D102

    def micro_batches(self) -> Iterator[Samples]: ...  # noqa: D102

    def loss_sum(  # noqa: D102
        self,
        parameters: Mapping[str, Tensor],
        batch: Samples,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Tensor: ...


def mean_gradient(
    problem: Differentiable, point: Mapping[str, Tensor], sums: torch.device
) -> dict[str, Tensor]:
    """Return dL/dtheta at a point, accumulated in float64 on a device, as `Problem.gradient`."""
    buffers = problem.buffers_at(point)
    leaves = {name: point[name].detach().requires_grad_() for name in problem.parameters}
    recalibration = problem.recalibration
    statistics = {} if recalibration is None else recalibration.leaves(buffers)
    variables = {**leaves, **statistics}
    # In float64 from the second batch on: a single one's sum needs no more than it has.
    total: dict[str, Tensor] = {}
    for batch in problem.micro_batches():
        # A closure's loss may be made of derivatives already.
        with derivatives(problem.objective.model, second=not problem.has_outputs):
            loss = problem.loss_sum(leaves, batch, {**buffers, **statistics})
            parts = list(torch.autograd.grad(loss, list(variables.values()), allow_unused=True))
        for name in reversed(variables):
            part = parts.pop()  # freed where it was added
            if part is not None:
                part = part.to(sums)
                total[name] = total[name].double() + part if name in total else part
        release_freed(sum(tensor.nbytes for tensor in leaves.values()))
    for name, tensor in variables.items():
        total.setdefault(name, torch.zeros((), device=sums).expand(tensor.shape))
        if problem.group.size > 1:  # some may have had one batch, others several
            total[name] = problem.group.add_up(total[name].double().clone())
    if recalibration is not None:  # the chain rule through s(theta)
        for name, part in recalibration.pull_back(leaves, leaves, total).items():
            total[name] = total[name].double() + part
    weight = problem.total_weight
    return {
        name: (total.pop(name).double() / weight).to(problem.device, problem.dtype)
        for name in leaves
    }
