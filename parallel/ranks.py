"""Several processes that work on one thing, started by torchrun: their ranks, and sums over them.

Each holds a part of the samples. Data-parallel steps of a training are taken by explicit sums of
gradients and not through torch's DistributedDataParallel. Its hooks average over ranks with equal
weights, want a backward pass from every rank and wrap the module; here shards may be ragged or
empty, SAM decides when gradients are summed, and the module keeps its `forward`, its names and its
checkpoints. The price is that communication does not overlap with the backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

BACKENDS = {"cuda": "nccl", "xpu": "xccl"}  # gloo for all others


@dataclass(frozen=True)
class Group:
    """The processes that work together; one alone by default, for which nothing is communicated.

    Attributes:
        rank: Of this process, 0 to size - 1.
        size: Number of processes.
        device: Where tensors that are communicated lie.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def shard(self, items: Tensor) -> Tensor:
        """Return this rank's consecutive part of the first dimension; parts differ by one item."""
        return items if self.size == 1 else items.tensor_split(self.size)[self.rank]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of some numbers over the ranks, the same bits on each."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def add_up(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over the ranks, the same bits on each, and return it."""
        if self.size > 1:
            there = tensor.to(self.device)
            dist.all_reduce(there)
            tensor.copy_(there)
        return tensor

    def side_by_side(self, columns: Tensor) -> Tensor:
        """Return the columns of all ranks in the order of the ranks, the same on each.

        Args:
            columns: (rows, own), as many rows on each rank.

        Returns:
            (rows, all).
        """
        if self.size == 1:
            return columns
        own = columns.shape[1]
        counts = [int(n) for n in self.sum([own * (r == self.rank) for r in range(self.size)])]
        before = sum(counts[: self.rank])
        every = columns.new_zeros(len(columns), sum(counts))
        every[:, before : before + own] = columns
        return self.add_up(every)

    def share(self, value: T) -> T:
        """Return what rank 0 gave, on every rank; it must be picklable."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, device=self.device)
        return held[0]

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks.

        A rank without a gradient counts as zero; where no rank has one, none has one after.

        Args:
            parameters: In the same order on every rank.
        """
        if self.size == 1:
            return
        by_type: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_type.setdefault(parameter.dtype, []).append(parameter)
        for dtype, members in by_type.items():
            present = torch.tensor([float(p.grad is not None) for p in members], dtype=dtype)
            parts = [(torch.zeros_like(p) if p.grad is None else p.grad) for p in members]
            flat = torch.cat([present.to(parts[0].device), *(part.reshape(-1) for part in parts)])
            dist.all_reduce(flat)
            has = flat[: len(members)].cpu() > 0
            sums = flat[len(members) :].split([p.numel() for p in members])
            for parameter, there, total in zip(members, has.tolist(), sums, strict=True):
                parameter.grad = total.reshape(parameter.shape).clone() if there else None

    @torch.no_grad()
    def average_buffers(self, model: nn.Module) -> None:
        """Give every rank the mean of the ranks' floating buffers (running statistics)."""
        if self.size == 1:
            return
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer.div_(self.size)

    @torch.no_grad()
    def broadcast(self, model: nn.Module) -> None:
        """Give every rank the weights and buffers of rank 0."""
        if self.size == 1:
            return
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor, 0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let rank 0 through the block before the others, as for a download."""
        if self.size > 1 and not self.main:
            dist.barrier()
        yield
        if self.size > 1 and self.main:
            dist.barrier()


def local_device(device: torch.device) -> torch.device:
    """Return this process's own accelerator where several processes share a machine.

    Args:
        device: What all of them were asked to use; one with an index is taken as it is.
    """
    if world_size() == 1 or device.type not in BACKENDS or device.index is not None:
        return device
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))


def world_size() -> int:
    """Return the number of processes that torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[Group]:
    """Join the processes that torchrun started, for the block; alone without it.

    Args:
        device: Where this process computes.

    Yields:
        The group.
    """
    if world_size() == 1:
        yield Group()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = BACKENDS.get(device.type, "gloo")
    dist.init_process_group(backend)
    try:
        place = device if backend != "gloo" else torch.device("cpu")
        yield Group(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()
