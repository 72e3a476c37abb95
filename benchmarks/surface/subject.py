"""The network, the data and the plane that all contenders get."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.hessian.subject import Settings as Measured

MEAN, DEVIATION = 0.1307, 0.3081  # of the images of MNIST, as they are normalised
SEED = 3


@dataclass(frozen=True)
class Plane(Measured):
    """What a comparison is of: the first images, threads of torch, and a plane through theta0."""

    @cached_property
    def _split(self) -> tuple[str, Tensor, Tensor]:
        """The images alone, without the whole split that they are a part of."""
        name, images, targets = super()._split
        return name, images.clone(), targets.clone()

    @property
    def of_mnist(self) -> bool:
        """Whether the images are those of MNIST, normalised."""
        return self._split[0] == "mnist"

    @cached_property
    def directions(self) -> list[dict[str, Tensor]]:
        """Two Gaussian directions by parameter, with the norm of each filter; biases stay."""
        generator = torch.Generator().manual_seed(SEED)
        found = []
        for _ in range(2):
            direction = {}
            for name, weight in self.network().named_parameters():
                drawn = torch.randn(weight.shape, generator=generator)
                if weight.ndim < 2:
                    drawn.zero_()
                else:
                    rows, wanted = drawn.flatten(1), weight.detach().flatten(1).norm(dim=1)
                    drawn *= (wanted / rows.norm(dim=1)).view(-1, *[1] * (weight.ndim - 1))
                direction[name] = drawn
            found.append(direction)
        return found

    def loss_in_double(self, x: float, y: float) -> float:
        """Return the loss at a point of the plane, in float64 and by plain torch."""
        model, directions = self.network().double(), self.directions
        with torch.no_grad():
            for name, weight in model.named_parameters():
                for c, direction in zip((x, y), directions, strict=True):
                    weight += c * direction[name].double()
            total = 0.0
            for images, targets in self.batches:
                outputs = model(images.double())
                total += F.cross_entropy(outputs, targets, reduction="sum").item()
        return total / len(self.data[0])


def point(index: int) -> tuple[float, float]:
    """Return a point of the plane within [-1, 1] x [-1, 1], another one for each index."""
    angle = 2.399963 * index  # the golden angle: no two in one place
    radius = math.sqrt((index % 50 + 0.5) / 50)
    return radius * math.cos(angle), radius * math.sin(angle)
