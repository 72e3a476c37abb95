"""The generalised Gauss-Newton matrix, and what the Hessian has beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.of_outputs import (
    OutputMatrix,
    OutputsOperator,
    loss_gradient,
    loss_of,
    outputs_of,
)
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.landscape.batches import Batch, Samples
from isoloss.landscape.losses import PerSampleLoss


class GGNOperator(OutputsOperator):
    r"""G = 1/W sum_i J_i^T (d^2 loss_i / d f^2) J_i, the Hessian with the network linearised.

    For losses convex in the outputs it has no negative eigenvalue (Schraudolph 2002). For
    cross-entropy of logits, and for the square loss, it is the Fisher information of the
    network's own predictions (Martens 2020, section 9.2).

    Example:
        >>> from torch import nn
        >>> from isoloss.landscape.problem import Problem
        >>> data = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
        >>> problem = Problem(nn.Linear(1, 1, bias=False), nn.MSELoss(), data)
        >>> GGNOperator(problem).matvec(torch.ones(1))  # 2 mean(x^2)
        tensor([10.])

    Arguments, attributes and errors are those of `OutputsOperator`.

    Raises:
        OperatorError: At the first product, if the loss is linear in the outputs: G is 0.
    """

    def _matrices(self) -> Callable[[Tensor, Batch], OutputMatrix]:
        return lambda outputs, batch: loss_curvature(self._loss, outputs, batch.targets)


def loss_curvature(loss: PerSampleLoss, outputs: Tensor, targets: Tensor) -> OutputMatrix:
    """Return products with d^2 (sum of losses) / d outputs^2.

    Raises:
        OperatorError: If the loss is linear in the outputs.
    """
    leaf, gradient = loss_gradient(loss, outputs, targets, create_graph=True)
    if loss.linear or not gradient.requires_grad:
        raise OperatorError(
            f"expected a loss curved in the network's outputs, got {loss.name}, which is linear in "
            "them: its Gauss-Newton matrix is 0\nlet the network put out logits and give "
            "nn.CrossEntropyLoss() in the place of nn.NLLLoss()"
        )

    def product(vector: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(gradient, leaf, vector, retain_graph=True)
        return found

    return product


class ResidualOperator(HessianOperator):
    r"""R = H - G = 1/W sum_i sum_k (d loss_i / d f_k) d^2 f_k(theta, x_i) / d theta^2.

    The Hessian of the losses' first-order expansion in the outputs: one product costs one of H.
    It vanishes where the network is linear or fits its data exactly (Sagun et al. 2018,
    section 2; Papyan 2019, eq. 5).

    Arguments, attributes and errors are those of `ProblemOperator`.

    Raises:
        OperatorError: If the loss is a closure, or the outputs are no tensor with a row a sample.
    """

    def _loss_sum(self, batch: Samples) -> Tensor:
        whole = cast(Batch, batch)
        outputs = outputs_of(self._problem, self._buffers | self._point, whole)
        _, gradient = loss_gradient(loss_of(self._problem), outputs, whole.targets)
        return (gradient * outputs).sum()
