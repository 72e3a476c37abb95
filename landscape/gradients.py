"""The gradient of a mean loss, in passes over micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from isoloss.landscape.batches import Samples
from isoloss.landscape.kernels import derivatives
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
    total = {
        name: torch.zeros(t.shape, dtype=torch.float64, device=sums)
        for name, t in variables.items()
    }
    for batch in problem.micro_batches():
        # A closure's loss may be made of derivatives already.
        with derivatives(problem.objective.model, second=not problem.has_outputs):
            loss = problem.loss_sum(leaves, batch, {**buffers, **statistics})
            parts = torch.autograd.grad(loss, list(variables.values()), allow_unused=True)
        for name, part in zip(variables, parts, strict=True):
            if part is not None:
                total[name] += part.to(sums)
    for part in total.values():
        problem.group.add_up(part)
    if recalibration is not None:  # the chain rule through s(theta)
        for name, part in recalibration.pull_back(leaves, leaves, total).items():
            total[name] += part
    weight = problem.total_weight
    return {name: (total[name] / weight).to(problem.device, problem.dtype) for name in leaves}
