"""Surfaces that workers of tests make: in a module of its own, as they import it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from isoloss.landscape import Grid, Problem, Surface, random_directions
from isoloss.landscape.repeats import Draws, repeat_seeds


@dataclass(frozen=True)
class Small:
    """A surface of a small network, the same wherever it is made."""

    x: str = "-1:1:5"
    y: str | None = None
    repeat: int = 1
    seed: int = 0
    seconds: float = 0.0

    def __call__(self):
        generator = torch.Generator().manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(generator=generator)
        x = torch.randn(50, 6, generator=generator)
        grid = Grid.parse(self.x, self.y)
        problem = Problem(model, self.loss, [(x, torch.arange(50) % 3)])

        def draw(seed):
            return random_directions(problem.parameters, len(grid.shape), seed=seed)

        first, *others = repeat_seeds(self.seed, self.repeat)
        return Surface(problem, grid, draw(first), repeats=Draws(draw, others))

    def loss(self, outputs, targets):
        time.sleep(self.seconds)
        return nn.functional.cross_entropy(outputs, targets, reduction="none")
