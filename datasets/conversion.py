"""From what a data factory returns to checked splits and their facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isoloss.datasets.catalogue import DataError
from isoloss.datasets.graphs import GraphSplit, is_graph, to_graph_split
from isoloss.datasets.info import DataInfo
from isoloss.datasets.splits import TensorSplit
from isoloss.split import Split

SPLITS = ("train", "val", "test")
_Split = TensorSplit | GraphSplit


def convert(returned: Any, what: str) -> tuple[dict[str, Split], DataInfo]:
    """Check what a factory returned and convert it.

    Floating inputs become float32, class labels int64. A map-style dataset is read through once,
    in order: whatever random transforms it has are frozen by that. PIL images become (channels,
    height, width) in [0, 1].

    Args:
        returned: {"train": D, "test": D, "val": D (optional), "groups": G (optional), "info":
            DataInfo or a mapping of some of its fields (optional), "facts": JSON-able (optional,
            for provenance)}; D is a pair of tensors or arrays, a map-style dataset of such pairs,
            or a list or dataset of graphs (`torch_geometric.data.Data`). G has, for any of the
            splits, integers (N,): what each sample belongs to, as {"train": .., "test": ..}.
        what: for messages, as "data set 'digits'".

    Returns:
        The splits by name, and their DataInfo with what was not stated inferred.

    Raises:
        DataError: anything that does not fit, with what was expected, found and the remedy.
    """
    if not isinstance(returned, Mapping) or not {"train", "test"} <= set(returned):
        got = sorted(returned) if isinstance(returned, Mapping) else type(returned).__name__
        raise DataError(f"{what}: expected a dict with 'train' and 'test', got {got}")
    unknown = set(returned) - {*SPLITS, "groups", "info", "facts"}
    if unknown:
        raise DataError(
            f"{what}: expected keys train, val, test, groups, info, facts; "
            f"got also {sorted(unknown)}"
        )
    splits = {
        name: _to_split(returned[name], f"{what}, {name}")
        for name in SPLITS
        if returned.get(name) is not None
    }
    if len({type(split) for split in splits.values()}) > 1:
        raise DataError(f"{what}: expected either graphs or tensors in all splits, got both")
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
        raise DataError(f"{what}: expected groups for any of {', '.join(splits)}, got {got}")
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


def _to_split(data: Any, what: str) -> _Split:
    if isinstance(data, GraphSplit):
        return data
    groups = None
    if isinstance(data, TensorSplit):
        inputs, targets, groups = data.inputs, data.targets, data.groups
    elif isinstance(data, tuple) and len(data) == 2:
        inputs, targets = _to_tensor(data[0], what), _to_tensor(data[1], what)
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        if len(data) and is_graph(data[0]):
            return to_graph_split(data, what)
        inputs, targets = _stack(data, what)
    else:
        raise DataError(
            f"{what}: expected a pair (inputs, targets) of tensors or arrays, a map-style dataset "
            f"or a list of graphs, got {type(data).__name__}"
        )
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise DataError(
            f"{what}: expected as many targets as inputs, got inputs {tuple(inputs.shape)} and "
            f"targets {tuple(targets.shape)}"
        )
    if len(inputs) == 0:
        raise DataError(f"{what}: expected at least one sample, got none")
    if inputs.dtype == torch.uint8:
        raise DataError(
            f"{what}: expected floating inputs (or int64 tokens), got uint8; scale them in the "
            f"factory, as x.float() / 255"
        )
    if inputs.is_floating_point():
        inputs = inputs.float()
    targets = targets.float() if targets.is_floating_point() else targets.long()
    return TensorSplit(inputs, targets, groups)


def _to_tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray | np.generic | int | float):
        try:
            return torch.tensor(np.array(value))  # copied: also where strides are negative
        except TypeError as error:
            raise DataError(
                f"{what}: expected numbers, got an array of {np.asarray(value).dtype}"
            ) from error
    if hasattr(value, "getbands"):  # a PIL image, recognised without importing PIL
        if value.mode not in ("L", "RGB"):
            raise DataError(
                f"{what}: expected images of mode L or RGB, got {value.mode}; "
                f"convert them with image.convert('RGB')"
            )
        pixels = torch.tensor(np.asarray(value))
        pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
        return pixels.float() / 255
    raise DataError(
        f"{what}: expected a tensor, array, image or number, got {type(value).__name__}"
    )


def _stack(dataset: Any, what: str) -> tuple[Tensor, Tensor]:
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise DataError(
                f"{what}: expected sample {index} to be a pair (input, target), "
                f"got {type(sample).__name__}"
            )
        for values, value in zip((inputs, targets), sample, strict=True):
            values.append(_to_tensor(value, f"{what}, sample {index}"))
            if values[-1].shape != values[0].shape:
                raise DataError(
                    f"{what}: expected samples of one shape, got {tuple(values[0].shape)} at 0 "
                    f"and {tuple(values[-1].shape)} at {index}; pad or crop them in the factory"
                )
    if not inputs:
        raise DataError(f"{what}: expected at least one sample, got none")
    return torch.stack(inputs), torch.stack(targets)


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
            inferred.update(_infer_classes(given, splits))
        return DataInfo.from_json({**inferred, **given})
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{what}: info does not fit: {error}") from error


_OF_CLASSES = {"task", "num_classes", "class_names"}


def _infer_classes(given: dict[str, Any], splits: Mapping[str, Split]) -> dict[str, Any]:
    classes = given.get("num_classes")
    if classes is None and "class_names" in given:
        classes = len(given["class_names"])
    if classes is None:
        highest = max(int(split.targets.nan_to_num().max()) for split in splits.values())
        classes = max(highest, 0) + 1
    names = tuple(str(label) for label in range(classes))
    return {"task": "classification", "num_classes": classes, "class_names": names}


def _check(split: Split, info: DataInfo, what: str) -> None:
    if split.input_shape != info.input_shape:
        raise DataError(
            f"{what}: expected samples of shape {info.input_shape}, got {split.input_shape}"
        )
    if split.num_features != info.num_features:
        raise DataError(f"{what}: expected {info.num_features} features, got {split.num_features}")
    tensors = {"inputs": split.inputs} if isinstance(split, TensorSplit) else {}
    for name, tensor in {**tensors, "targets": split.targets}.items():
        if not tensor.is_floating_point():
            continue
        bad = ~tensor.flatten(1).isfinite().all(1) if tensor.ndim > 1 else ~tensor.isfinite()
        if bad.any():
            raise DataError(
                f"{what}: {int(bad.sum())} of {len(split)} samples hold NaN or inf in their "
                f"{name}, the first at index {int(bad.nonzero()[0])}; mend or remove them"
            )
    if info.task != "classification":
        return
    if split.targets.is_floating_point():
        raise DataError(
            f"{what}: expected integer class labels, got {split.targets.dtype}; convert them "
            f"with .long(), or state info={{'task': 'regression'}}"
        )
    bad = (split.targets < 0) | (split.targets >= (info.num_classes or 0))
    if bad.any():
        index = bad.nonzero()[0]
        raise DataError(
            f"{what}: expected labels from 0 to {(info.num_classes or 0) - 1}, got "
            f"{int(split.targets[tuple(index)])} at index {int(index[0])}"
        )
