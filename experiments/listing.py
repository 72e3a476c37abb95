"""What can be asked for by name: networks, data, optimizers, schedules, losses, augmentations."""

from __future__ import annotations

from typing import Any

from isoloss.datasets import AUGMENTATIONS, DATASETS
from isoloss.models import MODELS, default_facts
from isoloss.registry import Entry, Registry
from isoloss.trainers.losses import LOSSES
from isoloss.trainers.optimizers import OPTIMIZERS
from isoloss.trainers.schedules import SCHEDULES


def entries(what: str) -> list[dict[str, Any]]:
    """Return the entries of a registry, a dictionary each: name, description, and what else is.

    Args:
        what: "models", "data", "optimizers", "schedules", "losses" or "augmentations".
    """
    if what == "models":
        return _models()
    if what == "data":
        return [
            {
                "name": entry.usage,
                "default model": entry.facts["default_model"],
                "description": _described(DATASETS, entry),
            }
            for entry in DATASETS
        ]

    registry = {
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
        "losses": LOSSES,
        "augmentations": AUGMENTATIONS,
    }[what]
    return [{"name": entry.name, "description": entry.description} for entry in registry]


def _described(registry: Registry[Any], entry: Entry[Any]) -> str:
    """Return the description of an entry, with its other names."""
    return "; ".join([entry.description, *registry.aliases(entry)])


def _models() -> list[dict[str, Any]]:
    """Networks as they are by default; the receptive field in pixels, where it applies."""
    rows = []
    for entry in MODELS:
        facts = default_facts(entry.name)
        field = "" if facts is None or facts.receptive_field is None else facts.receptive_field
        rows.append(
            {
                "name": entry.usage,
                "parameters": "" if facts is None else f"{facts.parameters:,}",
                "field": field,
                "description": _described(MODELS, entry),
            }
        )
    return rows
