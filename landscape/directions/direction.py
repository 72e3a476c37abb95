"""Directions: named, parameter-shaped vectors along which a surface is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isoloss.landscape.normalisation import Tensors
from isoloss.landscape.vectors import digest, inner, norm
from isoloss.records.surfaces import StoredDirection


@dataclass(frozen=True)
class Direction:
    """A direction in weight space and how it was made.

    Attributes:
        tensors: By parameter name, shaped as the parameter.
        kind: What it is, as settings name it: `"random"`, ..
        source: What it was made from beside the weights, JSON-able: the seed of a random one.
        normalisation: Rule of `landscape.normalisation`.
        ignore: Which parameters stay where they are.
        orthogonal: Whether it was made orthogonal to the direction of the first axis.
    """

    tensors: Tensors
    kind: str
    source: Mapping[str, Any] = field(default_factory=dict)
    normalisation: str = "none"
    ignore: str = "none"
    orthogonal: bool = False

    def recipe(self) -> dict[str, Any]:
        """Return what is needed to make the direction again, and a digest to check it by."""
        return {
            "kind": self.kind,
            **self.source,
            "normalisation": self.normalisation,
            "ignore": self.ignore,
            "orthogonal": self.orthogonal,
            "digest": digest(self.tensors),
        }

    def stored(self) -> StoredDirection:
        """Return the direction as files keep it."""
        arrays = [tensor.detach().cpu().numpy() for tensor in self.tensors.values()]
        return StoredDirection(self.recipe(), arrays)


def cosine(a: Direction, b: Direction) -> float:
    """Return the cosine of the angle between two directions."""
    return inner(a.tensors, b.tensors) / (norm(a.tensors) * norm(b.tensors))
