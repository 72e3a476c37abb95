"""Fixed data: batches of any supported kind, merged where that is possible and cut again.

A batch is a pair `(inputs, targets)` of tensors, a mapping of tensors that holds the targets under
one of `TARGET_KEYS`, or a graph batch (anything with `num_graphs` and `y`, as PyTorch Geometric
makes them). What a closure is handed may be more than that: `landscape.contents`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.landscape.vectors import digest

TARGET_KEYS = ("labels", "label", "targets", "target", "y")


class BatchError(IsolossError, ValueError):
    """Data that cannot be used as batches."""


class Samples(ABC):
    """Some samples that go through the network in one call, and how many they are."""

    count: int

    @property
    @abstractmethod
    def sliceable(self) -> bool:
        """Whether single samples can be cut out (graph batches stay whole)."""

    @property
    @abstractmethod
    def images(self) -> bool:
        """Whether they are images, (count, channels, height, width)."""

    @abstractmethod
    def __getitem__(self, part: slice | Tensor) -> Self:
        """Return the samples of a slice, or at some positions."""

    @abstractmethod
    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the samples with every tensor changed."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name: what the digest of the data is made of."""

    @staticmethod
    @abstractmethod
    def merge(batches: Sequence[Any]) -> list[Any]:
        """Return batches of one kind as one, where they agree in everything but length."""

    def to(self, device: torch.device, dtype: torch.dtype, channels_last: bool) -> Self:
        """Move to a device; floating tensors also to `dtype`, images to the memory format."""
        # Not `contiguous`: it leaves the strides of one-channel images as they are, and the strides
        # are what decides the layout of everything behind.
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def move(tensor: Tensor) -> Tensor:
            tensor = tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
            return tensor.to(memory_format=layout) if tensor.ndim == 4 else tensor

        return self.map(move)


@dataclass(frozen=True)
class Batch(Samples):
    """Some samples: what the network takes, what the loss compares with, and how many they are.

    `inputs` is a tensor (count, ...), a dictionary of such tensors, or a graph batch.
    """

    inputs: Any
    targets: Tensor
    count: int

    @property
    def sliceable(self) -> bool:
        """Whether single samples can be cut out (graph batches stay whole)."""
        return isinstance(self.inputs, Tensor | dict)

    @property
    def images(self) -> bool:
        """Whether the inputs are images."""
        return isinstance(self.inputs, Tensor) and self.inputs.ndim == 4

    def __getitem__(self, part: slice | Tensor) -> Batch:
        inputs = (
            {key: value[part] for key, value in self.inputs.items()}
            if isinstance(self.inputs, dict)
            else self.inputs[part]
        )
        targets = self.targets[part]
        return Batch(inputs, targets, targets.shape[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with every tensor changed."""
        if isinstance(self.inputs, Tensor):
            inputs: Any = change(self.inputs)
        elif isinstance(self.inputs, dict):
            inputs = {key: change(value) for key, value in self.inputs.items()}
        else:
            inputs = self.inputs.clone().apply(change)
        return Batch(inputs, change(self.targets), self.count)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by a sorted name."""
        if isinstance(self.inputs, Tensor):
            parts = {"inputs": self.inputs}
        elif isinstance(self.inputs, dict):
            parts = dict(self.inputs)
        else:
            parts = {k: v for k, v in self.inputs.to_dict().items() if isinstance(v, Tensor)}
        return {**{key: parts[key] for key in sorted(parts)}, "targets": self.targets}

    @staticmethod
    def merge(batches: Sequence[Batch]) -> list[Batch]:
        """Return the batches as one where tensors or dictionaries agree but for their length."""
        kinds = {
            tuple((name, t.dtype, t.shape[1:], t.device) for name, t in batch.tensors().items())
            for batch in batches
        }
        if len(batches) < 2 or len(kinds) > 1 or not batches[0].sliceable:
            return list(batches)
        first = batches[0].inputs
        inputs: Any = (
            {key: torch.cat([batch.inputs[key] for batch in batches]) for key in first}
            if isinstance(first, dict)
            else torch.cat([batch.inputs for batch in batches])
        )
        targets = torch.cat([batch.targets for batch in batches])
        return [Batch(inputs, targets, len(targets))]

    def call(self, model: Any) -> Any:
        """Apply the network: `model(x)`, `model(**inputs)`, or by names for a graph batch.

        For a graph batch the names of the parameters of `forward` are looked up in the batch
        (`x`, `edge_index`, `batch`, ..); a first parameter named `data` gets the batch itself.
        An output with an attribute `logits` is replaced by it.
        """
        if isinstance(self.inputs, Tensor):
            outputs = model(self.inputs)
        elif isinstance(self.inputs, dict):
            outputs = model(**self.inputs)
        else:
            outputs = model(*graph_arguments(model.forward, self.inputs))
        return getattr(outputs, "logits", outputs)


def graph_arguments(forward: Callable[..., Any], graphs: Any) -> list[Any]:
    """Return the arguments of a `forward` that a graph batch supplies, in order.

    Raises:
        BatchError: If a parameter without a default is missing in the batch.
    """
    parameters = list(inspect.signature(forward).parameters.values())
    if parameters and parameters[0].name == "data":
        return [graphs]
    arguments = []
    for parameter in parameters:
        value = getattr(graphs, parameter.name, None)
        if value is None:
            if parameter.default is inspect.Parameter.empty:
                raise BatchError(
                    f"the network's forward takes {parameter.name!r}: expected it in the "
                    f"graph batch, which holds {', '.join(graphs.keys())}\n"
                    "name the parameters after the batch's fields, or take one parameter `data`"
                )
            break
        arguments.append(value)
    return arguments


def as_batch(item: Any) -> Batch:
    """Recognise one batch of any supported kind.

    Raises:
        BatchError: If the item is of no supported kind, or inputs and targets differ in length.
    """
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        key = next((key for key in TARGET_KEYS if key in item), None)
        if key is None:
            raise BatchError(
                f"expected a dict batch with its targets under one of {', '.join(TARGET_KEYS)}\n"
                f"got the keys {', '.join(map(str, item))}"
            )
        wrong = [name for name, value in item.items() if not torch.is_tensor(value)]
        if wrong:
            raise BatchError(
                f"expected tensors in a dict batch, got {type(item[wrong[0]]).__name__} under "
                f"{wrong[0]!r}\nleave out what is no tensor, or close over it in the model"
            )
        inputs: Any = {name: value for name, value in item.items() if name != key}
        targets = item[key]
        lengths = {len(value) for value in inputs.values()}
    elif hasattr(item, "num_graphs") and hasattr(item, "y"):
        targets = item.y
        if targets.shape[0] != item.num_graphs:
            raise BatchError(
                f"expected one target a graph, got {targets.shape[0]} for {item.num_graphs} graphs"
            )
        return Batch(item, targets, item.num_graphs)
    elif isinstance(item, tuple | list) and len(item) == 2 and all(map(torch.is_tensor, item)):
        inputs, targets = item
        lengths = {len(inputs)}
    else:
        raise BatchError(
            "expected batches as (inputs, targets) tensors, dicts of tensors or graph batches, "
            f"got {_describe(item)}"
        )
    if lengths != {len(targets)}:
        raise BatchError(
            f"expected as many inputs as targets in a batch, got {sorted(lengths)} inputs "
            f"and {len(targets)} targets"
        )
    return Batch(inputs, targets, len(targets))


class FixedData:
    """The samples a loss is averaged over, held once and cut as the plan says.

    Batches whose tensors agree in everything but length are merged, so that how the caller had
    cut the data makes no difference; graph batches and batches of unequal shapes stay apart.
    """

    def __init__(self, batches: Iterable[Samples]) -> None:
        filled = [batch for batch in batches if batch.count]
        if not filled:
            raise BatchError("expected at least one sample, got none: is the data empty?")
        self.batches: list[Any] = filled[0].merge(filled)
        self.count = sum(batch.count for batch in self.batches)

    def to(self, device: torch.device, dtype: torch.dtype, channels_last: bool) -> FixedData:
        """Return the data on a device (see `Samples.to`)."""
        return FixedData(batch.to(device, dtype, channels_last) for batch in self.batches)

    def detached_from(self, lent: FixedData) -> FixedData:
        """Return the data with memory of its own where a tensor is the lent one's.

        What the caller does to its tensors later must not change the function.
        """
        theirs = {
            tensor.untyped_storage().data_ptr()
            for batch in lent.batches
            for tensor in batch.tensors().values()
        }
        shared = any(
            tensor.untyped_storage().data_ptr() in theirs
            for batch in self.batches
            for tensor in batch.tensors().values()
        )
        return FixedData(batch.map(torch.clone) for batch in self.batches) if shared else self

    def cut(self, size: int) -> Iterator[Any]:
        """Yield the samples in order, in batches of at most `size` (graph batches whole)."""
        for batch in self.batches:
            if not batch.sliceable or batch.count <= size:
                yield batch
                continue
            for start in range(0, batch.count, size):
                yield batch[start : start + size]

    def choose(self, samples: Tensor) -> FixedData:
        """Return the samples at some positions, (count,) indices, in that order.

        Raises:
            BatchError: If there are batches that cannot be cut (graphs, unequal shapes).
        """
        if len(self.batches) > 1 or not self.batches[0].sliceable:
            raise BatchError("expected samples of one shape in tensors or dicts to choose among")
        return FixedData([self.batches[0][samples]])

    def digest(self) -> str:
        """Return the SHA-256 of all tensors: dtypes, shapes and bytes, in order."""
        return digest(pair for batch in self.batches for pair in batch.tensors().items())


def _describe(item: Any) -> str:
    if isinstance(item, tuple | list):
        return f"{type(item).__name__} of ({', '.join(type(part).__name__ for part in item)})"
    return type(item).__name__
