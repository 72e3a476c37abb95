"""What matrices of second derivatives of a problem share: variables, products, sums over data."""

from __future__ import annotations

import difflib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from isoloss.errors import IsolossError, is_out_of_memory
from isoloss.hessian.operators.kernels import ProductKernels
from isoloss.hessian.operators.protocol import OperatorError, check_matrix, check_vector
from isoloss.hessian.operators.vectors import pieces
from isoloss.landscape.finite import where_not_finite
from isoloss.landscape.kernels import (
    is_of_cudnn_recurrence,
    no_checkpointing,
    second_derivatives,
    without_cudnn,
)
from isoloss.landscape.memory import make_room, release_freed
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import unflatten

G = TypeVar("G")  # what one micro-batch's products are differentiated from


class ParameterNameError(IsolossError, LookupError):
    """A parameter the network does not have."""


class NotTwiceDifferentiableError(IsolossError, RuntimeError):
    """A network or loss without second derivatives."""


class ProblemOperator(ABC, Generic[G]):
    """A matrix sum_i A_i / W over the samples of a problem, W their total weight, at fixed weights.

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
        # Batch-norm statistics that follow the weights are variables of their own at first.
        self._variables = {**self._leaves, **self._statistics}
        self._keep = problem.plan.product_strategy == "kept-graph"
        self._kept: list[G] | None = None
        self._cudnn = True
        self._kernels = ProductKernels()
        self.shapes = {name: tensor.shape for name, tensor in self._leaves.items()}
        self.size = sum(tensor.numel() for tensor in self._leaves.values())
        self.dtype = problem.dtype
        self.device = problem.device
        # Apple's GPUs have no float64: sums are formed on the CPU there.
        self._sums = torch.device("cpu") if self.device.type == "mps" else self.device
        self.products = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the kept graphs. A later product would build them again."""
        self._kept = None

    def _graphs(self) -> Iterator[G]:
        """Yield the graph of each micro-batch that products differentiate, kept or fresh."""
        if not self._keep:
            yield from self._fresh_graphs()
            return
        if self._kept is None:
            self._kept = list(self._fresh_graphs())
        yield from self._kept

    @abstractmethod
    def _fresh_graphs(self) -> Iterator[G]:
        """Yield them, each built as it is asked for."""

    @abstractmethod
    def _sum_over_batches(self, parts: dict[str, Tensor]) -> Tensor:
        """Return sum_i A_i v over all samples, (n,), as `_zeros`, for v cut into parts by name."""

    def matvec(self, vector: Tensor) -> Tensor:
        """Return A v.

        Args:
            vector: v, shape (n,), of the operator's dtype.

        Returns:
            Shape (n,), of the operator's dtype, on its device.

        Raises:
            OperatorError: If the vector does not fit.
            NotTwiceDifferentiableError: If the network or the loss has no second derivative.
        """
        check_vector(self, vector)
        total = self._product(unflatten(vector.detach().to(self.device), self._leaves))
        self.products += 1
        mean = total if total.dtype == self.dtype else torch.empty_like(total, dtype=self.dtype)
        for piece in pieces(len(total)):
            mean[piece] = total[piece].double() / self._problem.total_weight
        return mean.to(self.device)

    def matmat(self, matrix: Tensor) -> Tensor:
        """Return A V for the columns of V, shape (n, k), one product each.

        Products with several vectors at once (vmap) were measured to gain nothing.
        """
        check_matrix(self, matrix)
        if not matrix.shape[1]:
            return torch.empty_like(matrix, device=self.device)
        return torch.stack([self.matvec(column) for column in matrix.T], dim=1)

    def where_not_finite(self, product: Tensor) -> str:
        """Return in words where the entries of a product that are not finite come from."""
        parts = unflatten(product, self._leaves)
        lost = {name: int((~part.isfinite()).sum()) for name, part in parts.items()}
        name = next(name for name, count in lost.items() if count)
        others = sum(map(bool, lost.values())) - 1
        more = f", and of {others} other parameters" if others else ""
        source = where_not_finite(self._problem, self._point)
        return (
            f"(in those of {name}, {lost[name]:,} of {parts[name].numel():,}{more}"
            f"{f'; {source}' if source else ''})"
        )

    def _product(self, parts: dict[str, Tensor]) -> Tensor:
        """Return the sum over the batches, in another way where the first one does not work."""
        while True:
            try:
                with self._differentiably():
                    return self._sum_over_batches(parts)
            except (RuntimeError, MemoryError) as error:
                self.close()
                if is_out_of_memory(error):
                    make_room(self._problem, error, graphs=self._keep)
                    self._keep = False
                elif self._cudnn and is_of_cudnn_recurrence(error):
                    self._cudnn = False
                else:
                    _explain(error)
                    raise

    @contextmanager
    def _differentiably(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(second_derivatives())
            stack.enter_context(no_checkpointing())
            stack.enter_context(self._kernels)
            if not self._cudnn:
                stack.enter_context(without_cudnn())
            yield

    def _zeros(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a vector of all variables, for sums over the batches, and its parts by name.

        It is float64, but where there is a single batch, whose sum needs no more than it has.
        """
        size = sum(tensor.numel() for tensor in self._variables.values())
        batches = self._problem.micro_batches(self._problem.plan.product_batch)
        single = len(list(itertools.islice(batches, 2))) == 1 and not self._statistics
        single = single and self._problem.group.size == 1
        dtype = self.dtype if single else torch.float64
        if self._sums.type == "cpu":
            # NumPy's zeros take memory as they are written: here while products are freed.
            wide = np.float64 if dtype == torch.float64 else np.float32
            total = torch.from_numpy(np.zeros(size, dtype=wide))
        else:
            total = torch.zeros(size, dtype=dtype, device=self._sums)
        return total, unflatten(total, self._variables)

    def _add(self, sums: dict[str, Tensor], products: Iterable[Tensor | None]) -> None:
        """Add a batch's products by the variables, freeing each one."""
        left = list(products)[::-1]
        del products  # the caller holds none of them either
        for entry in sums.values():
            product = left.pop()
            if product is not None:
                entry += product.to(self._sums)
        release_freed(self.size * self.dtype.itemsize)

    def _pull_back_statistics(self, sums: dict[str, Tensor]) -> None:
        """Add (ds/dtheta)^T of what was summed for the statistics to the parameters' sums."""
        recalibration = self._problem.recalibration
        if recalibration is not None and self._statistics:
            pulled = recalibration.pull_back(self._point, self._leaves, sums)
            for name, part in pulled.items():
                sums[name] += part


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


def _explain(error: Exception) -> None:
    """Raise ours for torch's errors about missing second derivatives."""
    text = str(error)
    phrases = ("derivative for", "once_differentiable", "double backward", "Double backward")
    if any(phrase in text for phrase in phrases):
        raise NotTwiceDifferentiableError(
            "expected a network and a loss with second derivatives, got a function that has none\n"
            f"{text.splitlines()[0]}\n"
            "replace it by differentiable torch functions, or leave its parameters out"
        ) from error
