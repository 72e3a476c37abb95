"""VGG-9 for CIFAR images, as in Li et al. 2018."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from isoloss.models.catalogue import MODELS, image_shape


class VGG9(nn.Module):
    """3x3 convolutions 64, 64 | 128, 128 | 256, 256, 256, pooled at each bar, and two linear.

    Batch norm and ReLU after each layer but the last. Parameters are named as in Li et al.'s own
    code, whose checkpoints load as they are.

    Args:
        in_channels: of an image.
        size: (height, width) of an image; pools round up.
        num_classes: number of logits.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, convolutions in ((64, 2), (128, 2), (256, 3)):
            for _ in range(convolutions):
                layers += [nn.Conv2d(in_channels, channels, 3, padding=1)]
                layers += [nn.BatchNorm2d(channels), nn.ReLU()]
                in_channels = channels
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        units = -(-size[0] // 8) * -(-size[1] // 8)
        self.fc = nn.Sequential(nn.Linear(256 * units, 256), nn.BatchNorm1d(256), nn.ReLU())
        self.classifier = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, num_classes)."""
        return self.classifier(self.fc(self.features(x).flatten(1)))


@MODELS.register(
    "vgg9",
    "seven 3x3 convolutions (64 to 256) with batch norm, 256 units",
    inputs="image",
    input_shape=(3, 32, 32),
    datasets=("cifar10", "cifar100"),
    smallest={},
    smallest_shape=(3, 8, 8),
)
def vgg9(
    input_shape: Sequence[int] = (3, 32, 32),
    num_classes: int = 10,
    in_channels: int | None = None,
) -> VGG9:
    """Build the shallow VGG of Li et al. 2018; 2,789,706 parameters for CIFAR-10.

    Args:
        input_shape: (channels, height, width) of an image.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.

    Raises:
        ModelError: inputs that are no images.
    """
    channels, height, width = image_shape("vgg9", input_shape, in_channels)
    return VGG9(channels, (height, width), num_classes)
