"""Curvature in units of the filters: T A T with a diagonal T, and the T of filter normalisation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from isoloss.hessian.operators.protocol import (
    LinearOperator,
    OperatorError,
    check_matrix,
    check_vector,
)
from isoloss.landscape.normalisation import normalise
from isoloss.landscape.vectors import unflatten


class ScaledOperator:
    """T A T for a symmetric A and a diagonal T.

    Example:
        >>> from isoloss.hessian.operators.matrix import MatrixOperator
        >>> operator = ScaledOperator(MatrixOperator(torch.eye(2)), torch.tensor([2.0, 0.0]))
        >>> operator.matvec(torch.tensor([1.0, 1.0]))
        tensor([4., 0.])

    Args:
        operator: A, of size n.
        scale: The diagonal of T, shape (n,), finite.

    Raises:
        OperatorError: If the scale does not fit the operator, or is not finite.
    """

    def __init__(self, operator: LinearOperator, scale: Tensor) -> None:
        if scale.shape != (operator.size,) or not bool(torch.isfinite(scale).all()):
            raise OperatorError(
                f"expected a scale of shape ({operator.size},) with finite entries, "
                f"got shape {tuple(scale.shape)}"
            )
        self.operator = operator
        self.scale = scale.to(operator.device, operator.dtype)
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def matvec(self, vector: Tensor) -> Tensor:
        """Return T A T v, shape (n,), for v of shape (n,)."""
        check_vector(self, vector)
        return self.scale * self.operator.matvec(self.scale * vector.to(self.device))

    def matmat(self, matrix: Tensor) -> Tensor:
        """Return T A T V, shape (n, k), for V of shape (n, k)."""
        check_matrix(self, matrix)
        scale = self.scale[:, None]
        return scale * self.operator.matmat(scale * matrix.to(self.device))

    def where_not_finite(self, product: Tensor) -> str:
        """Return in words where the entries of a product that are not finite come from."""
        where = getattr(self.operator, "where_not_finite", None)
        return "" if where is None else str(where(product))


def filter_scale(parameters: Mapping[str, Tensor]) -> Tensor:
    r"""Return T = ||w_f|| / sqrt(n_f) for each entry of a filter f of n_f entries.

    It is the root mean square of the filter's weights, and 0 for tensors with at most one
    dimension (biases, batch norm), which the rule `biasbn` ignores (see
    `landscape.normalisation`). Filters are slices along dimension 0.

    With H the Hessian, tr(T H T) is the mean curvature E[d^T H d] over the directions d of
    filter-normalised surfaces: T g with Gaussian g has the covariance T^2, and so does a filter
    drawn uniformly on the sphere of radius ||w_f||, which exact normalisation gives. Both means
    are exactly tr(T H T), for filters of any size; only the spread of d^T H d differs. It holds
    for one random direction; the second of a plane is made orthogonal to the first.

    T H T does not change where a layer is multiplied by a > 0 and the next one divided by it,
    with a ReLU between them. Where single units are rescaled by different factors it does: a
    filter of the next layer holds one weight for each of them.

    Example:
        >>> filter_scale({"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.ones(1)})
        tensor([3.5355, 3.5355, 0.0000])

    Args:
        parameters: Weights by name, as `Problem.parameters`.

    Returns:
        Shape (n,), of the weights' dtype, in the order of an operator's vectors.
    """
    first = next(iter(parameters.values()))
    scale = first.new_empty(sum(tensor.numel() for tensor in parameters.values()))
    for name, part in unflatten(scale, parameters).items():  # no float64 copy of the whole
        weights = {name: parameters[name].detach().cpu().double()}
        ones = {name: torch.ones_like(weights[name])}
        part.copy_(normalise(ones, weights, "filter", "biasbn")[name])
    return scale
