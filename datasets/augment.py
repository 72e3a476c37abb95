"""Random changes of training images, by name and with stated values.

Each draws from the generator it is given, on the CPU, so that the same generator gives the same
images on any device; each sample has draws of its own. Where pixels are needed from outside the
image they are black, the raw value 0 as the data's normalisation maps it, unless stated otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from isoloss.datasets.catalogue import DataError
from isoloss.datasets.info import DataInfo
from isoloss.registry import Registry

#: augment(images (batch, channels, height, width), generator) -> images of that shape and dtype.
Augmentation = Callable[[Tensor, Generator], Tensor]

#: factory(black (channels or 1, 1, 1)) -> Augmentation; the fact `values` holds what is stated.
AUGMENTATIONS: Registry[Callable[[Tensor], Augmentation]] = Registry("augmentation")


def create_augmentation(name: str, info: DataInfo) -> Augmentation:
    """Return the augmentation of that name for data of that kind.

    Args:
        name: in `AUGMENTATIONS`.
        info: of the data; says what is black.

    Raises:
        UnknownNameError: no such augmentation.
        DataError: data that are no images, for any but "none".
    """
    factory = AUGMENTATIONS.get(name).factory
    if name == "none":
        return factory(torch.zeros(1))
    if len(info.input_shape) != 3:
        raise DataError(
            f"augmentation {name!r} expects images (channels, height, width), got samples of "
            f"shape {info.input_shape}; leave it out"
        )
    black = torch.zeros(info.input_shape[0], 1, 1)
    if info.normalisation is not None:
        black = info.normalisation.apply(black)
    return factory(black)


@AUGMENTATIONS.register("none", "images as they are", values={})
def none(black: Tensor) -> Augmentation:
    """Change nothing."""
    return lambda images, generator: images


ROTATE_SHIFT = {"rotation_degrees": 15.0, "shift": 0.1, "flip": 0.5}


@AUGMENTATIONS.register(
    "rotate-shift",
    "rotation up to 15 degrees, shifts up to 0.1 of the size, horizontal flip of every second",
    values=ROTATE_SHIFT,
)
def rotate_shift(black: Tensor) -> Augmentation:
    """Flip with probability 1/2, rotate by up to 15 degrees, shift by up to 0.1 each way.

    All uniform, bilinear; outside the image its nearest pixel is continued.
    """

    def augment(images: Tensor, generator: Generator) -> Tensor:
        return _affine(images, generator, None, **ROTATE_SHIFT)

    return augment


AFFINE = {"rotation_degrees": 10.0, "shift": 0.1, "scale": 0.1, "shear_degrees": 5.0}


@AUGMENTATIONS.register(
    "affine",
    "rotation up to 10 degrees, shifts up to 0.1, scale 0.9 to 1.1, shear up to 5 degrees",
    values=AFFINE,
)
def affine(black: Tensor) -> Augmentation:
    """Rotate, shift, scale and shear along x, no flip: for digits and letters.

    All uniform, bilinear; black outside the image.
    """

    def augment(images: Tensor, generator: Generator) -> Tensor:
        return _affine(images, generator, black, **AFFINE)

    return augment


PAD = 4
FLIP = 0.5
HOLE = 16


@AUGMENTATIONS.register(
    "crop-flip",
    "4 black pixels on every side, a random crop of the size, horizontal flip of every second",
    values={"pad": PAD, "flip": FLIP},
)
def crop_flip(black: Tensor) -> Augmentation:
    """Pad by 4, crop at a random place, flip with probability 1/2 (He et al. 2016, 4.2)."""

    def augment(images: Tensor, generator: Generator) -> Tensor:
        return _flip(_crop(images, generator, PAD, black), generator, FLIP)

    return augment


@AUGMENTATIONS.register(
    "crop-flip-cutout",
    "crop-flip, then a square hole of 16x16 with its centre anywhere",
    values={"pad": PAD, "flip": FLIP, "hole": HOLE},
)
def crop_flip_cutout(black: Tensor) -> Augmentation:
    """Do `crop_flip`, then cut a hole of 16x16 around a random pixel, cut off by the image's edge.

    The hole is 0 after normalisation, the mean of the data (DeVries and Taylor 2017; 16 is their
    value for CIFAR-10).
    """

    def augment(images: Tensor, generator: Generator) -> Tensor:
        images = _flip(_crop(images, generator, PAD, black), generator, FLIP)
        return _cutout(images, generator, HOLE)

    return augment


def _uniform(count: int, limit: float, generator: Generator) -> Tensor:
    """Return (count,) float32 in [-limit, limit)."""
    return (2 * torch.rand(count, generator=generator) - 1) * limit


def _affine(
    images: Tensor,
    generator: Generator,
    black: Tensor | None,
    *,
    rotation_degrees: float,
    shift: float,
    scale: float = 0.0,
    shear_degrees: float = 0.0,
    flip: float = 0.0,
) -> Tensor:
    """Draw the map from output to input pixels; `black` None continues the nearest pixel."""
    batch, _, height, width = images.shape
    angle = _uniform(batch, math.radians(rotation_degrees), generator)
    shear = _uniform(batch, math.radians(shear_degrees), generator).tan()
    zoom = 1 + _uniform(batch, scale, generator)
    mirror = 1 - 2 * (torch.rand(batch, generator=generator) < flip).float()
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    # In pixels: mirror times rotation times shear. affine_grid counts each axis from -1 to 1, so
    # the terms that mix axes get the ratio of the sides; a shift by s of the size is 2 s there.
    rows = [
        [mirror * cos, mirror * (cos * shear - sin) * (height / width)],
        [sin * (width / height), sin * shear + cos],
    ]
    shifts = [2 * _uniform(batch, shift, generator) for _ in rows]
    theta = torch.stack(
        [torch.stack([*row, move], 1) for row, move in zip(rows, shifts, strict=True)], 1
    )
    # In half precision the grid itself would be off by tenths of a pixel.
    dtype = torch.promote_types(images.dtype, torch.float32)
    grid = affine_grid(theta.to(images.device, dtype), list(images.shape), align_corners=False)
    values = images.to(dtype)
    if black is None:
        moved = grid_sample(values, grid, padding_mode="border", align_corners=False)
    else:
        outside = black.to(values)
        moved = grid_sample(values - outside, grid, align_corners=False) + outside
    return moved.to(images.dtype)


def _crop(images: Tensor, generator: Generator, pad: int, black: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    padded = (
        black.to(images).expand(channels, 1, 1).repeat(batch, 1, height + 2 * pad, width + 2 * pad)
    )
    padded[:, :, pad : pad + height, pad : pad + width] = images
    corner = torch.randint(0, 2 * pad + 1, (2, batch, 1), generator=generator)
    rows = (corner[0] + torch.arange(height)).to(images.device)
    columns = (corner[1] + torch.arange(width)).to(images.device)
    sample = torch.arange(batch, device=images.device)[:, None, None]
    # Indices on both sides of the channels put these last.
    cropped = padded[sample, :, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()


def _flip(images: Tensor, generator: Generator, probability: float) -> Tensor:
    flipped = torch.rand(len(images), generator=generator) < probability
    return torch.where(flipped.to(images.device)[:, None, None, None], images.flip(3), images)


def _cutout(images: Tensor, generator: Generator, size: int) -> Tensor:
    batch, _, height, width = images.shape
    inside = []
    for length in (height, width):
        centre = torch.randint(0, length, (batch, 1), generator=generator)
        offset = torch.arange(length) - centre + size // 2
        inside.append((offset >= 0) & (offset < size))
    hole = (inside[0][:, :, None] & inside[1][:, None, :])[:, None].to(images.device)
    return images.masked_fill(hole, 0)
