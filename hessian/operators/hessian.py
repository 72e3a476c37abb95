"""The Hessian of a mean loss as a linear operator, by automatic differentiation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from isoloss.hessian.operators.of_problem import ProblemOperator
from isoloss.landscape.batches import Samples
from isoloss.landscape.problem import Problem

# Gradients of one micro-batch that depend on the variables, with their variables' positions: the
# places in the graph where they are computed, so that their values, as large as the weights, are
# not held.
GradientGraph = tuple[list[int], list[GradientEdge]]


class HessianOperator(ProblemOperator[GradientGraph]):
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

    Arguments, attributes and errors are those of `ProblemOperator`.
    """

    def __init__(
        self,
        problem: Problem,
        parameters: Iterable[str] | None = None,
        *,
        at: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(problem, parameters, at=at)
        self._adjoint: dict[str, Tensor] | None = None
        self._checked = False

    def _sum_over_batches(self, parts: dict[str, Tensor]) -> Tensor:
        """Return sum_i d (g_i^T v) / d theta over all samples, (n,)."""
        recalibration = self._problem.recalibration
        total, sums = self._zeros()
        variables = list(self._variables.values())
        curved: dict[str, Tensor] = {}
        if recalibration is not None and self._statistics:
            adjoint = self._statistics_gradient()
            moved, curved = recalibration.second_order(self._point, self._leaves, adjoint, parts)
            parts = parts | {n: t.to(self.device, self.dtype) for n, t in moved.items()}
        vectors = [parts[name] for name in self._variables]
        for positions, gradients in self._graphs():
            self._add(
                sums,
                torch.autograd.grad(
                    gradients,
                    variables,
                    [vectors[position] for position in positions],
                    retain_graph=self._keep,
                    allow_unused=True,
                ),
            )
        self._problem.group.add_up(total)
        for name, part in curved.items():
            sums[name] += part
        self._pull_back_statistics(sums)
        return total[: self.size]

    def _loss_sum(self, batch: Samples) -> Tensor:
        """Return the sum over a batch of what is differentiated."""
        return self._problem.loss_sum(self._point, batch, self._buffers)

    def _statistics_gradient(self) -> dict[str, Tensor]:
        """Return u = sum_i d loss_i / d s at constant theta, computed once."""
        if self._adjoint is None:
            variables = list(self._statistics.values())
            found = {
                name: torch.zeros(tensor.shape, dtype=torch.float64, device=self._sums)
                for name, tensor in self._statistics.items()
            }
            for batch in self._problem.product_batches():
                loss = self._loss_sum(batch)
                if not loss.requires_grad:
                    continue
                parts = torch.autograd.grad(loss, variables, materialize_grads=True)
                for name, part in zip(self._statistics, parts, strict=True):
                    found[name] += part.to(self._sums)
            add_up = self._problem.group.add_up
            self._adjoint = {n: add_up(t).to(self.device, self.dtype) for n, t in found.items()}
        return self._adjoint

    def _fresh_graphs(self) -> Iterator[GradientGraph]:
        variables = list(self._variables.values())
        for batch in self._problem.product_batches():
            loss = self._loss_sum(batch)
            if not loss.requires_grad:
                continue
            gradients = torch.autograd.grad(loss, variables, create_graph=True, allow_unused=True)
            graph: GradientGraph = ([], [])
            for position, gradient in enumerate(gradients):
                # A gradient that is None or constant in the parameters has derivative 0.
                if gradient is not None and gradient.requires_grad:
                    graph[0].append(position)
                    graph[1].append(get_gradient_edge(gradient))
            del gradients, gradient
            if not self._checked:
                _check_twice_differentiable(graph[1])
                self._checked = True
            if graph[0]:
                yield graph


def _check_twice_differentiable(gradients: list[GradientEdge]) -> None:
    """Refuse gradients through functions marked `once_differentiable`.

    torch leaves an error node there, but off the path to the parameters: the product would
    silently lack those terms.
    """
    nodes: list[Node | None] = [gradient.node for gradient in gradients]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("a function of the network is marked @once_differentiable")
        nodes.extend(following for following, _ in node.next_functions)
