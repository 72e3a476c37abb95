"""Residual networks for CIFAR images, with and without shortcuts, as Li et al. 2018 draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from isoloss.models.catalogue import MODELS, check_choice, image_shape

SHORTCUTS = ("projection", "zero-pad", "none")


class ZeroPadShortcut(nn.Module):
    """Every second pixel and channels of zeros added: option A of He et al. 2016a, section 4.2.

    Args:
        added: number of channels to add, half of them on either side.
        stride: 2 where the image is halved.
    """

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added = added
        self.every = nn.AvgPool2d(1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c, h, w) to (batch, c + added, h / stride, w / stride)."""
        before = self.added // 2
        return F.pad(self.every(x), (0, 0, 0, 0, before, self.added - before))


class BasicBlock(nn.Module):
    """3x3 conv, BN, ReLU, 3x3 conv, BN, added to the shortcut, ReLU (He et al. 2016a, Fig. 2).

    Args:
        in_channels: of the input.
        channels: of the output.
        stride: of the first convolution.
        shortcut: one of `SHORTCUTS`.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module | None = None
        if shortcut != "none":
            self.shortcut = nn.Sequential()  # the identity
            if stride != 1 or in_channels != channels:
                self.shortcut = (
                    nn.Sequential(
                        nn.Conv2d(in_channels, channels, 1, stride, bias=False),
                        nn.BatchNorm2d(channels),
                    )
                    if shortcut == "projection"
                    else ZeroPadShortcut(channels - in_channels, stride)
                )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, channels, h / stride, w / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y if self.shortcut is None else y + self.shortcut(x))


class CifarResNet(nn.Module):
    """3x3 conv 16; three stages of n blocks with 16, 32, 64 channels; average; linear.

    Depth 6 n + 2. The second and third stage halve the image. Parameters are named as in Li et
    al.'s own code, whose checkpoints load as they are.

    Args:
        in_channels: of an image.
        num_classes: number of logits.
        blocks: n.
        shortcut: one of `SHORTCUTS`.
    """

    def __init__(self, in_channels: int, num_classes: int, blocks: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks, shortcut)
        self.layer2 = self._stage(16, 32, 2, blocks, shortcut)
        self.layer3 = self._stage(32, 64, 2, blocks, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(before: int, channels: int, stride: int, blocks: int, shortcut: str) -> nn.Module:
        rest = (BasicBlock(channels, channels, 1, shortcut) for _ in range(blocks - 1))
        return nn.Sequential(BasicBlock(before, channels, stride, shortcut), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, num_classes)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        return self.linear(self.pool(y).flatten(1))


_FACTS = {
    "inputs": "image",
    "input_shape": (3, 32, 32),
    "datasets": ("cifar10", "cifar100"),
    "smallest": {},
    "smallest_shape": (3, 8, 8),
}


def _residual(name: str, blocks: int) -> Callable[..., nn.Module]:
    def build(
        input_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        in_channels: int | None = None,
        shortcut: str = "projection",
    ) -> CifarResNet:
        """Build a residual network of He et al. 2016a, section 4.2.

        He et al. use zero-padded shortcuts and count 0.27, 0.85 and 1.7 million parameters for
        depths 20, 56 and 110: 269,722, 853,018 and 1,727,962 with 10 classes. Li et al. 2018 use
        1x1 convolutions with batch norm where the shape changes, which is the default here, as
        their surfaces and checkpoints are of this form: 2,752 parameters more.

        Args:
            input_shape: (channels, height, width) of an image, at least 4x4.
            num_classes: number of logits.
            in_channels: channels of an image; the first of `input_shape` unless given.
            shortcut: "projection" or "zero-pad".

        Raises:
            ModelError: inputs that are no such images, or another shortcut.
        """
        check_choice(f"shortcut of {name}", shortcut, SHORTCUTS[:2])
        channels, *_ = image_shape(name, input_shape, in_channels, 4)
        return CifarResNet(channels, num_classes, blocks, shortcut)

    return build


def _plain(name: str, blocks: int) -> Callable[..., nn.Module]:
    def build(
        input_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        in_channels: int | None = None,
    ) -> CifarResNet:
        """Build the same network without its shortcuts (Li et al. 2018, section 6.1).

        Args:
            input_shape: (channels, height, width) of an image, at least 4x4.
            num_classes: number of logits.
            in_channels: channels of an image; the first of `input_shape` unless given.

        Raises:
            ModelError: inputs that are no such images.
        """
        channels, *_ = image_shape(name, input_shape, in_channels, 4)
        return CifarResNet(channels, num_classes, blocks, "none")

    return build


for _depth in (20, 56, 110):
    _name, _n = f"resnet{_depth}", (_depth - 2) // 6
    MODELS.register(_name, f"residual network of depth {_depth} for CIFAR images", **_FACTS)(
        _residual(_name, _n)
    )
    MODELS.register(f"{_name}-noshort", f"{_name} without its shortcuts", **_FACTS)(
        _plain(f"{_name}-noshort", _n)
    )
