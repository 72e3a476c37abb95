"""Wide residual networks (Zagoruyko & Komodakis 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from isoloss.models.catalogue import MODELS, ModelError, check_choice, image_shape

FORMS = ("standard", "sam-project")


class Unit(nn.Module):
    """Pre-activation residual unit: BN, ReLU, 3x3 conv, BN, ReLU, dropout, 3x3 conv, added to x.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input (He et al.
    2016b, "Identity mappings", Fig. 4e with the projection after the first activation).

    Args:
        in_channels: of the input.
        channels: of the output.
        stride: of the first convolution.
        dropout: probability.
        projected: whether the shortcut is a convolution.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, dropout: float, projected: bool
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut = (
            nn.Conv2d(in_channels, channels, 1, stride, bias=False) if projected else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, channels, h / stride, w / stride)."""
        y = F.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        return self.conv2(self.dropout(F.relu(self.bn2(y)))) + kept


class WideResNet(nn.Module):
    """3x3 conv 16; three groups of units of width 16k, 32k, 64k; BN, ReLU, average, linear.

    The second and third group halve the image. Convolutions start from He et al. 2015's normal
    distribution (fan in).

    Args:
        in_channels: of an image.
        num_classes: number of logits.
        width: k.
        units: of a group.
        dropout: probability, within the units.
    """

    def __init__(
        self, in_channels: int, num_classes: int, width: int, units: int, dropout: float
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        groups, last = [], 16
        for channels, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            first = Unit(last, channels, stride, dropout, projected=True)
            rest = (Unit(channels, channels, 1, dropout, False) for _ in range(units - 1))
            groups.append(nn.Sequential(first, *rest))
            last = channels
        self.groups = nn.Sequential(*groups)
        self.bn = nn.BatchNorm2d(last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, num_classes)."""
        y = F.relu(self.bn(self.groups(self.conv(x))))
        return self.linear(self.pool(y).flatten(1))


@MODELS.register(
    "wide-resnet",
    "pre-activation WRN-depth-width, 16-8 unless told; or the SAM project's form of it",
    inputs="image",
    input_shape=(3, 32, 32),
    datasets=("cifar10", "cifar100"),
    smallest={"depth": 10, "width": 1},
    smallest_shape=(3, 8, 8),
    forms=FORMS,
)
def wide_resnet(
    input_shape: Sequence[int] = (3, 32, 32),
    num_classes: int = 10,
    in_channels: int | None = None,
    depth: int = 16,
    width: int = 8,
    dropout: float = 0.0,
    form: str = "standard",
) -> WideResNet:
    """Build WRN-depth-width; with 10 classes WRN-16-8 has 10,961,370 parameters.

    The first unit of each group also has a 1x1 convolution as its shortcut.

    Args:
        input_shape: (channels, height, width) of an image, at least 4x4.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.
        depth: 6 n + 4, n the units of a group in the standard form.
        width: k, the multiple of 16, 32, 64 channels.
        dropout: probability, between the two convolutions of a unit.
        form: "standard"; or "sam-project", where n units follow the one that changes the shape,
            so that its WRN-16-8 has 17,158,106 parameters and, in truth, 22 layers.

    Raises:
        ModelError: inputs that are no such images, or an argument that is none of its choices.
    """
    channels, *_ = image_shape("wide-resnet", input_shape, in_channels, 4)
    check_choice("form of wide-resnet", form, FORMS)
    if depth < 10 or depth % 6 != 4 or width < 1:
        raise ModelError(
            f"wide-resnet expects a depth of 10, 16, 22, 28, .. (6 n + 4) and a width of at "
            f"least 1, got depth {depth} and width {width}"
        )
    units = (depth - 4) // 6 + (form == "sam-project")
    return WideResNet(channels, num_classes, width, units, dropout)
