"""A network with its loss as one module of a batch: the one path of a loss and of a closure.

`torch.func.functional_call` on the whole swaps the network's tensors while the loss is computed.
Whatever the loss does with the network then (calls it, a part or a method of it, reads its
parameters) sees the weights it is evaluated at.
"""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from isoloss.landscape.activations import size_of
from isoloss.landscape.batch_norm import HALF
from isoloss.landscape.batches import Batch, Samples, as_batch
from isoloss.landscape.contents import Content, as_content
from isoloss.landscape.determinism import ProblemError
from isoloss.landscape.kernels import same_without_gradients
from isoloss.landscape.losses import PerSampleLoss, per_sample_loss
from isoloss.landscape.metrics import no_metric, top1
from isoloss.landscape.terms import Terms, as_terms

Metric = Callable[[Any, Any], Any]
# Computes the outputs of a batch.
Network = Callable[[Batch], Any]
# Bytes of outputs that are kept before they are compared with the targets, about.
HELD_OUTPUTS = 2**20
# Of the loss, of the metric where it was asked for, and of further ones.
Counted = tuple[Terms, Terms | None, *tuple[Terms, ...]]


@dataclass(frozen=True)
class Closure:
    """A loss that calls the network itself, where `loss(outputs, targets)` cannot say it.

    Attributes:
        function: `closure(model, batch)` returns one value a sample, (batch,) or (batch, ...), or
            a pair (sums, weights) of shape (batch,) each. The batch has the structure it was
            given with; gradients are enabled.
    """

    function: Callable[[Any, Any], Any]

    @property
    def name(self) -> str:
        """What it is called in errors."""
        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        return str(getattr(function, "__qualname__", type(function).__name__))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Closure:
        """Return the closure with its own tensors, if it is a module, as constants on a device."""
        if not isinstance(self.function, nn.Module):
            return self
        own = copy.deepcopy(self.function).to(device, dtype).eval()
        return Closure(own.requires_grad_(False))


Loss = Closure | PerSampleLoss | nn.Module | Callable[[Any, Tensor], Any]


class Objective(nn.Module):
    """What each sample adds to the loss, as a module of a batch.

    Attributes:
        model: The network.
        has_outputs: Whether it is a loss of outputs of the network, apart from each other. Matrices
            made of both, as the generalised Gauss-Newton matrix, exist only then.
    """

    has_outputs: bool

    def __init__(self, model: nn.Module, half: bool) -> None:
        super().__init__()
        self.model, self._half = model, half

    def identity(self) -> dict[str, Any]:
        """Return what of the loss is part of a problem's identity, JSON-able."""
        return {}

    @abstractmethod
    def read(self, item: Any) -> Samples:
        """Recognise one batch."""

    @abstractmethod
    def forward(self, batch: Any, metric: bool = False, others: Sequence[Metric] = ()) -> Counted:
        """Return sum and weight of each sample, and those of the metric where asked for.

        Args:
            batch: From `read`.
            metric: Whether to count the metric.
            others: Further metrics, counted after it.
        """

    def at(self, state: Mapping[str, Tensor], batch: Samples) -> Terms:
        """Return the loss with tensors of the network replaced, by their names in it."""
        placed = {f"model.{name}": tensor for name, tensor in state.items()}
        terms: Terms = functional_call(self, placed, (batch,))[0]
        return terms

    def passed(
        self,
        state: Mapping[str, Tensor],
        batches: Iterable[Any],
        others: Sequence[Metric] = (),
        network: Network | None = None,
    ) -> list[Counted]:
        """Return loss and metrics of all batches, in order, without gradients.

        The tensors of the network are replaced once for all of them.

        Args:
            state: The tensors that are replaced, by their names in the network.
            batches: From `read`.
            others: Further metrics, counted after the objective's own.
            network: Computes outputs in place of the network, with the same tensors.

        Returns:
            The pairs of one or more batches each.
        """
        placed = {f"model.{name}": tensor for name, tensor in state.items()}
        with torch.no_grad():
            found: list[Counted] = functional_call(
                _Holding(self.model, lambda: list(self._pass(batches, others, network))), placed, ()
            )
        return found

    def _pass(
        self, batches: Iterable[Any], others: Sequence[Metric], network: Network | None
    ) -> Iterator[Counted]:
        return (self(batch, True, others) for batch in batches)

    def over(self, model: nn.Module) -> Self:
        """Return the same loss of another network."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, "model": model}
        return twin

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._half:
            return nullcontext()
        device = next(self.model.parameters()).device
        return torch.autocast(device.type, dtype=torch.bfloat16)


class OfOutputs(Objective):
    """`loss(model(inputs), targets)`.

    Attributes:
        loss: What gives the terms of outputs and targets.
    """

    has_outputs = True

    def __init__(self, model: nn.Module, loss: PerSampleLoss, metric: Metric, half: bool) -> None:
        super().__init__(model, half)
        self.loss, self._metric = loss, metric

    def read(self, item: Any) -> Batch:
        """Recognise a pair, a dictionary or a graph batch."""
        return as_batch(item)

    def forward(self, batch: Batch, metric: bool = False, others: Sequence[Metric] = ()) -> Counted:
        """Call the network, then the loss in full precision."""
        outputs = self._call(batch)
        if not metric:
            return self.loss(outputs, batch.targets), None
        return self._counted(outputs, batch.targets, others)

    def _counted(self, outputs: Any, targets: Tensor, others: Sequence[Metric]) -> Counted:
        terms = self.loss(outputs, targets)
        own, *further = (
            as_terms(one(outputs, targets), len(targets), "the metric")
            for one in (self._metric, *others)
        )
        return terms, own, *further

    def _pass(
        self, batches: Iterable[Batch], others: Sequence[Metric], network: Network | None
    ) -> Iterator[Counted]:
        """Compare outputs with targets for several micro-batches at once, where they are small.

        Loss and metrics are some twenty small operations: after each micro-batch they would cost
        an eighth of the time of a small network.
        """
        call = network or self._call
        held: list[tuple[Tensor, Tensor]] = []
        for batch in batches:
            pair = call(batch), batch.targets
            if held and not (_follows(pair, held[-1]) and _bytes(held) < HELD_OUTPUTS):
                yield self._counted(*_joined(held), others)
                held = []
            if _rows_alike(*pair):
                held.append(pair)
            else:
                yield self._counted(*pair, others)
        if held:
            yield self._counted(*_joined(held), others)

    def outputs_at(self, state: Mapping[str, Tensor], batch: Batch) -> Any:
        """Return what the network puts out with tensors of it replaced, by their names in it."""
        placed = {f"model.{name}": tensor for name, tensor in state.items()}
        return functional_call(_Holding(self.model, self._call), placed, (batch,))

    def _call(self, batch: Batch) -> Any:
        return self.call(batch, self.model)

    def call(self, batch: Batch, model: Callable[..., Any]) -> Any:
        """Return the outputs of a network, as of the objective's own."""
        with same_without_gradients(), self._autocast():
            outputs = batch.call(model)
        return outputs.float() if self._half and isinstance(outputs, Tensor) else outputs


class _Holding(nn.Module):
    """Some work with a network as a module's call, so that `functional_call` swaps its tensors."""

    def __init__(self, model: nn.Module, work: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self._work = model, work

    def forward(self, *args: Any) -> Any:
        return self._work(*args)


def _rows_alike(outputs: Any, targets: Tensor) -> bool:
    """Whether outputs and targets have a row for each sample."""
    return isinstance(outputs, Tensor) and outputs.ndim > 0 and len(outputs) == len(targets)


def _follows(pair: tuple[Any, Tensor], last: tuple[Tensor, Tensor]) -> bool:
    """Whether outputs and targets can be put behind others."""
    return _rows_alike(*pair) and all(
        (a.shape[1:], a.dtype, a.layout) == (b.shape[1:], b.dtype, b.layout)
        for a, b in zip(pair, last, strict=True)
    )


def _bytes(held: list[tuple[Tensor, Tensor]]) -> int:
    return len(held) * size_of(held[0][0])


def _joined(held: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(held) == 1:
        return held[0]
    outputs, targets = zip(*held, strict=True)
    return torch.cat(outputs), torch.cat(targets)


class OfClosure(Objective):
    """`closure(model, batch)`."""

    has_outputs = False

    def __init__(
        self, model: nn.Module, closure: Closure, metric: Metric | None, half: bool
    ) -> None:
        super().__init__(model, half)
        self._closure, self._metric = closure, metric

    def identity(self) -> dict[str, Any]:
        """Return that the loss is a closure, by its name."""
        return {"closure": self._closure.name}

    def read(self, item: Any) -> Content:
        """Find the samples of a batch of any structure."""
        return as_content(item)

    def forward(
        self, batch: Content, metric: bool = False, others: Sequence[Metric] = ()
    ) -> Counted:
        """Call the closure, and the metrics in the same way."""
        terms = self._terms(self._closure.function, batch, f"closure {self._closure.name}")
        if not metric:
            return terms, None
        own = no_metric(None, terms.sums)
        if self._metric is not None:
            own = self._terms(self._metric, batch, "the metric")
        return terms, own, *(self._terms(one, batch, "the metric") for one in others)

    def _terms(self, function: Callable[[Any, Any], Any], batch: Content, name: str) -> Terms:
        # Aliases of the tensors: what is held must not come to require a gradient.
        content = batch.map(Tensor.detach).content
        # Derivatives by inputs are part of it.
        with torch.enable_grad(), same_without_gradients(), self._autocast():
            result = function(self.model, content)
        terms = as_terms(result, batch.count, name)
        return Terms(*(part.float() if part.dtype in HALF else part for part in terms))


def objective(
    model: nn.Module,
    loss: Loss,
    metric: Metric | str | None = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    half: bool = False,
) -> Objective:
    """Put a network and its loss together.

    Args:
        model: The network.
        loss: A closure, or what `per_sample_loss` takes.
        metric: `metric(outputs, targets)`, of a closure `metric(model, batch)`; `"auto"` counts
            top-1 hits, of a closure nothing, as does None.
        device: Where tensors of the loss move.
        dtype: Their type.
        half: Whether the network is computed under bfloat16 autocast.

    Raises:
        ProblemError: For a metric that is none.
    """
    if not callable(metric) and metric not in ("auto", None):
        raise ProblemError(f"expected a metric function, 'auto' or None, got {metric!r}")
    own = metric if callable(metric) else None
    if isinstance(loss, Closure):
        return OfClosure(model, loss.to(device, dtype), own, half)
    whole = per_sample_loss(loss, device, dtype)
    if metric == "auto":
        own = functools.partial(top1, layout=whole.layout)
    return OfOutputs(model, whole, own or no_metric, half)


def one_of(loss: Loss | None, closure: Callable[[Any, Any], Any] | None) -> Loss:
    """Return a loss, or a closure in place of one.

    Raises:
        ProblemError: If both are given, or neither.
    """
    if loss is not None and closure is None:
        return loss
    if closure is None or loss is not None:
        raise ProblemError(
            f"expected a loss or a closure, got {'neither' if closure is None else 'both'}\n"
            "a closure(model, batch) takes the place of loss(outputs, targets)"
        )
    return Closure(closure)
