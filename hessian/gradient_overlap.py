"""How much of the gradient lies in the space of a few eigenvectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.vectors import inner, norm


@dataclass(frozen=True)
class GradientOverlap:
    """The share of ||g||^2 in the span of orthonormal vectors u_1 .. u_k.

    Attributes:
        norm: ||g||.
        shares: (u_j^T g)^2 / ||g||^2 of each vector; NaN where g is 0 or anything not finite.
        by_chance: k / n, the mean of the whole share for a direction without preference.
    """

    norm: float
    shares: tuple[float, ...]
    by_chance: float

    @property
    def share(self) -> float:
        """The share of all k together."""
        return math.fsum(self.shares)


def gradient_overlap(gradient: Tensor, vectors: Tensor) -> GradientOverlap:
    """Return the share of a gradient in the span of eigenvectors (Gur-Ari, Roberts & Dyer 2018).

    With the Hessian's k largest eigenvectors it is their f_top (section 2), near 1 after a short
    while of training where k is the number of classes. The vectors' own errors turn the span by no
    more than about residual / gap; the gap is that to the eigenvalues not among them.

    Example:
        >>> import torch
        >>> round(gradient_overlap(torch.tensor([3.0, 4.0]), torch.tensor([[0.0], [1.0]])).share, 6)
        0.64

    Args:
        gradient: g, shape (n,).
        vectors: Orthonormal columns, (n, k).

    Raises:
        OperatorError: If the two do not fit together.
    """
    if vectors.ndim != 2 or gradient.shape != vectors.shape[:1]:
        raise OperatorError(
            f"expected a gradient (n,) and vectors (n, k), got {tuple(gradient.shape)} and "
            f"{tuple(vectors.shape)}"
        )
    length, count = norm(gradient), vectors.shape[1]
    by_chance = count / vectors.shape[0]
    if not (math.isfinite(length) and length > 0):
        return GradientOverlap(length, (math.nan,) * count, by_chance)
    unit = gradient / length
    shares = tuple(inner(unit, column.to(unit)) ** 2 for column in vectors.T)
    return GradientOverlap(length, shares, by_chance)
