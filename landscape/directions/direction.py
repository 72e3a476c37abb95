"""Directions: named vectors along which a surface is cut, as a kind makes them and as finished.

A kind (random, towards another checkpoint, ..) makes a `RawDirection`; `finishing.finish` scales
one or two of them into `Direction`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from isoloss.errors import UsageError
from isoloss.landscape.directions.regenerated import Regenerated
from isoloss.landscape.vectors import digest, inner, norm
from isoloss.records.surfaces import StoredDirection


class DirectionError(UsageError, ValueError):
    """A direction that cannot be made, or that no surface can be cut along."""


@dataclass(frozen=True)
class RawDirection:
    """A direction as its kind makes it, before it is normalised.

    Attributes:
        tensors: By name: every parameter, then the buffers that move, if any (see `Problem.buffers`
            for which may); shaped as they are.
        kind: What it is, as settings name it: `"random"`, `"to"`, ..
        source: What it was made from beside the weights, JSON-able: the seed of a random one, the
            digest of another checkpoint. Of these `label` (words for an axis), `run` and
            `checkpoint` are said to people alone and may differ when a surface is resumed.
    """

    tensors: Mapping[str, Tensor]
    kind: str
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Direction:
    """A direction in weight space and how it was made.

    Attributes:
        tensors: By name, as those of `RawDirection`.
        kind: What it is, as settings name it: `"random"`, ..
        source: What it was made from, as that of `RawDirection`.
        normalisation: Rule of `landscape.normalisation`.
        ignore: Which parameters stay where they are.
        orthogonal: Whether it was made orthogonal to the direction of the other axis.

    The tensors of a large random direction are made whenever they are asked for
    (`directions.regenerated`): take them one by one.
    """

    tensors: Mapping[str, Tensor]
    kind: str
    source: Mapping[str, Any] = field(default_factory=dict)
    normalisation: str = "none"
    ignore: str = "none"
    orthogonal: bool = False

    @property
    def like(self) -> Mapping[str, Tensor]:
        """Tensors of its names, shapes and dtypes, which are made for nobody."""
        return self.tensors.like if isinstance(self.tensors, Regenerated) else self.tensors

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
        """Return the direction as files keep it; of one that is not held the recipe."""
        if isinstance(self.tensors, Regenerated):
            return StoredDirection(self.recipe(), [])
        arrays = [tensor.detach().cpu().numpy() for tensor in self.tensors.values()]
        return StoredDirection(self.recipe(), arrays)


def cosine(a: Direction, b: Direction) -> float:
    """Return the cosine of the angle between two directions, over all entries that they move."""
    return overlap(a.tensors, b.tensors) / (norm(a.tensors) * norm(b.tensors))


def overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return <a, b>; a tensor that one of them does not have is zero there."""
    return inner({name: tensor for name, tensor in a.items() if name in b}, b)
