"""Networks of a few thousand parameters for MNIST."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from isoloss.models.catalogue import MODELS, image_shape

_FACTS = {
    "inputs": "image",
    "input_shape": (1, 28, 28),
    "datasets": ("mnist",),
    "smallest": {},
}


@MODELS.register(
    "mnist-baseline",
    "eight plain 3x3 convolutions, one max-pool, one linear layer",
    smallest_shape=(1, 24, 24),
    **_FACTS,
)
def mnist_baseline(
    input_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    in_channels: int | None = None,
) -> nn.Sequential:
    """Build eight 3x3 convolutions with ReLU, 2x2 max-pool after the fifth, a linear head.

    Channels 8, 8, 12, 16, 16, 24, 24, 24 without bias or padding; neither batch norm nor dropout.
    21,538 parameters for 28x28 images in one channel and 10 classes (24 * 3 * 3 = 216 features).

    Args:
        input_shape: (channels, height, width) of an image, at least 24x24.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.

    Raises:
        ModelError: inputs that are no such images.
    """
    channels, *size = image_shape("mnist-baseline", input_shape, in_channels, 24)
    layers: list[nn.Module] = []
    for i, width in enumerate((8, 8, 12, 16, 16, 24, 24, 24)):
        layers += [nn.Conv2d(channels, width, 3, bias=False), nn.ReLU()]
        channels = width
        if i == 4:
            layers.append(nn.MaxPool2d(2))
    # Five convolutions take 10 pixels, the pool halves, three convolutions take 6.
    height, width = ((s - 10) // 2 - 6 for s in size)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, num_classes))


@MODELS.register(
    "mnist-light",
    "six 3x3 convolutions with batch norm and dropout, averaged, no large linear layer",
    smallest_shape=(1, 4, 4),
    **_FACTS,
)
def mnist_light(
    input_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    in_channels: int | None = None,
    dropout: float = 0.05,
) -> nn.Sequential:
    """Build six 3x3 convolutions, each with batch norm and ReLU; global average; output layer.

    Max-pools and dropout after the second and the fourth. 6,308 parameters for one channel and 10
    classes. The count is the source's; it gives no channel list. Ours is 8, 8, 10, 10, 16, 16,
    stages of two, without biases.

    Args:
        input_shape: (channels, height, width) of an image, at least 4x4.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.
        dropout: probability, after each max-pool; ours, too.

    Raises:
        ModelError: inputs that are no such images.
    """
    channels, *_ = image_shape("mnist-light", input_shape, in_channels, 4)
    layers = _stages(channels, (8, 8, 10, 10, 16, 16), dropout)
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes, bias=False)
    )


@MODELS.register(
    "mnist-constrained",
    "six 3x3 convolutions with batch norm in three stages, averaged: sees 56 pixels",
    smallest_shape=(1, 4, 4),
    **_FACTS,
)
def mnist_constrained(
    input_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    in_channels: int | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Build six 3x3 convolutions, each with batch norm and ReLU; global average; output layer.

    Max-pools after the second and the fourth. For 28x28 images the last map is 7x7: a unit of it
    sees 32 pixels along a side, its average 32 + 6 * 4 = 56. 7,718 parameters for one channel and
    10 classes. The count, the pools and the first channels, 8 and 10, are the source's. The rest
    of the list 8, 10, 13, 13, 15, 16 is ours: of those that never narrow it is the one that meets
    the count with batch norm and without biases before the output's.

    Args:
        input_shape: (channels, height, width) of an image, at least 4x4.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.
        dropout: probability, after each max-pool.

    Raises:
        ModelError: inputs that are no such images.
    """
    channels, *_ = image_shape("mnist-constrained", input_shape, in_channels, 4)
    layers = _stages(channels, (8, 10, 13, 13, 15, 16), dropout)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


def _stages(channels: int, widths: Sequence[int], dropout: float) -> list[nn.Module]:
    """Build 3x3 convolutions with batch norm and ReLU, pooled after the second and the fourth."""
    layers: list[nn.Module] = []
    for i, width in enumerate(widths):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers.append(nn.ReLU())
        channels = width
        if i in (1, 3):
            layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
    return layers
