"""Containers nested at will, as batches and data sets come: their leaves, samples and targets.

A structure is a leaf, or a mapping, a list, a (named) tuple or a dataclass of structures. Its
targets, where a loss of outputs and targets asks for them, are found by one rule:

- in a mapping or a named tuple, under the first of `TARGET_KEYS` that is there;
- in any other tuple or list of two or more, and a named tuple without such a field, the last;
- a tensor alone, a mapping without such a key and all else have none.

The rest are the inputs: of a pair the first as it is, of a longer tuple all but the last.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROOT = "batch"
TARGET_KEYS = ("labels", "label", "targets", "target", "y")
#: Field of a graph whose nodes are the samples: their indices (samples,), int64, in order.
#: (Of fields with `node` in their name torch_geometric takes the length for the number of nodes.)
NODES = "sample_index"


class Parts(NamedTuple):
    """What a network takes and what its outputs are compared with, None where there is none."""

    inputs: Any
    targets: Tensor | None


def inputs_and_targets(item: Any) -> Parts:
    """Tell inputs from targets; see the module's rule. Targets are tensors, or there are none."""
    if isinstance(item, Mapping):
        key = next((key for key in TARGET_KEYS if isinstance(item.get(key), Tensor)), None)
        if key is None:
            return Parts(item, None)
        return Parts({name: value for name, value in item.items() if name != key}, item[key])
    if not isinstance(item, tuple | list) or len(item) < 2:
        return Parts(item, None)
    named = [name for name in TARGET_KEYS if name in getattr(item, "_fields", ())]
    place = item._fields.index(named[0]) if named else len(item) - 1  # type: ignore[union-attr]
    if not isinstance(item[place], Tensor):
        return Parts(item, None)
    rest = (*item[:place], *item[place + 1 :])
    return Parts(rest[0] if len(rest) == 1 else rest, item[place])


def leaves(tree: Any, path: str = ROOT) -> dict[str, Any]:
    """Return all that is no container, by path."""
    found: dict[str, Any] = {}
    map_leaves(tree, found.setdefault, path)
    return found


def map_leaves(tree: Any, change: Callable[[str, Any], Any], path: str = ROOT) -> Any:
    """Return the same structure with each leaf replaced by `change(path, leaf)`."""
    if isinstance(tree, Mapping):
        held = {key: map_leaves(value, change, f"{path}.{key}") for key, value in tree.items()}
        if type(tree) is dict or not hasattr(tree, "__setitem__"):
            return held
        changed: Any = copy.copy(tree)  # keeps what an OrderedDict, a BatchEncoding, .. is beside
        for key, value in held.items():
            changed[key] = value
        return changed
    if isinstance(tree, list | tuple) and not is_text(tree):
        parts = [map_leaves(part, change, f"{path}.{i}") for i, part in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changed = copy.copy(tree)
        for field in dataclasses.fields(tree):
            part = map_leaves(getattr(tree, field.name), change, f"{path}.{field.name}")
            object.__setattr__(changed, field.name, part)  # it may be frozen
        return changed
    return change(path, tree)


def is_text(tree: Any) -> bool:
    """Return whether this is a list of strings, as a DataLoader makes of a string a sample."""
    return isinstance(tree, list | tuple) and bool(tree) and all(isinstance(s, str) for s in tree)


def cut(
    tree: Any, part: slice | Tensor, shared: frozenset[str] = frozenset(), path: str = ROOT
) -> Any:
    """Return some samples: every leaf cut along dimension 0 but the shared ones.

    Args:
        tree: A structure of tensors and lists of strings, and of anything at a shared path.
        part: Of the samples, a slice or indices (n,).
        shared: Paths of leaves that belong to all samples alike.
        path: What paths begin with.
    """

    def at(place: str, leaf: Any) -> Any:
        if place in shared:
            return leaf
        if isinstance(leaf, Tensor):
            return leaf[part]
        chosen = range(len(leaf))[part] if isinstance(part, slice) else part.tolist()
        return [leaf[i] for i in chosen]

    return map_leaves(tree, at, path)


def describe(item: Any) -> str:
    """Return kinds and shapes of a structure, for messages: `dict(x (3, 2), y (3,))`."""
    if isinstance(item, Tensor):
        return f"{'x'.join(map(str, item.shape)) or 'scalar'} {str(item.dtype)[6:]}"
    if isinstance(item, Mapping):
        inner = (f"{name}: {describe(value)}" for name, value in item.items())
    elif isinstance(item, tuple | list) and not is_text(item):
        inner = map(describe, item)  # type: ignore[assignment]
    else:
        return type(item).__name__
    return f"{type(item).__name__} of ({', '.join(inner)})"


def is_graph(leaf: Any) -> bool:
    """Return whether this is a graph or a batch of graphs, told without importing their library."""
    return all(hasattr(leaf, name) for name in ("clone", "apply", "to_dict"))


def rows_of(graph: Any) -> Tensor | None:
    """Return the indices of the nodes that are samples; None of graphs that are samples."""
    nodes = getattr(graph, NODES, None) if is_graph(graph) else None
    return nodes if isinstance(nodes, torch.Tensor) else None
