"""The register of networks, and facts about a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from registry import Registry

MODELS: Registry[Callable[..., nn.Module]] = Registry("model")


class ModelError(ValueError):
    """A network that cannot be built for what was asked."""


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of a network.

    Attributes:
        parameters: number of scalar parameters, shared ones once.
        trainable: those that require a gradient.
        buffers: number of scalars in buffers (running statistics and the like).
    """

    parameters: int
    trainable: int
    buffers: int


def model_facts(model: nn.Module) -> ModelFacts:
    """Counts the scalars of a network."""
    parameters = list(model.parameters())
    return ModelFacts(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        buffers=sum(b.numel() for b in model.buffers()),
    )
