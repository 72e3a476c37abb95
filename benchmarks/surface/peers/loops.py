"""Plain loops over micro-batches with the strides of channels last, the fastest size by trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.surface.subject import Plane

SIZES, SIZES_COMPILED = (50, 100, 200, 250), (100, 125, 250)
Outputs = Callable[[dict[str, Tensor], Tensor], Tensor]


def plain(plane: Plane) -> Callable[[float, float], float]:
    """Return the loss by the network as it is."""
    return _fastest(plane, SIZES, lambda function: function)


def compiled(plane: Plane) -> Callable[[float, float], float]:
    """Return the loss by the network compiled."""
    return _fastest(plane, SIZES_COMPILED, lambda function: torch.compile(function, dynamic=False))


def _fastest(
    plane: Plane, sizes: Sequence[int], change: Callable[[Outputs], Outputs]
) -> Callable[[float, float], float]:
    model = plane.network().requires_grad_(False)
    origin = dict(model.named_parameters())
    images, targets = plane.data
    images = images.to(memory_format=torch.channels_last)
    network = change(lambda weights, batch: functional_call(model, weights, (batch,)))

    def loss(x: float, y: float, size: int) -> float:
        a, b = plane.directions
        weights = {name: w + x * a[name] + y * b[name] for name, w in origin.items()}
        total = 0.0
        with torch.no_grad():
            for some, wanted in zip(images.split(size), targets.split(size), strict=True):
                values = F.cross_entropy(network(weights, some), wanted, reduction="none")
                total += values.double().sum().item()
        return total / len(images)

    def seconds(size: int) -> float:
        loss(0.1, 0.1, size)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            loss(0.1, 0.1, size)
            times.append(time.perf_counter() - began)
        return min(times)

    best = min(sizes, key=seconds)
    return lambda x, y: loss(x, y, best)
