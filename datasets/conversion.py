"""From what a data factory returns to checked splits and their facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isoloss.datasets.catalogue import DataError
from isoloss.datasets.graphs import GraphSplit, is_graph, to_graph_split
from isoloss.datasets.info import DataInfo
from isoloss.datasets.nodes import NodeSplit, graph_of_nodes, to_node_split
from isoloss.datasets.reading import read_samples, read_whole
from isoloss.datasets.splits import TensorSplit
from isoloss.datasets.structures import StructureSplit, to_structure_split
from isoloss.split import Split

SPLITS = ("train", "val", "test")
IGNORED = -100  # the label of targets that do not count
_Split = TensorSplit | StructureSplit | GraphSplit | NodeSplit
_KINDS = {
    TensorSplit: "pairs of tensors",
    StructureSplit: "structures of tensors",
    GraphSplit: "graphs",
    NodeSplit: "nodes of a graph",
}


def convert(returned: Any, what: str) -> tuple[dict[str, Split], DataInfo]:
    """Check what a factory returned and convert it.

    Floating inputs become float32, class labels int64. A map-style dataset is read through once,
    in order: whatever random transforms it has are frozen by that. PIL images become (channels,
    height, width) in [0, 1].

    Args:
        returned: {"train": D, "test": D, "val": D (optional), "groups": G (optional), "info":
            DataInfo or a mapping of some of its fields (optional), "facts": JSON-able (optional,
            for provenance)}; D is a pair of tensors or arrays, or of these a longer tuple, a
            mapping, a dataclass, nested at will, or a single one (see `isoloss.structure` for which
            are the targets); a map-style dataset of such samples; a list or dataset of graphs
            (`torch_geometric.data.Data`), or one graph with targets for its nodes, of which the
            split's mask (`train_mask`) says which are its samples. Where the graph has a `val_mask`
            and there is no "val", that is the validation split. G has, for any of the
            splits, integers (N,): what each sample belongs to, as {"train": .., "test": ..}.
        what: for messages, as "data set 'digits'".

    Returns:
        The splits by name, and their DataInfo with what was not stated inferred.

    Raises:
        DataError: anything that does not fit, with what was expected, found and the remedy.
    """
    if not isinstance(returned, Mapping) or not {"train", "test"} <= set(returned):
        got = sorted(returned) if isinstance(returned, Mapping) else type(returned).__name__
        raise DataError(
            f"{what}: expected a dict with 'train' and 'test', got {got}; return {{'train': .., "
            f"'test': ..}}"
        )
    unknown = set(returned) - {*SPLITS, "groups", "info", "facts"}
    if unknown:
        raise DataError(
            f"{what}: expected keys train, val, test, groups, info, facts; "
            f"got also {sorted(unknown)}; a validation split is called 'val'"
        )
    given = {name: returned[name] for name in SPLITS if returned.get(name) is not None}
    graph = graph_of_nodes(given["train"])
    if graph is not None and "val" not in given and "val_mask" in graph and graph.val_mask.any():
        given = {"train": given["train"], "val": graph, "test": given["test"]}
    splits = {name: _to_split(data, name, f"{what}, {name}") for name, data in given.items()}
    _refuse_mixed(splits, what)
    splits.update(_grouped(returned.get("groups"), splits, what))
    info = _complete_info(returned.get("info"), splits, what)
    for name, split in splits.items():
        _check(split, info, f"{what}, {name}")
    return {**splits}, info


def _grouped(groups: Any, splits: Mapping[str, _Split], what: str) -> dict[str, _Split]:
    """Return the splits that `groups` names, with their groups."""
    if groups is None:
        return {}
    if not isinstance(groups, Mapping) or not set(groups) <= set(splits):
        got = sorted(groups) if isinstance(groups, Mapping) else type(groups).__name__
        raise DataError(
            f"{what}: expected groups for any of {', '.join(splits)}, got {got}; give them as "
            f"{{'train': integers}}"
        )
    return {
        name: replace(splits[name], groups=_to_groups(values, len(splits[name]), f"{what}, {name}"))
        for name, values in groups.items()
    }


def _to_groups(values: Any, count: int, what: str) -> Tensor:
    array = np.asarray(values)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise DataError(
            f"{what}: expected groups as {count} integers, got {array.dtype} of shape "
            f"{array.shape}; number names with np.unique(names, return_inverse=True)[1]"
        )
    return torch.tensor(array.astype(np.int64))


def _to_split(data: Any, name: str, what: str) -> _Split:
    if isinstance(data, GraphSplit | NodeSplit):
        return data
    graph = graph_of_nodes(data)
    if graph is not None:
        return to_node_split(graph, name, what)
    groups, indexed = None, hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if isinstance(data, TensorSplit):
        content, groups = (data.inputs, data.targets), data.groups
    elif isinstance(data, StructureSplit):
        content, groups = data.content, data.groups
    elif is_graph(data):
        return to_graph_split([data], what)
    elif isinstance(data, Tensor | np.ndarray | Mapping | tuple) or (
        is_dataclass(data) and not indexed
    ):
        if isinstance(data, tuple) and data and is_graph(data[0]):
            return to_graph_split(data, what)
        content = read_whole(data, what)
    elif indexed and len(data) and is_graph(data[0]):
        return to_graph_split(data, what)
    elif indexed:
        content = read_samples(data, what)
    else:
        raise DataError(
            f"{what}: expected a pair (inputs, targets) of tensors or arrays, a longer tuple or a "
            f"dict of them, a map-style dataset or a list of graphs, got "
            f"{type(data).__name__}; of a loader give its dataset, of an iterator list(it)"
        )
    if (
        type(content) in (tuple, list)
        and len(content) == 2
        and all(isinstance(part, Tensor) for part in content)
    ):
        return _to_pair(*content, groups, what)
    return to_structure_split(content, groups, what)


def _to_pair(inputs: Tensor, targets: Tensor, groups: Tensor | None, what: str) -> TensorSplit:
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise DataError(
            f"{what}: expected as many targets as inputs, got inputs {tuple(inputs.shape)} and "
            f"targets {tuple(targets.shape)}; give each sample its row, or, for a `closure`, a "
            f"dict without labels, whose tensors of other lengths belong to all samples alike"
        )
    if len(inputs) == 0:
        raise DataError(f"{what}: expected at least one sample, got none; look at the factory")
    if inputs.dtype == torch.uint8:
        raise DataError(
            f"{what}: expected floating inputs (or int64 tokens), got uint8; scale them in the "
            f"factory, as x.float() / 255"
        )
    if inputs.is_floating_point():
        inputs = inputs.float()
    targets = targets.float() if targets.is_floating_point() else targets.long()
    return TensorSplit(inputs, targets, groups)


def _refuse_mixed(splits: Mapping[str, _Split], what: str) -> None:
    """Refuse splits of several kinds or structures."""
    kinds = {name: _KINDS[type(split)] for name, split in splits.items()}
    if len(set(kinds.values())) == 1:
        kinds = {
            name: ", ".join(split.tensors())
            for name, split in splits.items()
            if isinstance(split, StructureSplit)
        }
    if len(set(kinds.values())) > 1:
        got = "; ".join(f"{name} {kind}" for name, kind in kinds.items())
        raise DataError(
            f"{what}: expected the same kind of data in all splits, got {got}; give "
            f"every split the structure of 'train'"
        )


def _complete_info(stated: Any, splits: Mapping[str, Split], what: str) -> DataInfo:
    if isinstance(stated, DataInfo):
        return stated
    given = dict(stated or {})
    known = {field.name for field in fields(DataInfo)} - {"digest"}
    if set(given) - known:
        raise DataError(
            f"{what}: info has no field {', '.join(sorted(set(given) - known))}; "
            f"valid: {', '.join(sorted(known))}"
        )
    train = splits["train"]
    inferred: dict[str, Any] = {
        "input_shape": train.input_shape,
        "num_features": train.num_features,
    }
    is_regression = train.targets.is_floating_point()
    if given.get("task") == "regression" or (is_regression and not {*given} & _OF_CLASSES):
        inferred.update(task="regression", num_classes=None, class_names=())
    try:
        if "task" not in inferred:
            inferred.update(_infer_classes(given, splits, what))
        return DataInfo.from_json({**inferred, **given})
    except DataError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(
            f"{what}: info does not fit: {error}; mend it, or leave it out to have it inferred"
        ) from error


# An output for each, and a row and column of the confusion matrix.
LARGEST_CLASSES = 1_000_000
_OF_CLASSES = {"task", "num_classes", "class_names"}


def _infer_classes(given: dict[str, Any], splits: Mapping[str, Split], what: str) -> dict[str, Any]:
    classes = given.get("num_classes")
    if classes is None and "class_names" in given:
        classes = len(given["class_names"])
    if classes is None:
        labels = [split.targets.nan_to_num() for split in splits.values()]
        highest = max((int(part.max()) for part in labels if part.numel()), default=0)
        classes = max(highest, 0) + 1
    if isinstance(classes, int) and classes > LARGEST_CLASSES:
        raise DataError(
            f"{what}: expected at most {LARGEST_CLASSES:,} classes, got {classes:,}\n"
            "number the classes from 0, or give targets as floats where they are no classes"
        )
    names = tuple(str(label) for label in range(classes))
    return {"task": "classification", "num_classes": classes, "class_names": names}


def _tensors(split: Split) -> dict[str, Tensor]:
    """Return what has yet to be searched for NaN, by name: graphs were."""
    if isinstance(split, StructureSplit):
        return split.tensors()
    inputs = {"inputs": split.inputs} if isinstance(split, TensorSplit) else {}
    return {**inputs, "targets": split.targets}


def _check(split: Split, info: DataInfo, what: str) -> None:
    if split.input_shape != info.input_shape:
        raise DataError(
            f"{what}: expected samples of shape {info.input_shape}, got {split.input_shape}; give "
            f"all splits one shape, and `info` no other"
        )
    if split.num_features != info.num_features:
        raise DataError(
            f"{what}: expected {info.num_features} features, got {split.num_features}; give all "
            f"splits the same, and `info` no other"
        )
    for name, tensor in _tensors(split).items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        bad = ~tensor.flatten(1).isfinite().all(1) if tensor.ndim > 1 else ~tensor.isfinite()
        if bad.any():
            raise DataError(
                f"{what}: {int(bad.sum())} of {bad.numel()} samples hold NaN or inf in their "
                f"{name}, the first at index {int(bad.nonzero()[0, -1:])}; mend or remove them"
            )
    if info.task != "classification" or not split.targets.numel():
        return
    if split.targets.is_floating_point():
        raise DataError(
            f"{what}: expected integer class labels, got {split.targets.dtype}; convert them "
            f"with .long(), or state info={{'task': 'regression'}}"
        )
    classes = info.num_classes or 0
    bad = ((split.targets < 0) & (split.targets != IGNORED)) | (split.targets >= classes)
    if bad.any():
        index = bad.nonzero()[0]
        raise DataError(
            f"{what}: expected labels from 0 to {classes - 1}, got "
            f"{int(split.targets[tuple(index)])} at index {int(index[0])}; set those that do not "
            f"count to {IGNORED}, or state info={{'num_classes': ..}}"
        )
