"""What a network, a figure or a report needs to know of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """x = (raw - mean) / std, with one value for all or one a channel.

    Attributes:
        mean: one value, or one a channel.
        std: likewise.
        source: where the values are from, and what the raw values are.
        channel_axis: counted from the end: -3 for images (channels, height, width).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    channel_axis: int = -3

    def apply(self, raw: Tensor) -> Tensor:
        """Normalise raw values, of one sample or of many."""
        return (raw - self._spread(self.mean, raw)) / self._spread(self.std, raw)

    def invert(self, inputs: Tensor) -> Tensor:
        """Undo `apply`."""
        return inputs * self._spread(self.std, inputs) + self._spread(self.mean, inputs)

    def _spread(self, values: Sequence[float], like: Tensor) -> Tensor:
        tensor = torch.tensor(values, dtype=like.dtype, device=like.device)
        return tensor if len(values) == 1 else tensor.view(-1, *[1] * (-self.channel_axis - 1))


@dataclass(frozen=True)
class DataInfo:
    """Facts of a data set.

    Attributes:
        input_shape: of one sample; () where samples differ in shape (graphs).
        num_classes: None unless the task is classification.
        class_names: one a class, in the order of the labels.
        num_features: scalars in one sample, or in one node of a graph.
        task: "classification" or "regression".
        normalisation: what was done to the raw values; None if nothing is known of it.
        notes: what a reader of results should know of the data, a sentence each.
        class_groups: names of classes over which averages are reported beside those of all, where
            the field does so: (("N", "S", "V", "F"),) where Q all but vanishes.
        digest: SHA-256 of all splits as they are used.
    """

    input_shape: tuple[int, ...]
    num_classes: int | None
    class_names: tuple[str, ...]
    num_features: int
    task: str = "classification"
    normalisation: Normalisation | None = None
    notes: tuple[str, ...] = ()
    class_groups: tuple[tuple[str, ...], ...] = ()
    digest: str = ""

    def __post_init__(self) -> None:
        if self.task == "classification" and (self.num_classes or 0) < 1:
            raise ValueError(f"expected at least one class, got num_classes {self.num_classes}")
        if len(self.class_names) != (self.num_classes or 0):
            raise ValueError(
                f"expected one class name for each of {self.num_classes or 0} classes, "
                f"got {len(self.class_names)}"
            )
        unknown = {name for group in self.class_groups for name in group} - {*self.class_names}
        if unknown:
            raise ValueError(f"class groups name no class: {', '.join(sorted(unknown))}")

    @property
    def in_channels(self) -> int | None:
        """Channels of an image (channels, height, width); None for anything else."""
        return self.input_shape[0] if len(self.input_shape) == 3 else None

    def model_context(self) -> dict[str, Any]:
        """Return what a model factory may ask for by naming it in its signature."""
        return {
            "in_channels": self.in_channels,
            "num_features": self.num_features,
            "num_classes": self.num_classes,
            "input_shape": self.input_shape or None,
        }

    def denormalise(self, inputs: Tensor) -> Tensor:
        """Return the raw values of normalised inputs (..., *input_shape), for showing samples."""
        return inputs if self.normalisation is None else self.normalisation.invert(inputs)

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataInfo:
        """Read what `to_json` wrote, also after a round through JSON."""
        fields = dict(values)
        stated = fields.get("normalisation")
        if isinstance(stated, Mapping):
            channels = {name: tuple(stated[name]) for name in ("mean", "std")}
            fields["normalisation"] = Normalisation(**{**stated, **channels})
        for name in ("input_shape", "class_names", "notes"):
            fields[name] = tuple(fields.get(name, ()))  # notes are newer than some files
        fields["class_groups"] = tuple(tuple(group) for group in fields.get("class_groups", ()))
        return cls(**fields)
