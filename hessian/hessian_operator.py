"""The Hessian of a mean loss as a linear operator, by automatic differentiation."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Self

import torch
from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.hessian.operators import OperatorError, check_matrix, check_vector
from isoloss.landscape.kernels import (
    is_of_cudnn_recurrence,
    no_checkpointing,
    second_derivatives,
    without_cudnn,
)
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import unflatten

# Gradients of one micro-batch that depend on the variables, with their variables' positions.
GradientGraph = tuple[list[int], list[Tensor]]


class ParameterNameError(IsolossError, LookupError):
    """A parameter the network does not have."""


class NotTwiceDifferentiableError(IsolossError, RuntimeError):
    """A network or loss without second derivatives."""


class HessianOperator:
    r"""H = 1/W sum_i d^2 loss_i(f(theta, x_i), y_i) / d theta^2 at fixed weights.

    A product is the exact derivative H v = d (g^T v) / d theta of the gradient g, summed in
    float64 over the micro-batches of the problem's data and divided once by their total weight W
    (`problem.total_weight`, N for a plain mean): how the data is cut changes nothing but
    rounding. Where g does not depend on a parameter (piecewise linear networks, parameters the
    loss does not use), its rows are 0.

    Under the batch-norm policy `"recalibrate"` it is the Hessian of L(theta, s(theta)), the
    function that a surface shows: with J = ds/dtheta and partial derivatives of L(theta, s),

        H v = L_tt v + L_ts J v + J^T (L_st v + L_ss J v) + (d^2 (u^T s) / dtheta^2) v,    u = L_s.

    Two strategies, chosen by `problem.plan.product_strategy`:

    - `"kept-graph"`: the gradient's graph of every micro-batch is built at the first product and
      held, so that each product costs one backward pass. Memory grows with the number of samples;
      it is freed by `close`, on leaving a `with` block, or with the operator.
    - `"recompute"`: a fresh graph for each micro-batch of each product; the memory of one.

    Example:
        >>> from torch import nn
        >>> x, y = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
        >>> problem = Problem(nn.Linear(1, 1, bias=False), nn.MSELoss(), [(x, y)])
        >>> with HessianOperator(problem) as hessian:
        ...     hessian.matvec(torch.ones(1))  # 2 mean(x^2)
        tensor([10.])

    Args:
        problem: The loss as a function of the weights.
        parameters: Names of the parameters to differentiate by; all where None. Their order is
            the problem's.
        at: The point, a tensor for each name of `problem.parameters` and for buffers that move;
            theta0 where None.

    Attributes:
        size: Number of entries n of the chosen parameters.
        dtype: Type of the vectors, the problem's.
        device: The problem's device.
        shapes: Shape of each chosen parameter by name, in the order of a vector's entries.
        products: Number of products so far.

    Raises:
        ParameterNameError: For names the problem does not have.
        OperatorError: If no parameter is chosen.
    """

    def __init__(
        self,
        problem: Problem,
        parameters: Iterable[str] | None = None,
        *,
        at: Mapping[str, Tensor] | None = None,
    ) -> None:
        point = problem.parameters if at is None else at
        names = _chosen_names(problem.parameters, parameters)
        self._problem = problem
        self._leaves = {name: point[name].detach().requires_grad_() for name in names}
        self._point = {name: point[name].detach() for name in problem.parameters} | self._leaves
        buffers = problem.buffers_at({n: t.detach() for n, t in point.items()})
        recalibration = problem.recalibration
        self._statistics = {} if recalibration is None else recalibration.leaves(buffers)
        self._buffers = {**buffers, **self._statistics}
        self._variables = {**self._leaves, **self._statistics}
        self._adjoint: dict[str, Tensor] | None = None
        self._keep = problem.plan.product_strategy == "kept-graph"
        self._graphs: list[GradientGraph] | None = None
        self._cudnn = True
        self._checked = False
        self.shapes = {name: tensor.shape for name, tensor in self._leaves.items()}
        self.size = sum(tensor.numel() for tensor in self._leaves.values())
        self.dtype = problem.dtype
        self.device = problem.device
        self.products = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the kept graphs. A later product would build them again."""
        self._graphs = None

    def matvec(self, vector: Tensor) -> Tensor:
        """Return H v.

        Args:
            vector: v, shape (n,), of the operator's dtype.

        Returns:
            Shape (n,), of the operator's dtype, on its device.

        Raises:
            OperatorError: If the vector does not fit.
            NotTwiceDifferentiableError: If the network or the loss has no second derivative.
        """
        check_vector(self, vector)
        parts = unflatten(vector.detach().to(self.device), self._leaves)
        try:
            total = self._sum_over_batches(parts)
        except RuntimeError as error:
            if not is_of_cudnn_recurrence(error) or not self._cudnn:
                _explain(error)
                raise
            self._cudnn, self._graphs = False, None
            total = self._sum_over_batches(parts)
        self.products += 1
        return (total / self._problem.total_weight).to(self.device, self.dtype)

    def matmat(self, matrix: Tensor) -> Tensor:
        """Return H V for the columns of V, shape (n, k), one product each.

        Products with several vectors at once (vmap) were measured to gain nothing.
        """
        check_matrix(self, matrix)
        if not matrix.shape[1]:
            return torch.empty_like(matrix, device=self.device)
        return torch.stack([self.matvec(column) for column in matrix.T], dim=1)

    def _sum_over_batches(self, parts: dict[str, Tensor]) -> Tensor:
        """Return sum_i d (g_i^T v) / d theta over all samples, (n,) float64."""
        recalibration = self._problem.recalibration
        # Apple's GPUs have no float64: the sum is formed on the CPU there.
        where = torch.device("cpu") if self.device.type == "mps" else self.device
        size = sum(tensor.numel() for tensor in self._variables.values())
        total = torch.zeros(size, dtype=torch.float64, device=where)
        sums = unflatten(total, self._variables)
        variables = list(self._variables.values())
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(second_derivatives())
            stack.enter_context(no_checkpointing())
            if not self._cudnn:
                stack.enter_context(without_cudnn())
            if recalibration is not None and self._statistics:
                adjoint = self._statistics_gradient(where)
                moved, curved = recalibration.second_order(
                    self._point, self._leaves, adjoint, parts
                )
                parts = parts | {n: t.to(self.device, self.dtype) for n, t in moved.items()}
                for name, part in curved.items():
                    sums[name] += part
            vectors = [parts[name] for name in self._variables]
            for positions, gradients in self._gradients():
                products = torch.autograd.grad(
                    gradients,
                    variables,
                    [vectors[position] for position in positions],
                    retain_graph=self._keep,
                    allow_unused=True,
                )
                for entry, product in zip(sums.values(), products, strict=True):
                    if product is not None:
                        entry += product.to(where)
            if recalibration is not None and self._statistics:
                pulled = recalibration.pull_back(self._point, self._leaves, sums)
                for name, part in pulled.items():
                    sums[name] += part
        return total[: self.size]

    def _statistics_gradient(self, where: torch.device) -> dict[str, Tensor]:
        """Return u = sum_i d loss_i / d s at constant theta, computed once."""
        if self._adjoint is None:
            variables = list(self._statistics.values())
            found = {
                name: torch.zeros(tensor.shape, dtype=torch.float64, device=where)
                for name, tensor in self._statistics.items()
            }
            for batch in self._problem.product_batches():
                loss = self._problem.loss_sum(self._point, batch, self._buffers)
                if not loss.requires_grad:
                    continue
                parts = torch.autograd.grad(loss, variables, materialize_grads=True)
                for name, part in zip(self._statistics, parts, strict=True):
                    found[name] += part.to(where)
            self._adjoint = {n: t.to(self.device, self.dtype) for n, t in found.items()}
        return self._adjoint

    def _gradients(self) -> Iterator[GradientGraph]:
        """Yield the gradient graph of each micro-batch, kept or fresh."""
        if not self._keep:
            yield from self._fresh_gradients()
            return
        if self._graphs is None:
            self._graphs = list(self._fresh_gradients())
        yield from self._graphs

    def _fresh_gradients(self) -> Iterator[GradientGraph]:
        variables = list(self._variables.values())
        for batch in self._problem.product_batches():
            loss = self._problem.loss_sum(self._point, batch, self._buffers)
            if not loss.requires_grad:
                continue
            gradients = torch.autograd.grad(loss, variables, create_graph=True, allow_unused=True)
            graph: GradientGraph = ([], [])
            for position, gradient in enumerate(gradients):
                # A gradient that is None or constant in the parameters has derivative 0.
                if gradient is not None and gradient.requires_grad:
                    graph[0].append(position)
                    graph[1].append(gradient)
            if not self._checked:
                _check_twice_differentiable(graph[1])
                self._checked = True
            if graph[0]:
                yield graph


def _chosen_names(point: Mapping[str, Tensor], parameters: Iterable[str] | None) -> list[str]:
    if parameters is None:
        return list(point)
    if isinstance(parameters, str):
        raise OperatorError(
            f"expected an iterable of parameter names, got the string {parameters!r}\n"
            f"pass [{parameters!r}]"
        )
    asked = list(parameters)
    for name in asked:
        if name not in point:
            near = difflib.get_close_matches(name, point, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(point)}"
            raise ParameterNameError(f"no parameter is named {name!r} among {len(point)}\n{hint}")
    if not asked:
        raise OperatorError("expected at least one parameter name, got none (None means all)")
    return [name for name in point if name in asked]


def _check_twice_differentiable(gradients: list[Tensor]) -> None:
    """Refuse gradients through functions marked `once_differentiable`.

    torch leaves an error node there, but off the path to the parameters: the product would
    silently lack those terms.
    """
    nodes = [gradient.grad_fn for gradient in gradients]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("a function of the network is marked @once_differentiable")
        nodes.extend(following for following, _ in node.next_functions)


def _explain(error: RuntimeError) -> None:
    """Raise ours for torch's errors about missing second derivatives."""
    text = str(error)
    phrases = ("derivative for", "once_differentiable", "double backward", "Double backward")
    if any(phrase in text for phrase in phrases):
        raise NotTwiceDifferentiableError(
            "expected a network and a loss with second derivatives, got a function that has none\n"
            f"{text.splitlines()[0]}\n"
            "replace it by differentiable torch functions, or leave its parameters out"
        ) from error
