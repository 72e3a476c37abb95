"""What is shared out: points of a surface, or numbers, which take no time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from isoloss.landscape import Grid, Problem, Surface
from isoloss.models import create_model

IMAGES = 1000


def surface() -> Surface:
    """Return a surface through a network that nobody has trained."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    network = create_model("fashion-cnn", {}, {"in_channels": 1, "num_classes": 10})
    images = torch.randn(IMAGES, 1, 28, 28, generator=generator)
    problem = Problem(network, nn.CrossEntropyLoss(), [(images, torch.arange(IMAGES) % 10)])
    return Surface(problem, Grid.parse("-1:1:201", "-1:1:201"))


def points() -> Callable[[int], tuple[float, ...]]:
    """Return what evaluates a point of the surface."""
    return surface().evaluate_number


def squares() -> Callable[[int], int]:
    """Return what takes no time."""
    return square


def square(number: int) -> int:
    """Return n^2."""
    return number**2
