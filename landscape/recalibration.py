r"""Batch-norm statistics that follow the weights: s(theta), and derivatives through it.

s(theta) = sum_b n_b / N s_b(theta) over statistics batches b of n_b samples. s_b are the mean and
the unbiased variance of what enters each batch norm, in a pass in which every batch norm normalises
with the batch itself. Since s is a sum over batches, derivatives of L(theta, s(theta)) are, too:
no more than one batch's graph is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.landscape.batch_norm import BatchNormError, recording_statistics
from isoloss.landscape.batches import FixedData, Samples
from isoloss.parallel.ranks import Group

Tensors = dict[str, Tensor]


class Recalibration:
    """s(theta) of a network over fixed data, by the names of the buffers that hold it.

    Args:
        model: The network, in evaluation mode.
        forward: `forward(parameters, batch)` calls the network as the loss does.
        data: The samples; those of this process, of several.
        batch_size: Samples of a statistics batch.
        sums: Where sums are formed, in float64.
        group: The processes that hold the samples.

    Attributes:
        names: Buffers that s fills: those of the batch norms that the network uses. Known after
            the first `estimate`.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[[Mapping[str, Tensor], Samples], Any],
        data: FixedData,
        batch_size: int,
        sums: torch.device,
        group: Group,
    ) -> None:
        self._model, self._forward, self._sums = model, forward, sums
        self._data, self._batch_size, self._group = data, batch_size, group
        self._count = int(group.sum([data.count])[0])
        self.names: list[str] = []

    def estimate(self, parameters: Mapping[str, Tensor]) -> Tensors:
        """Return s(theta), without a graph.

        Raises:
            BatchNormError: If a batch norm takes part in some batches only.
        """
        total: Tensors = {}
        seen: dict[str, int] = {}
        with torch.no_grad():
            for batch in self._data.cut(self._batch_size):
                for name, part in self.share(parameters, batch).items():
                    total[name] = total.get(name, 0) + part.to(self._sums).double()
                    seen[name] = seen.get(name, 0) + batch.count
        partial = [name for name, count in seen.items() if count != self._data.count]
        if partial:
            raise BatchNormError(
                f"expected every batch norm to take part in every batch, {partial[0]} saw "
                f"{seen[partial[0]]} of {self._data.count} samples\nuse the policy 'eval'"
            )
        self.names = list(total)
        like = next(iter(parameters.values()))
        total = self._of_all(total)
        return {name: tensor.to(like.device, like.dtype) for name, tensor in total.items()}

    def share(self, parameters: Mapping[str, Tensor], batch: Samples) -> Tensors:
        """Return n_b / N s_b(theta), differentiable in the parameters; sums over batches are s."""
        with recording_statistics(self._model) as found:
            self._forward(parameters, batch)
        part = batch.count / self._count
        # A layer that is used several times in a pass has the mean over its uses.
        return {name: part * torch.stack(uses).mean(0) for name, uses in found.items()}

    def leaves(self, buffers: Mapping[str, Tensor]) -> Tensors:
        """Return the statistics among the buffers as leaves of a graph."""
        return {name: buffers[name].detach().requires_grad_() for name in self.names}

    def pull_back(
        self, point: Mapping[str, Tensor], leaves: Tensors, cotangents: Mapping[str, Tensor]
    ) -> Tensors:
        """Return (ds/dtheta)^T q, float64.

        Args:
            point: theta, with the leaves in it.
            leaves: The parameters to differentiate by.
            cotangents: q, a tensor for each name of `names`.
        """
        total = self._zeros(leaves)
        for batch in self._batches(leaves):
            shares, q = _with_graph(self.share(point, batch), cotangents)
            if shares:
                found = torch.autograd.grad(shares, list(leaves.values()), q, allow_unused=True)
                _add(total.values(), found)
        return self._of_all(total)

    def second_order(
        self,
        point: Mapping[str, Tensor],
        leaves: Tensors,
        adjoint: Mapping[str, Tensor],
        tangents: Mapping[str, Tensor],
    ) -> tuple[Tensors, Tensors]:
        """Return (ds/dtheta) v and (d^2 (u^T s) / dtheta^2) v, float64.

        Both are derivatives of g^T v with g = (ds/dtheta)^T u: by u and by theta.

        Args:
            point: theta, with the leaves in it.
            leaves: The parameters to differentiate by.
            adjoint: u, a tensor for each name of `names`.
            tangents: v, a tensor for each leaf.
        """
        u = {name: adjoint[name].detach().requires_grad_() for name in self.names}
        moved, curved = self._zeros(u), self._zeros(leaves)
        inputs = [*u.values(), *leaves.values()]
        for batch in self._batches(leaves):
            shares, weights = _with_graph(self.share(point, batch), u)
            if not shares:
                continue
            g = torch.autograd.grad(
                shares, list(leaves.values()), weights, create_graph=True, allow_unused=True
            )
            pairs = [
                (part, tangents[name])
                for name, part in zip(leaves, g, strict=True)
                if part is not None and part.requires_grad
            ]
            found = torch.autograd.grad(
                [part for part, _ in pairs], inputs, [v for _, v in pairs], allow_unused=True
            )
            _add([*moved.values(), *curved.values()], found)
        return self._of_all(moved), self._of_all(curved)

    def _batches(self, like: Mapping[str, Tensor]) -> Iterable[Samples]:
        """Yield the batches as `Problem.product_batches` does, images channels first."""
        tensor = next(iter(like.values()))
        for batch in self._data.cut(self._batch_size):
            yield batch.to(tensor.device, tensor.dtype, channels_last=False)

    def _of_all(self, total: Tensors) -> Tensors:
        """Return the sums over the processes."""
        return {name: self._group.add_up(tensor) for name, tensor in total.items()}

    def _zeros(self, like: Mapping[str, Tensor]) -> Tensors:
        return {
            name: torch.zeros(tensor.shape, dtype=torch.float64, device=self._sums)
            for name, tensor in like.items()
        }


def _with_graph(
    shares: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Pair the statistics that depend on the parameters with their weights."""
    names = [name for name, tensor in shares.items() if tensor.requires_grad]
    return [shares[n] for n in names], [weights[n].to(shares[n]) for n in names]


def _add(totals: Iterable[Tensor], parts: Iterable[Tensor | None]) -> None:
    for total, part in zip(totals, parts, strict=True):
        if part is not None:
            total += part.to(total.device)
