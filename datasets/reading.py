"""From samples as people hold them (arrays, images, numbers, lists of these) to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isoloss.datasets.catalogue import DataError
from isoloss.structure import describe, leaves, map_leaves

NUMBERS = (bool, int, float, list)


def read_whole(data: Any, what: str) -> Any:
    """Return a structure whose leaves have a row for each sample, as tensors.

    Args:
        data: Tensors or arrays in mappings, tuples and dataclasses.
        what: for messages, as "data set 'x', train".

    Raises:
        DataError: a leaf that cannot become a tensor.
    """
    return map_leaves(_with_rows(data), lambda path, leaf: to_tensor(leaf, what))


def read_samples(dataset: Any, what: str) -> Any:
    """Return a map-style dataset, read through once in order, as one structure of stacked tensors.

    Args:
        dataset: of length N, samples by index: pairs, longer tuples, mappings, dataclasses or
            tensors; alike in structure and shape.
        what: for messages, as "data set 'x', train".

    Raises:
        DataError: names the sample, what was expected and what was found.
    """
    if hasattr(dataset, "with_format"):  # as Hugging Face's datasets have it
        dataset = dataset.with_format("torch")
    first: Any = None
    columns: dict[str, list[Tensor]] = {}
    for index in range(len(dataset)):
        sample, where = _with_rows(dataset[index]), f"{what}, sample {index}"
        if isinstance(sample, int | float | str | bytes | None):
            raise DataError(
                f"{what}: expected sample {index} to be a pair (input, target), a longer tuple, a "
                f"dict or a tensor, got {type(sample).__name__}; return those in __getitem__"
            )
        first = sample if index == 0 else first
        parts = {p: to_tensor(leaf, where) for p, leaf in leaves(sample, "sample").items()}
        if index and parts.keys() != columns.keys():
            raise DataError(
                f"{what}: expected samples that are alike, got {describe(first)} at 0 and "
                f"{describe(sample)} at {index}; return the same parts for each"
            )
        for path, part in parts.items():
            column = columns.setdefault(path, [])
            column.append(part)
            if part.shape != column[0].shape:
                raise DataError(
                    f"{what}, {path}: expected samples of one shape, got {tuple(column[0].shape)} "
                    f"at 0 and {tuple(part.shape)} at {index}; pad or crop them in the factory"
                )
    if first is None:
        raise DataError(f"{what}: expected at least one sample, got none; look at the factory")
    return map_leaves(first, lambda path, _: torch.stack(columns[path]), "sample")


def to_tensor(value: Any, what: str) -> Tensor:
    """Return a tensor on the CPU; PIL images as (channels, height, width) in [0, 1].

    Raises:
        DataError: anything else than numbers.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray | np.generic | int | float):
        try:
            return torch.tensor(np.array(value))  # copied: also where strides are negative
        except TypeError as error:
            raise DataError(
                f"{what}: expected numbers, got an array of {np.asarray(value).dtype}; number "
                f"names with np.unique(names, return_inverse=True)[1], and turn text into tokens"
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
        f"{what}: expected a tensor, array, image or number, got {type(value).__name__}; turn it "
        f"into numbers, or leave it out (dataset.remove_columns), in the factory"
    )


def _with_rows(tree: Any) -> Any:
    """Return the structure with the lists of numbers in it as arrays: they are no containers."""
    if isinstance(tree, Mapping):
        return {name: _row(part) for name, part in tree.items()}
    if isinstance(tree, tuple | list):
        parts = [_row(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def _row(part: Any) -> Any:
    if isinstance(part, list) and part and all(isinstance(entry, NUMBERS) for entry in part):
        try:
            array = np.asarray(part)
        except ValueError:  # rows of different lengths
            return part
        return array if array.dtype.kind in "biuf" else part
    return _with_rows(part)
