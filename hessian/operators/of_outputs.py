r"""Matrices sum_i J_i^T M_i J_i / W with M_i of the loss and J_i the Jacobian of the network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor

from isoloss.hessian.operators.of_problem import ProblemOperator
from isoloss.hessian.operators.protocol import OperatorError, check_vector
from isoloss.landscape.batch_norm import differentiable_statistics
from isoloss.landscape.batches import Batch
from isoloss.landscape.losses import PerSampleLoss
from isoloss.landscape.objective import OfOutputs
from isoloss.landscape.problem import Problem
from isoloss.landscape.terms import Terms
from isoloss.landscape.vectors import unflatten

# M u for vectors u of the outputs' shape.
OutputMatrix = Callable[[Tensor], Tensor]


class _Graph(NamedTuple):
    """One batch: weights of its samples, f(theta), J^T u as a function of u, and M."""

    weights: Tensor
    outputs: Tensor
    cotangent: Tensor
    positions: list[int]
    pulled: list[Tensor]
    matrix: OutputMatrix


class OutputsOperator(ProblemOperator[_Graph]):
    r"""sum_i J_i^T M_i J_i / W with J_i = d f(theta, x_i) / d theta, exact.

    J v is the derivative by u of J^T u, which is linear in u (double backward), so that any network
    with derivatives is served. Graphs are kept or made anew as for `HessianOperator`. Under the
    batch-norm policy `"recalibrate"` the outputs are f(theta, s(theta)), and J runs through s.

    Arguments, attributes and errors are those of `ProblemOperator`.

    Raises:
        OperatorError: If the loss is a closure, or the outputs are no tensor with a row a sample.
    """

    def __init__(
        self,
        problem: Problem,
        parameters: Iterable[str] | None = None,
        *,
        at: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._loss = loss_of(problem)
        super().__init__(problem, parameters, at=at)

    @abstractmethod
    def _matrices(self) -> Callable[[Tensor, Batch], OutputMatrix]:
        """Begin a pass over the data: return what makes M of each batch's outputs, in order.

        The outputs, (batch, ...), have no graph.
        """

    def _sum_over_batches(self, parts: dict[str, Tensor]) -> Tensor:
        total, sums = self._zeros()
        variables = list(self._variables.values())
        moved_parts = parts | self._moved_statistics(parts)
        vectors = [moved_parts[name] for name in self._variables]
        for graph in self._graphs():
            moved = _pushed(graph, vectors)
            self._add(
                sums,
                torch.autograd.grad(
                    graph.outputs,
                    variables,
                    graph.matrix(moved),
                    retain_graph=self._keep,
                    allow_unused=True,
                ),
            )
        self._problem.group.add_up(total)
        self._pull_back_statistics(sums)
        return total[: self.size]

    def sample_curvatures(self, vector: Tensor) -> Terms:
        """Return v^T A_i v = (J_i v)^T M_i (J_i v) of each sample, and its weight.

        Args:
            vector: v, shape (n,).

        Returns:
            (count,) each, float64 on the CPU; the sums divided by the sum of weights are v^T A v.

        Raises:
            OperatorError: If the vector does not fit, or batch norm couples the samples.
        """
        check_vector(self, vector)
        if self._problem.bn != "eval":
            raise OperatorError(
                f"batch norm under the policy {self._problem.bn!r} couples the samples: none has a "
                "curvature of its own"
            )
        parts = unflatten(vector.detach().to(self.device), self._leaves)
        vectors, columns = [parts[name] for name in self._variables], []
        with self._differentiably():
            for graph in self._graphs():
                moved = _pushed(graph, vectors)
                curved = (moved * graph.matrix(moved)).flatten(1).sum(1)
                columns.append(torch.stack([curved, graph.weights]).cpu().double())
        own = torch.cat(columns, dim=1) if columns else torch.zeros(2, 0, dtype=torch.float64)
        sums, weights = self._problem.group.side_by_side(own)
        if len(sums) != self._problem.count:
            raise OperatorError("the outputs of some batches do not depend on the parameters")
        return Terms(sums, weights)

    def _moved_statistics(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return (ds/dtheta) v."""
        recalibration = self._problem.recalibration
        if recalibration is None or not self._statistics:
            return {}
        zeros = {name: torch.zeros_like(t) for name, t in self._statistics.items()}
        moved, _ = recalibration.second_order(self._point, self._leaves, zeros, parts)
        return {name: t.to(self.device, self.dtype) for name, t in moved.items()}

    def _fresh_graphs(self) -> Iterator[_Graph]:
        variables, matrix_of = list(self._variables.values()), self._matrices()
        for batch in batches_of(self._problem):
            outputs = outputs_of(self._problem, self._buffers | self._point, batch)
            matrix = matrix_of(outputs.detach(), batch)
            weights = self._loss(outputs.detach(), batch.targets).weights.to(outputs.dtype)
            if not outputs.requires_grad:
                continue
            cotangent = torch.zeros_like(outputs, requires_grad=True)
            with self._kernels.linear_in_cotangents():
                found = torch.autograd.grad(
                    outputs, variables, cotangent, create_graph=True, allow_unused=True
                )
            used = {
                position: part
                for position, part in enumerate(found)
                if part is not None and part.requires_grad
            }
            if used:
                yield _Graph(weights, outputs, cotangent, list(used), list(used.values()), matrix)


def _pushed(graph: _Graph, vectors: Sequence[Tensor]) -> Tensor:
    """Return J v of a batch: the derivative by u of v^T (J^T u)."""
    chosen = [vectors[position] for position in graph.positions]
    (moved,) = torch.autograd.grad(graph.pulled, [graph.cotangent], chosen, retain_graph=True)
    return moved


def outputs_of(problem: Problem, state: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Return what the network puts out, (batch, ...), with tensors of it replaced by name.

    Raises:
        OperatorError: If that is no tensor with a row a sample.
    """
    objective = _of_outputs(problem)
    moving = any(t.requires_grad for n, t in state.items() if n not in problem.parameters)
    with differentiable_statistics(objective.model) if moving else nullcontext():
        outputs = objective.outputs_at(state, batch)
    fits = isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.ndim
    if not fits or len(outputs) != batch.count:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise OperatorError(
            f"expected a tensor from the network with a row for each of {batch.count} samples, "
            f"got {got}\nuse the Hessian, which needs no outputs"
        )
    return cast(Tensor, outputs)


def batches_of(problem: Problem) -> Iterator[Batch]:
    """Yield the batches of a problem whose loss is one of outputs."""
    return cast(Iterator[Batch], problem.product_batches())


def loss_of(problem: Problem) -> PerSampleLoss:
    """Return the loss of a problem, apart from its network.

    Raises:
        OperatorError: If the loss is a closure.
    """
    return _of_outputs(problem).loss


def loss_gradient(
    loss: PerSampleLoss, outputs: Tensor, targets: Tensor, *, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Return outputs as a leaf, and d (sum of losses) / d outputs there."""
    leaf = outputs.detach().requires_grad_()
    total = loss(leaf, targets).sums.sum()
    (gradient,) = torch.autograd.grad(total, leaf, create_graph=create_graph)
    return leaf, gradient


def _of_outputs(problem: Problem) -> OfOutputs:
    if not isinstance(problem.objective, OfOutputs):
        raise OperatorError(
            "expected a loss of the network's outputs, got a closure, which does not tell network "
            "and loss apart\ngive loss(outputs, targets) instead, or use the Hessian"
        )
    return problem.objective


def by_sample(values: Tensor) -> Tensor:
    """Return the sum over all dimensions but the first, kept as dimensions of size 1."""
    return values.flatten(1).sum(1).reshape(-1, *[1] * (values.ndim - 1))
