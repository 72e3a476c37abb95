"""Densely connected networks (Huang et al. 2017) for CIFAR images, as in Li et al. 2018."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isoloss.models.catalogue import MODELS, ModelError, image_shape


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1 conv to 4k, BN, ReLU, 3x3 conv to k new channels, put before the input's.

    Args:
        in_channels: of the input.
        growth: k.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, growth + in_channels, h, w)."""
        y = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([self.conv2(F.relu(self.bn2(y))), x], 1)


class Transition(nn.Module):
    """BN, ReLU, 1x1 convolution to half the channels, 2x2 average pool.

    Args:
        in_channels: of the input.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, in_channels / 2, h / 2, w / 2)."""
        return self.pool(self.conv(F.relu(self.bn(x))))


class DenseNet121(nn.Module):
    """3x3 conv to 2k channels; dense blocks of 6, 12, 24, 16 layers; BN, ReLU, average, linear.

    Transitions stand between the blocks. Parameters are named as in Li et al.'s own code, whose
    checkpoints load as they are.

    Args:
        in_channels: of an image.
        num_classes: number of logits.
        growth: k.
    """

    def __init__(self, in_channels: int, num_classes: int, growth: int) -> None:
        super().__init__()
        channels = 2 * growth
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.dense1, channels = _dense_block(channels, growth, 6)
        self.trans1 = Transition(channels)
        self.dense2, channels = _dense_block(channels // 2, growth, 12)
        self.trans2 = Transition(channels)
        self.dense3, channels = _dense_block(channels // 2, growth, 24)
        self.trans3 = Transition(channels)
        self.dense4, channels = _dense_block(channels // 2, growth, 16)
        self.bn = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, num_classes)."""
        y = self.trans1(self.dense1(self.conv1(x)))
        y = self.trans2(self.dense2(y))
        y = self.dense4(self.trans3(self.dense3(y)))
        return self.linear(self.pool(F.relu(self.bn(y))).flatten(1))


def _dense_block(channels: int, growth: int, layers: int) -> tuple[nn.Sequential, int]:
    """Return the layers, and the number of channels after them."""
    block = nn.Sequential(*(DenseLayer(channels + i * growth, growth) for i in range(layers)))
    return block, channels + layers * growth


@MODELS.register(
    "densenet121",
    "dense blocks of 6, 12, 24 and 16 layers for CIFAR images",
    inputs="image",
    input_shape=(3, 32, 32),
    datasets=("cifar10", "cifar100"),
    smallest={"growth": 2},
    smallest_shape=(3, 8, 8),
)
def densenet121(
    input_shape: Sequence[int] = (3, 32, 32),
    num_classes: int = 10,
    in_channels: int | None = None,
    growth: int = 32,
) -> DenseNet121:
    """Build DenseNet-121 in the CIFAR form of Li et al. 2018; 6,956,298 parameters for CIFAR-10.

    In place of the 7x7 convolution and the max-pool for large images it has a 3x3 convolution.

    Args:
        input_shape: (channels, height, width) of an image, at least 8x8.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.
        growth: new channels of each layer.

    Raises:
        ModelError: inputs that are no such images, or a growth below 1.
    """
    if growth < 1:
        raise ModelError(f"densenet121 expects a growth of at least 1, got {growth}")
    channels, *_ = image_shape("densenet121", input_shape, in_channels, 8)
    return DenseNet121(channels, num_classes, growth)
