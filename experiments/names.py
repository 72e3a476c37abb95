"""Names of networks, data, losses, optimizers and the like, as they are registered."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from isoloss.datasets import AUGMENTATIONS, DATASETS
from isoloss.models import MODELS
from isoloss.registry import Registry
from isoloss.trainers.losses import LOSSES
from isoloss.trainers.optimizers import OPTIMIZERS
from isoloss.trainers.schedules import SCHEDULES

T = TypeVar("T")

REGISTRIES: dict[str, Registry[Any]] = {
    "model": MODELS,
    "dataset": DATASETS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "base": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
}


def spelled(options: T) -> T:
    """Return options with each name as it is registered; see `Registry.resolve`.

    What is stored and compared is then the same however it was written. Arguments that a name
    brings along (`GCN`: form=sam-project) join those that are given, which win.

    Args:
        options: A dataclass with any of the fields of `REGISTRIES`, and `model_arg` beside `model`.

    Raises:
        UnknownNameError: For a name that may be either of two.
    """
    changes: dict[str, Any] = {}
    for field, registry in REGISTRIES.items():
        if (name := getattr(options, field, None)) is None:
            continue
        changes[field], brought = registry.resolve(name)
        if brought:
            changes[f"{field}_arg"] = {**brought, **getattr(options, f"{field}_arg")}
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]
