"""Scores a = d(-log p(y | f)) / d f of the distribution that a network's outputs f stand for.

Targets y are drawn from the network's own predictions here; the data's targets only say which
positions count, and by what weight.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.operators.ggn import loss_curvature
from isoloss.hessian.operators.of_outputs import OutputMatrix
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.landscape.losses import BERNOULLI, CATEGORICAL, PerSampleLoss


def check_likelihood(loss: PerSampleLoss) -> None:
    """Raise `OperatorError` unless the loss is -log p of a known distribution."""
    if loss.likelihood is None:
        raise OperatorError(
            f"expected a loss that is -log p of the targets, got {loss.name}, whose predictions "
            "are not known to be a distribution\nuse cross-entropy of logits, "
            "BCEWithLogitsLoss without weights, MSELoss, or the Gauss-Newton matrix"
        )


def expected_outer_product(loss: PerSampleLoss, outputs: Tensor, targets: Tensor) -> OutputMatrix:
    r"""Return products with E[a a^T] over y ~ p(. | f), weighted by position.

    Of a categorical distribution the expectation is a sum over its classes,
    sum_c p_c (p - e_c)(p - e_c)^T; positions and elements are independent of each other.
    """
    if loss.likelihood != CATEGORICAL:
        curvature = loss_curvature(loss, outputs, targets)
        diagonal = curvature(torch.ones_like(outputs))
        return lambda vector: diagonal * vector
    dim = _class_dim(loss, outputs, targets)
    p = outputs.movedim(dim, 1).softmax(1)
    weights = _weights(loss, p, targets)

    def product(vector: Tensor) -> Tensor:
        u = vector.movedim(dim, 1)
        total = torch.zeros_like(u)
        for c in range(p.shape[1]):
            score = p.clone()
            score[:, c] -= 1.0
            total += p[:, c : c + 1] * score * (score * u).sum(1, keepdim=True)
        return (weights * total).movedim(1, dim)

    return product


def drawn_scores(
    loss: PerSampleLoss, outputs: Tensor, targets: Tensor, draws: int, random: np.random.Generator
) -> Tensor:
    """Return scores of targets drawn from the predictions, times the root of the weights.

    The stream of random numbers runs through the samples in order, whatever batches they are in.

    Returns:
        Shape (draws, *outputs.shape).
    """
    if loss.likelihood == CATEGORICAL:
        return _categorical_scores(loss, outputs, targets, draws, random)
    shape = (len(outputs), draws, *outputs.shape[1:])
    if loss.likelihood == BERNOULLI:
        p = outputs.sigmoid()
        uniform = torch.from_numpy(random.random(shape)).to(p.device).movedim(1, 0)
        return p - (uniform < p).to(p.dtype)
    diagonal = loss_curvature(loss, outputs, targets)(torch.ones_like(outputs))
    normal = torch.from_numpy(random.standard_normal(shape)).movedim(1, 0)
    return diagonal.sqrt() * normal.to(outputs.device, outputs.dtype)


def _categorical_scores(
    loss: PerSampleLoss, outputs: Tensor, targets: Tensor, draws: int, random: np.random.Generator
) -> Tensor:
    dim = _class_dim(loss, outputs, targets)
    p = outputs.movedim(dim, 1).softmax(1)
    positions = (len(p), draws, *p.shape[2:])
    uniform = torch.from_numpy(random.random(positions)).to(p.device)
    below = p.double().cumsum(1)[:, :-1].unsqueeze(1)  # (batch, 1, classes - 1, *positions)
    drawn = (uniform.unsqueeze(2) >= below).sum(2)  # the inverse of the distribution function
    hot = torch.nn.functional.one_hot(drawn, p.shape[1]).movedim(-1, 2).to(p.dtype)
    scores = (_weights(loss, p, targets).sqrt().unsqueeze(1) * (p.unsqueeze(1) - hot)).movedim(1, 0)
    return scores.movedim(2, dim if dim < 0 else dim + 1)


def _class_dim(loss: PerSampleLoss, outputs: Tensor, targets: Tensor) -> int:
    return loss.layout.find(outputs, targets)


def _weights(loss: PerSampleLoss, p: Tensor, targets: Tensor) -> Tensor:
    """Return the weight of each position, (batch, 1, *positions)."""
    if targets.is_floating_point():
        return torch.ones_like(p[:, :1])
    return loss.target_weights(targets, p.dtype).unsqueeze(1)
