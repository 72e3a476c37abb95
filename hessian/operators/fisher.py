"""Fisher information: of the network's own predictions, exact or drawn, and of the true targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.operators.of_outputs import (
    OutputMatrix,
    OutputsOperator,
    by_sample,
    loss_gradient,
)
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.scores import (
    check_likelihood,
    drawn_scores,
    expected_outer_product,
)
from isoloss.landscape.batches import Batch
from isoloss.landscape.problem import Problem


class FisherOperator(OutputsOperator):
    r"""F = 1/W sum_i w_i E_y[g_i(y) g_i(y)^T], y ~ p(. | f(theta, x_i)), g = -grad log p(y | x_i).

    With S draws of y for each sample, as given by `draws`, in place of the expectation, it is the
    Monte-Carlo Fisher, unbiased, of rank at most S N. Exact, it equals the Gauss-Newton matrix
    of cross-entropy of logits (label smoothing or not), of `BCEWithLogitsLoss` and of the square
    loss (Martens 2020, section 9.2; Pascanu & Bengio 2014, section 3).

    Arguments, attributes and errors are those of `OutputsOperator`, and:

    Args:
        problem: The loss as a function of the weights.
        parameters: Names of the parameters to differentiate by; all where None.
        at: The weights; theta0 where None.
        draws: S, 1 or more; None for the expectation.
        seed: Of the draws. They belong to samples: cutting the data otherwise changes nothing.

    Raises:
        OperatorError: If the loss is -log p of no known distribution.
    """

    def __init__(
        self,
        problem: Problem,
        parameters: Iterable[str] | None = None,
        *,
        at: Mapping[str, Tensor] | None = None,
        draws: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(problem, parameters, at=at)
        check_likelihood(self._loss)
        if (draws is not None and draws < 1) or seed < 0:
            raise OperatorError(
                f"expected 1 draw or more and a seed of 0 or more, got {draws} and {seed}"
            )
        if draws is not None and problem.group.size > 1:
            raise OperatorError(
                "expected one process for drawn targets, whose random numbers run through all "
                f"samples in order, got {problem.group.size}\ntake the exact Fisher, `fisher`"
            )
        self.draws, self.seed = draws, seed

    def _matrices(self) -> Callable[[Tensor, Batch], OutputMatrix]:
        if self.draws is None:
            return lambda f, batch: expected_outer_product(self._loss, f, batch.targets)
        draws, random = self.draws, np.random.default_rng(self.seed)

        def matrix(outputs: Tensor, batch: Batch) -> OutputMatrix:
            scores = drawn_scores(self._loss, outputs, batch.targets, draws, random)

            def product(vector: Tensor) -> Tensor:
                total = torch.zeros_like(vector)
                for score in scores:
                    total += score * by_sample(score * vector)
                return total / draws

            return product

        return matrix


class EmpiricalFisherOperator(OutputsOperator):
    r"""E = 1/W sum_i w_i g_i g_i^T, g_i the gradient of sample i's mean loss at its true target.

    The second moment of the samples' gradients. It is not the Fisher information, nor near it where
    the network is not the truth: at a perfect fit it is 0 while the Fisher need not be
    (Kunstner et al. 2019, section 3).

    Arguments, attributes and errors are those of `OutputsOperator`.
    """

    def _matrices(self) -> Callable[[Tensor, Batch], OutputMatrix]:
        def matrix(outputs: Tensor, batch: Batch) -> OutputMatrix:
            _, score = loss_gradient(self._loss, outputs, batch.targets)
            weights = self._loss(outputs, batch.targets).weights.to(score.dtype)
            inverse = torch.where(weights > 0, 1 / weights, 0.0)
            inverse = inverse.reshape(-1, *[1] * (score.ndim - 1))
            return lambda vector: inverse * score * by_sample(score * vector)

        return matrix


class GradientCovarianceOperator(EmpiricalFisherOperator):
    r"""C = 1/W sum_i w_i (g_i - g)(g_i - g)^T = E - g g^T, g the gradient of L.

    The covariance of the samples' gradients: that of a mini-batch of B drawn with replacement is
    C / B.

    Arguments, attributes and errors are those of `OutputsOperator`.
    """

    def __init__(
        self,
        problem: Problem,
        parameters: Iterable[str] | None = None,
        *,
        at: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(problem, parameters, at=at)
        gradient = problem.gradient(at)
        parts = [gradient[name].reshape(-1) for name in self.shapes]
        self._gradient = torch.cat(parts).to(self._sums).double()

    def _sum_over_batches(self, parts: dict[str, Tensor]) -> Tensor:
        vector = torch.cat([part.reshape(-1) for part in parts.values()]).to(self._sums).double()
        mean = self._gradient * torch.dot(self._gradient, vector)
        return super()._sum_over_batches(parts) - self._problem.total_weight * mean
