"""The classification networks of torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from isoloss.models.catalogue import MODELS, ModelError
from isoloss.registry import UnknownNameError

# Both would return auxiliary logits beside the logits, and warn that their initialisation is slow.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


@MODELS.register(
    "torchvision:",
    "any classification network of torchvision, untrained; its arguments are passed on",
    inputs="image",
    input_shape=(3, 224, 224),
    datasets=("cifar10", "cifar100"),
    smallest={},
    smallest_shape=(3, 32, 32),
    example="torchvision:shufflenet_v2_x0_5",
)
def torchvision_model(
    name: str,
    input_shape: Sequence[int] = (3, 224, 224),
    num_classes: int = 10,
    in_channels: int | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build a network of `torchvision.models`, its weights drawn anew.

    Vision transformers are built for the size of the images unless `image_size` is given.

    Args:
        name: as torchvision calls it: resnet18, vit_b_16, ..
        input_shape: (channels, height, width) of an image.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.
        arguments: any others of torchvision's builder.

    Raises:
        UnknownNameError: no such network.
        ModelError: arguments that torchvision does not take, or images the network cannot take.
    """
    # Here and not above: torchvision takes a second to import.
    from torchvision import models

    names = models.list_models(module=models)
    spec = f"torchvision:{name}"
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(names)}"
        raise UnknownNameError(f"torchvision has no classification network {name!r}; {hint}")
    if arguments.get("weights") is not None:
        raise ModelError(
            f"{spec}: trained weights would be downloaded; leave out weights, "
            "and load a state dict as a checkpoint"
        )
    channels = in_channels or input_shape[0]
    if len(input_shape) != 3 or channels != 3:
        raise ModelError(
            f"{spec} takes images in 3 channels, got in_channels {channels} and input_shape "
            f"{tuple(input_shape)}\nchoose a network that takes any number of channels, as "
            "resnet20, or wrap it in a factory of your own: path/file.py:factory"
        )
    settings = {**_DEFAULTS.get(name, {}), **arguments, "num_classes": num_classes}
    if name.startswith("vit_"):
        settings.setdefault("image_size", input_shape[1])
    try:
        # On tensors without data first: what cannot take the images fails here, and at once.
        with torch.device("meta"):
            models.get_model(name, **settings).eval()(torch.empty(1, *input_shape))
    except Exception as error:
        raise ModelError(
            f"{spec} cannot be built for images {tuple(input_shape)}: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    return models.get_model(name, **settings)
