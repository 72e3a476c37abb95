"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from isoloss.models.catalogue import MODELS, ModelError, check_choice, image_shape

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


@MODELS.register(
    "mlp",
    "fully connected: two hidden layers of 200 tanh units unless told",
    inputs="image",
    input_shape=(1, 28, 28),
    datasets=("digits", "mnist", "fashion-mnist"),
    smallest={"width": 3, "depth": 1},
    smallest_shape=(1, 2, 2),
)
def mlp(
    width: int = 200,
    depth: int = 2,
    activation: str = "tanh",
    input_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    in_channels: int | None = None,
) -> nn.Sequential:
    """Build hidden layers of linear maps, each with an activation, and a linear layer.

    The defaults are the fully connected network of Cohen et al. 2021 (section 3), two layers of 200
    units. It has 199,210 parameters for 28x28 images in one channel and 10 classes.

    Args:
        width: units of each hidden layer.
        depth: hidden layers; 0 for a linear network.
        activation: of `ACTIVATIONS`: tanh, relu or gelu.
        input_shape: (channels, height, width) of an image.
        num_classes: number of outputs.
        in_channels: channels of an image; the first of `input_shape` unless given.

    Raises:
        ModelError: inputs that are no images, or no such network.
    """
    check_choice("activation of mlp", activation, tuple(ACTIVATIONS))
    for name, value, least in (("width", width, 1), ("depth", depth, 0)):
        if value < least:
            raise ModelError(f"{name} of mlp: expected a number from {least}, got {value!r}")
    features = math.prod(image_shape("mlp", input_shape, in_channels))
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(features, width), ACTIVATIONS[activation]()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
