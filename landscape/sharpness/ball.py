"""The sets of perturbations that a sharpness is the largest, or the mean, rise of the loss over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.landscape.vectors import norm

Tensors = dict[str, Tensor]


class SharpnessError(IsolossError, ValueError):
    """A sharpness that is not defined, or settings out of range."""


@dataclass(frozen=True)
class Ball:
    r"""{ d : ||T^-1 d||_2 <= rho } about theta0, T diagonal; d = T u with ||u||_2 <= rho.

    Where T is 0, d is.

    Attributes:
        kind: `"l2"` for T = 1, `"adaptive"` for T = |theta0| + eta.
        radius: rho.
        eta: Of an adaptive ball; None for T = 1.
        scale: T by parameter; None where it is 1.
    """

    kind: str
    radius: float
    eta: float | None = None
    scale: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if not (self.radius > 0 and math.isfinite(self.radius)):
            raise SharpnessError(f"expected a radius above 0, got {self.radius}")

    def scaled(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Return T u by parameter."""
        if self.scale is None:
            return dict(tensors)
        return {name: self.scale[name] * tensor for name, tensor in tensors.items()}

    def displaced(self, origin: Mapping[str, Tensor], u: Mapping[str, Tensor]) -> Tensors:
        """Return theta0 + T u."""
        return {name: origin[name] + d for name, d in self.scaled(u).items()}

    def on_sphere(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Return u = rho v / ||v||; 0 for v = 0."""
        length = norm(tensors)
        factor = self.radius / length if length else 0.0
        return {name: factor * tensor for name, tensor in tensors.items()}

    def inside(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Return the point of ||u|| <= rho that is nearest to v."""
        return self.on_sphere(tensors) if norm(tensors) > self.radius else dict(tensors)


def euclidean_ball(radius: float) -> Ball:
    """Return { d : ||d||_2 <= rho }, the set of SAM (Foret et al. 2021, eq. 1)."""
    return Ball("l2", radius)


def adaptive_ball(parameters: Mapping[str, Tensor], radius: float, eta: float = 0.0) -> Ball:
    r"""Return { d : ||(|theta0| + eta)^-1 d||_2 <= rho } (Kwon et al. 2021, section 3).

    T = |theta0| + eta covers all parameters given, biases and batch norm among them. For eta = 0
    rises over it do not change where units are rescaled between layers without changing the
    function (section 3 there).

    Args:
        parameters: theta0 by name.
        radius: rho, without unit: 0.5 moves no weight by more than half of itself.
        eta: 0 or more.

    Raises:
        SharpnessError: For a radius or eta out of range.
    """
    if not (eta >= 0 and math.isfinite(eta)):
        raise SharpnessError(f"expected an eta of 0 or more, got {eta}")
    scale = {name: tensor.detach().abs() + eta for name, tensor in parameters.items()}
    return Ball("adaptive", radius, eta, scale)


def random_direction(like: Mapping[str, Tensor], seed: int, number: int) -> Tensors:
    """Return standard normal tensors by name, those of a seed and a number."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    return {
        name: torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device, t.dtype)
        for name, t in like.items()
    }
