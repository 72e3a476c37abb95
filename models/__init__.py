"""The networks: one family a file, found by name or in somebody else's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from isoloss.models import cnn as cnn  # each registers its networks
from isoloss.models import densenet as densenet
from isoloss.models import ecg_attention as ecg_attention
from isoloss.models import gcn as gcn
from isoloss.models import mlp as mlp
from isoloss.models import mnist as mnist
from isoloss.models import resnet as resnet
from isoloss.models import se_cnn as se_cnn
from isoloss.models import torchvision_models as torchvision_models
from isoloss.models import vgg as vgg
from isoloss.models import wide_resnet as wide_resnet
from isoloss.models.catalogue import MODELS, ModelError, ModelFacts, model_facts
from isoloss.models.receptive_field import receptive_field
from isoloss.registry import call_with_arguments, is_plugin, load_factory

__all__ = [
    "MODELS",
    "ModelError",
    "ModelFacts",
    "create_model",
    "default_facts",
    "default_optimizer",
    "forms",
    "model_facts",
    "receptive_field",
]


def default_optimizer(spec: str) -> str:
    """Return the optimizer a network trains well with: the fact `optimizer` where it has one."""
    if is_plugin(spec, MODELS):
        return "sgd"
    return str(MODELS.get(spec).facts.get("optimizer", "sgd"))


def forms(spec: str) -> tuple[str, ...]:
    """Return what a network's argument `form` chooses among, its default first; often nothing."""
    return () if is_plugin(spec, MODELS) else MODELS.get(spec).facts.get("forms", ())


def create_model(
    spec: str, arguments: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build a network.

    Weights are drawn from torch's global generator: seed it first for the same ones.

    Example:
        >>> model = create_model("fashion-cnn", {"num_classes": 26})
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 26])

    Args:
        spec: a name of `MODELS`, ``torchvision:NAME`` or ``path/file.py:factory``.
        arguments: the user's, by name.
        context: what is known of the data (`DataInfo.model_context`): in_channels, num_features,
            num_classes, input_shape. Those the factory names are passed unless in `arguments`.

    Raises:
        UnknownNameError: no such network.
        PluginError: the file cannot be loaded or fails.
        ArgumentError: unknown or missing arguments.
        ModelError: arguments that fit no such network, or a factory that builds no `nn.Module`.
    """
    factory = load_factory(spec, MODELS)
    model = call_with_arguments(factory, arguments or {}, context or {}, f"model {spec!r}")
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model {spec!r}: expected the factory to return an nn.Module, "
            f"got {type(model).__name__}"
        )
    return model


def default_facts(name: str) -> ModelFacts | None:
    """Return the facts of a registered network with its default arguments, None for a family.

    The network is built without memory for its weights.

    Raises:
        UnknownNameError: no such network.
    """
    entry = MODELS.get(name)
    if entry.is_family:
        return None
    with torch.device("meta"):
        return model_facts(entry.factory(), entry.facts["input_shape"])
