"""Fixed data: batches of any supported kind, merged where that is possible and cut again.

A batch is a pair `(inputs, targets)`, a longer tuple `(x, z, .., targets)`, a mapping of tensors
that holds the targets under one of `TARGET_KEYS` (all by the rule of `isoloss.structure`), or a
graph batch (anything with `num_graphs` and `y`, as PyTorch Geometric makes them). The samples of
one graph with indices in its field `sample_index` are these nodes. What a closure is handed may be
more than that: `landscape.contents`.
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
from isoloss.structure import (
    NODES,
    TARGET_KEYS,
    cut,
    describe,
    inputs_and_targets,
    is_graph,
    leaves,
    map_leaves,
    rows_of,
)


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

    `inputs` is a tensor (count, ...), a dictionary or tuple of such (nested at will), or graphs.
    """

    inputs: Any
    targets: Tensor
    count: int

    @property
    def sliceable(self) -> bool:
        """Whether single samples can be cut out (graph batches stay whole)."""
        return not is_graph(self.inputs)

    @property
    def images(self) -> bool:
        """Whether the inputs are images."""
        return isinstance(self.inputs, Tensor) and self.inputs.ndim == 4

    def __getitem__(self, part: slice | Tensor) -> Batch:
        targets = self.targets[part]
        return Batch(cut(self.inputs, part), targets, targets.shape[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with every tensor changed."""
        if is_graph(self.inputs):
            inputs = self.inputs.clone().apply(change)
        else:
            inputs = map_leaves(self.inputs, lambda _, tensor: change(tensor))
        return Batch(inputs, change(self.targets), self.count)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by a sorted name."""
        if is_graph(self.inputs):
            parts = {k: v for k, v in self.inputs.to_dict().items() if isinstance(v, Tensor)}
        else:
            parts = leaves(self.inputs, "inputs")
            if isinstance(self.inputs, Mapping):
                parts = {path.removeprefix("inputs."): part for path, part in parts.items()}
        return {**{key: parts[key] for key in sorted(parts)}, "targets": self.targets}

    @staticmethod
    def merge(batches: Sequence[Batch]) -> list[Batch]:
        """Return the batches as one where their tensors agree but for their length."""
        kinds = {
            tuple((name, t.dtype, t.shape[1:], t.device) for name, t in batch.tensors().items())
            for batch in batches
        }
        if len(batches) < 2 or len(kinds) > 1 or not batches[0].sliceable:
            return list(batches)
        parts = [leaves(batch.inputs) for batch in batches]
        inputs = map_leaves(
            batches[0].inputs, lambda path, _: torch.cat([part[path] for part in parts])
        )
        targets = torch.cat([batch.targets for batch in batches])
        return [Batch(inputs, targets, len(targets))]

    def call(self, model: Callable[..., Any]) -> Any:
        """Return the model's outputs for the batch.

        Tensors go in as they are, dictionaries as keywords, tuples as several arguments, and of
        graphs the fields that the model's `forward` names (`x`, `edge_index`, `batch`, ..); a first
        parameter named `data` gets the batch itself. Outputs with `logits`, as an attribute or a
        key, are replaced by these. Of a graph whose nodes are samples the rows of these are left.
        """
        if is_graph(self.inputs):
            outputs = model(*graph_arguments(getattr(model, "forward", model), self.inputs))
        elif isinstance(self.inputs, Mapping):
            _check_call(model, (), self.inputs)
            outputs = model(**self.inputs)
        elif isinstance(self.inputs, tuple | list):
            _check_call(model, self.inputs, {})
            outputs = model(*self.inputs)
        else:
            outputs = model(self.inputs)
        outputs = _logits_of(outputs)
        nodes = rows_of(self.inputs)
        return outputs if nodes is None else _rows(outputs, nodes, self.inputs.num_nodes)


def _check_call(model: Any, several: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Refuse inputs that the network's `forward` does not take."""
    try:
        signature = inspect.signature(getattr(model, "forward", model))
    except (TypeError, ValueError):  # nothing is known of it
        return
    try:
        signature.bind(*several, **named)
    except TypeError as error:
        given = ", ".join(named) if named else f"{len(several)} inputs"
        remedy = (
            "leave out of the dictionaries what it does not take, and name the rest as it does"
            if named
            else "of a tuple (.., targets) all but the last are inputs; put anything else, such as "
            "weights of samples, into a dictionary for a `closure`"
        )
        raise BatchError(
            f"the network's forward takes {signature}, got {given}: {error}\n{remedy}"
        ) from error


def _logits_of(outputs: Any) -> Any:
    if isinstance(outputs, Mapping):
        return outputs.get("logits", outputs)
    return getattr(outputs, "logits", outputs)


def _rows(outputs: Any, nodes: Tensor, count: int) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.shape[:1] != (count,):
        raise BatchError(
            f"expected an output for each of the graph's {count} nodes, got {describe(outputs)}\n"
            "leave out the network's pooling over nodes"
        )
    return outputs[nodes]


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
    if is_graph(item) and hasattr(item, "y"):
        return _graph_batch(item)
    inputs, targets = inputs_and_targets(item)
    if targets is None:
        raise BatchError(_without_targets(item))
    parts = leaves(inputs, "inputs")
    wrong = [path for path, part in parts.items() if not isinstance(part, Tensor)]
    if wrong:
        raise BatchError(
            f"expected tensors in a batch, got {type(parts[wrong[0]]).__name__} in {wrong[0]}\n"
            "leave out what is no tensor, or close over it in the model"
        )
    for path, part in parts.items():
        if part.shape[:1] != targets.shape[:1]:
            raise BatchError(
                f"expected as many inputs as targets in a batch, got {path} of shape "
                f"{tuple(part.shape)} and targets of shape {tuple(targets.shape)}\n"
                "give each sample its row; what belongs to all samples alike may go into a batch "
                "for a `closure`"
            )
    return Batch(inputs, targets, len(targets))


def _graph_batch(item: Any) -> Batch:
    targets, nodes = item.y, rows_of(item)
    if nodes is not None:
        return Batch(item, targets[nodes], len(nodes))
    count = getattr(item, "num_graphs", None)
    if targets.shape[0] != count:
        raise BatchError(
            f"expected one target a graph, got {targets.shape[0]} for {count or 'a graph'}"
            f"{' graphs' if count else ' with no batch'}\nof nodes: put the indices of those that "
            f"count into the graph's field `{NODES}`, as data.train_mask.nonzero().flatten(); of "
            "one graph: Batch.from_data_list([data])"
        )
    return Batch(item, targets, count)


def _without_targets(item: Any) -> str:
    if isinstance(item, Mapping):
        held = f"got the keys {', '.join(map(str, item))}"
        return (
            f"expected a dict batch with its targets, a tensor, under one of "
            f"{', '.join(TARGET_KEYS)}\n{held}; without targets, give a `closure` of (model, batch)"
        )
    return (
        "expected batches as (inputs, .., targets) tensors, dicts of tensors or graph batches, "
        f"got {describe(item)}\nfor data without targets, give a `closure` of (model, batch) in "
        "place of the loss"
    )


class FixedData:
    """The samples a loss is averaged over, held once and cut as the plan says.

    Batches whose tensors agree in everything but length are merged, so that how the caller had
    cut the data makes no difference; graph batches and batches of unequal shapes stay apart.
    """

    def __init__(self, batches: Iterable[Samples]) -> None:
        filled = [batch for batch in batches if batch.count]
        if not filled:
            raise BatchError(
                "expected at least one sample, got none\nis the data empty, or an iterator that "
                "was used up? give list(loader)"
            )
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

    @property
    def choosable(self) -> bool:
        """Whether samples can be chosen among: tensors of one shape."""
        return len(self.batches) == 1 and self.batches[0].sliceable

    def choose(self, samples: Tensor) -> FixedData:
        """Return the samples at some positions, (count,) indices, in that order.

        Raises:
            BatchError: If there are batches that cannot be cut (graphs, unequal shapes).
        """
        if not self.choosable:
            raise BatchError(
                "expected samples of one shape in tensors to choose among, got graphs or several "
                "shapes\npad the samples to one shape"
            )
        return FixedData([self.batches[0][samples]])

    def digest(self) -> str:
        """Return the SHA-256 of all tensors: dtypes, shapes and bytes, in order."""
        return digest(pair for batch in self.batches for pair in batch.tensors().items())
