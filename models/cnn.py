"""Two plain convolutional networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from isoloss.models.catalogue import MODELS, image_shape


@MODELS.register(
    "fashion-cnn",
    "two 3x3 convolutions (16, 32), each pooled, and 128 units",
    inputs="image",
    input_shape=(1, 28, 28),
    datasets=("fashion-mnist", "mnist", "digits"),
    smallest={},
    smallest_shape=(1, 4, 4),
)
def fashion_cnn(
    input_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    in_channels: int | None = None,
) -> nn.Sequential:
    """Build conv 16, ReLU, pool, conv 32, ReLU, pool, linear 128, ReLU, linear.

    3x3 convolutions with padding 1, 2x2 max-pools. 206,922 parameters for 28x28 images in one
    channel and 10 classes, where 32 * 7 * 7 = 1568 features enter the first linear layer.

    Args:
        input_shape: (channels, height, width) of an image, at least 4x4.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.

    Raises:
        ModelError: inputs that are no such images.
    """
    return _network("fashion-cnn", (16, 32), input_shape, num_classes, in_channels)


@MODELS.register(
    "classifier",
    "one 3x3 convolution (16), pooled, and 128 units",
    inputs="image",
    input_shape=(1, 28, 28),
    datasets=("fashion-mnist", "mnist"),
    smallest={},
    smallest_shape=(1, 4, 4),
)
def classifier(
    input_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    in_channels: int | None = None,
) -> nn.Sequential:
    """Build conv 16, ReLU, pool, linear 128, ReLU, linear.

    A 3x3 convolution with padding 1, a 2x2 max-pool. 402,986 parameters for 28x28 images in one
    channel and 10 classes, where 16 * 14 * 14 = 3136 features enter the first linear layer.

    Args:
        input_shape: (channels, height, width) of an image, at least 2x2.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.

    Raises:
        ModelError: inputs that are no such images.
    """
    return _network("classifier", (16,), input_shape, num_classes, in_channels)


def _network(
    name: str,
    widths: Sequence[int],
    input_shape: Sequence[int],
    num_classes: int,
    in_channels: int | None,
) -> nn.Sequential:
    channels, height, width = image_shape(name, input_shape, in_channels, 2 ** len(widths))
    layers: list[nn.Module] = []
    for features in widths:
        layers += [nn.Conv2d(channels, features, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width = features, height // 2, width // 2
    layers += [nn.Flatten(), nn.Linear(channels * height * width, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, num_classes))
