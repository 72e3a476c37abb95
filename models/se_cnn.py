"""Convolutional networks with squeeze-and-excitation, plain and residual."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isoloss.models.catalogue import MODELS, ModelError, check_choice, image_shape

WIDTHS = (32, 64, 128)


class SqueezeExcitation(nn.Module):
    r"""Channel gates: x_c <- x_c sigmoid(W2 relu(W1 z))_c, z the mean of x over the image.

    Hu, Shen & Sun 2018, section 3, whose reduction ratio 16 is the default.

    Args:
        channels: of x.
        reduction: W1 maps to `channels / reduction` units.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        units = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, units)
        self.excite = nn.Linear(units, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        gates = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * gates[:, :, None, None]


class SEBlock(nn.Module):
    """3x3 convolution, ReLU, batch norm, squeeze-and-excitation, 2x2 max-pool.

    Args:
        in_channels: of the input.
        channels: of the output.
        dilation: of the convolution.
        shortcut: "none"; "conv", a 1x1 convolution, or "zero-pad", the input with channels of
            zeros added; both are added before the pooling, where the images are of one size.
    """

    def __init__(self, in_channels: int, channels: int, dilation: int, shortcut: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=dilation, dilation=dilation)
        self.bn = nn.BatchNorm2d(channels)
        self.se = SqueezeExcitation(channels)
        self.shortcut = nn.Conv2d(in_channels, channels, 1) if shortcut == "conv" else None
        self.added = channels - in_channels if shortcut == "zero-pad" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, channels, h / 2, w / 2)."""
        y = self.se(self.bn(F.relu(self.conv(x))))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        elif self.added is not None:
            y = y + F.pad(x, (0, 0, 0, 0, 0, self.added))
        return F.max_pool2d(y, 2)


class SECNN(nn.Module):
    """Blocks of 32, 64 and 128 channels and a head of one or two hidden linear layers.

    Args:
        channels: of an image.
        size: (height, width) of an image.
        num_classes: number of logits.
        blocks: 2 or 3; the third is dilated by 2.
        head: "gap" averages the last map, "flatten" takes all of it.
        fc2: units of a second hidden layer, None for none.
        dropout: after the first hidden layer.
        shortcut: see `SEBlock`.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        num_classes: int,
        blocks: int,
        head: str,
        fc2: int | None,
        dropout: float,
        shortcut: str,
    ) -> None:
        super().__init__()
        widths = (channels, *WIDTHS[:blocks])
        self.blocks = nn.Sequential(
            *(
                SEBlock(widths[i], widths[i + 1], dilation=2 if i == 2 else 1, shortcut=shortcut)
                for i in range(blocks)
            )
        )
        last = nn.AdaptiveAvgPool2d(1) if head == "gap" else nn.Identity()
        units = 1 if head == "gap" else (size[0] >> blocks) * (size[1] >> blocks)
        layers: list[nn.Module] = [last, nn.Flatten(), nn.Linear(widths[-1] * units, 128)]
        layers += [nn.ReLU(), nn.Dropout(dropout)]
        if fc2 is not None:
            layers += [nn.Linear(128, fc2), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(fc2 or 128, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, num_classes)."""
        return self.head(self.blocks(x))

    def weight_decay_names(self) -> set[str]:
        """Return the names of the parameters with weight decay: the weights of the head."""
        return {name for name, p in self.named_parameters() if name[:5] == "head." and p.ndim > 1}


def _build(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    in_channels: int | None,
    blocks: int,
    head: str,
    fc2: int | None,
    dropout: float,
    shortcut: str,
) -> SECNN:
    check_choice(f"blocks of {name}", blocks, (2, 3))
    check_choice(f"head of {name}", head, ("gap", "flatten"))
    check_choice(f"fc2 of {name}", fc2, (None, 64, 32))
    channels, *size = image_shape(name, input_shape, in_channels, 2**blocks)
    if shortcut == "zero-pad" and channels > WIDTHS[0]:
        raise ModelError(
            f"{name} with shortcut zero-pad takes images of up to {WIDTHS[0]} channels, "
            f"got {channels}; choose shortcut conv"
        )
    return SECNN(channels, (size[0], size[1]), num_classes, blocks, head, fc2, dropout, shortcut)


_FACTS = {
    "inputs": "image",
    "input_shape": (1, 28, 28),
    "datasets": ("fashion-mnist",),
    "smallest": {"blocks": 2},
    "smallest_shape": (1, 4, 4),
}


@MODELS.register(
    "se-cnn", "convolutions 32, 64, 128 with squeeze-and-excitation, 128 units", **_FACTS
)
def se_cnn(
    input_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    in_channels: int | None = None,
    blocks: int = 3,
    head: str = "gap",
    fc2: int | None = None,
    dropout: float = 0.5,
) -> SECNN:
    """Build a squeeze-and-excitation network for small images; logits, no softmax.

    Its weight decay is meant for the linear layers of the head (`SECNN.weight_decay_names`).

    Args:
        input_shape: (channels, height, width) of an image, at least 4x4 or, with 3 blocks, 8x8.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.
        blocks: 2 (32, 64) or 3 (128, dilated by 2).
        head: "gap" or "flatten".
        fc2: units of a second hidden layer: none, 64 or 32.
        dropout: after the 128 units.

    Raises:
        ModelError: inputs that are no such images, or an argument that is none of its choices.
    """
    return _build(
        "se-cnn", input_shape, num_classes, in_channels, blocks, head, fc2, dropout, "none"
    )


@MODELS.register(
    "se-cnn-residual", "se-cnn with a shortcut around each block's convolution", **_FACTS
)
def se_cnn_residual(
    input_shape: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    in_channels: int | None = None,
    shortcut: str = "conv",
    blocks: int = 3,
    head: str = "gap",
    fc2: int | None = None,
    dropout: float = 0.5,
) -> SECNN:
    """Build `se_cnn` with shortcuts that join after squeeze-and-excitation, before the pooling.

    Args:
        input_shape: (channels, height, width) of an image, at least 4x4 or, with 3 blocks, 8x8.
        num_classes: number of logits.
        in_channels: channels of an image; the first of `input_shape` unless given.
        shortcut: "conv" (1x1) or "zero-pad" (no parameters; for images of up to 32 channels).
        blocks: 2 (32, 64) or 3 (128, dilated by 2).
        head: "gap" or "flatten".
        fc2: units of a second hidden layer: none, 64 or 32.
        dropout: after the 128 units.

    Raises:
        ModelError: inputs that are no such images, or an argument that is none of its choices.
    """
    name = "se-cnn-residual"
    check_choice(f"shortcut of {name}", shortcut, ("conv", "zero-pad"))
    return _build(name, input_shape, num_classes, in_channels, blocks, head, fc2, dropout, shortcut)
