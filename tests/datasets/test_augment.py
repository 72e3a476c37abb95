from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from isoloss.datasets import AUGMENTATIONS, DataError, DataInfo, Normalisation, create_augmentation
from isoloss.datasets.augment import _affine
from isoloss.registry import UnknownNameError

INFO = DataInfo(
    (3, 12, 10), 2, ("a", "b"), 360, normalisation=Normalisation((0.5,), (0.25,), "test")
)
BLACK = -2.0  # (0 - 0.5) / 0.25


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 64, shape: tuple[int, ...] = (3, 12, 10)) -> Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=generator(7))


def augment(name: str, batch: Tensor, seed: int = 0, info: DataInfo = INFO) -> Tensor:
    return create_augmentation(name, info)(batch, generator(seed))


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_every_augmentation(name: str) -> None:
    batch = images()
    before = batch.clone()
    changed = augment(name, batch)
    torch.manual_seed(3)
    assert torch.equal(changed, augment(name, batch))  # of the generator alone
    assert torch.equal(batch, before)
    for dtype in (torch.float32, torch.bfloat16):
        assert augment(name, batch.to(dtype)).dtype == dtype
    assert (changed.shape, changed.dtype) == (batch.shape, batch.dtype)
    assert torch.equal(changed, batch) == (name == "none")
    if name != "none":
        assert not torch.equal(changed, augment(name, batch, seed=1))
        one = changed[:1] - batch[:1]
        assert not torch.equal(one, changed[1:2] - batch[1:2])  # samples differ
    assert AUGMENTATIONS.get(name).description
    assert isinstance(AUGMENTATIONS.get(name).facts["values"], dict)


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every uniform draw is 1: every change at its limit, no flip below probability 1."""
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.ones(count))


@pytest.mark.usefixtures("largest")
@pytest.mark.parametrize(
    ("shape", "values", "expected"),
    [
        ((1, 9, 9), {"rotation_degrees": 90.0}, lambda x: x.rot90(1, (2, 3))),
        ((1, 9, 9), {"rotation_degrees": 180.0}, lambda x: x.flip(2, 3)),
        ((1, 4, 10), {"rotation_degrees": 180.0}, lambda x: x.flip(2, 3)),
        ((1, 9, 9), {"flip": 2.0}, lambda x: x.flip(3)),
        ((1, 4, 6), {"shift": 0.5}, lambda x: x[:, :, [2, 3, 3, 3]][..., [3, 4, 5, 5, 5, 5]]),
    ],
    ids=["quarter turn", "half turn", "half turn of a rectangle", "mirror", "shift by a half"],
)  # fmt: skip
def test_affine_changes_known_in_closed_form(
    shape: tuple[int, ...], values: Any, expected: Callable[[Tensor], Tensor]
) -> None:
    batch = images(2, shape)
    settings = {"rotation_degrees": 0.0, "shift": 0.0, **values}
    changed = _affine(batch, generator(), None, **settings)
    # the map is drawn in float32: sine of pi is 1e-7, times a few pixels and a slope of a few
    torch.testing.assert_close(changed, expected(batch), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("largest")
def test_rotation_keeps_angles_in_a_rectangle() -> None:
    # a ramp along x, turned by 45 degrees, rises equally along x and y, pixel by pixel
    ramp = torch.arange(40.0, dtype=torch.float64).expand(1, 1, 16, 40)
    turned = _affine(ramp, generator(), None, rotation_degrees=45.0, shift=0.0)[0, 0]
    slope_x, slope_y = turned[8, 21] - turned[8, 20], turned[9, 20] - turned[8, 20]
    assert slope_x.item() == pytest.approx(math.sqrt(0.5), abs=1e-5)
    assert abs(slope_y.item()) == pytest.approx(math.sqrt(0.5), abs=1e-5)


def test_stated_limits_are_kept() -> None:
    # one bright pixel in the middle: bilinear weights give back where it went
    batch = torch.zeros(500, 1, 41, 41, dtype=torch.float64)
    batch[:, 0, 20, 20] = 1
    info = DataInfo((1, 41, 41), 1, ("a",), 1681)
    moved = augment("rotate-shift", batch, info=info)
    grid = torch.arange(41.0, dtype=torch.float64) - 20
    total = moved.sum((1, 2, 3))
    across = (moved.sum((1, 2)) * grid).sum(1) / total
    assert 3.5 < across.abs().max() < 4.1 * math.sqrt(2) + 1  # 0.1 of 41, turned, and a pixel
    assert total.min() > 0.5


def test_black_is_the_raw_zero() -> None:
    batch = torch.ones(200, 3, 12, 10)
    for name in ("crop-flip", "affine"):
        changed = augment(name, batch)
        assert changed.min() == pytest.approx(BLACK, abs=1e-6)
        assert changed.max() <= 1 + 1e-6
    assert (augment("rotate-shift", batch) - 1).abs().max() < 1e-6  # continues the nearest pixel


def test_crop_flip_gives_windows_of_the_padded_image() -> None:
    batch = images(300)
    padded = torch.full((300, 3, 20, 18), BLACK, dtype=torch.float64)
    padded[:, :, 4:16, 4:14] = batch
    changed = augment("crop-flip", batch)
    places = set()
    for before, after in zip(padded, changed, strict=True):
        found = [
            (y, x, flip)
            for y in range(9)
            for x in range(9)
            for flip, window in enumerate((before[:, y : y + 12, x : x + 10],) * 2)
            if torch.equal(after, window.flip(2) if flip else window)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert {y for y, _, _ in places} == {x for _, x, _ in places} == set(range(9))
    flipped = sum(flip for _, _, flip in places) / len(places)
    assert 0.35 < flipped < 0.65  # 4 standard errors of 162 places at most


def test_cutout_is_a_hole_of_16_around_any_pixel() -> None:
    info = DataInfo((3, 32, 32), 1, ("a",), 3072, normalisation=INFO.normalisation)
    batch = torch.ones(600, 3, 32, 32)
    plain = augment("crop-flip", batch, info=info)  # black is -2, so 0 is nowhere
    changed = augment("crop-flip-cutout", batch, info=info)
    hole = changed == 0
    assert torch.equal(changed, plain.masked_fill(hole, 0))
    rows, columns = hole[:, 0].any(2), hole[:, 0].any(1)
    assert torch.equal(hole, (rows[:, :, None] & columns[:, None, :])[:, None].expand_as(hole))
    for side in (rows, columns):
        # half a hole at least, at an edge; anywhere else a whole one, in one piece
        lengths = side.sum(1)
        assert (int(lengths.min()), int(lengths.max())) == (8, 16)
        inside = ~side[:, 0] & ~side[:, -1]
        assert (lengths[inside] == 16).all()
        assert (side.int().diff(dim=1) != 0).sum(1).max() <= 2
        assert side[:, 0].any()
        assert side[:, -1].any()


@pytest.mark.parametrize("name", ["rotate-shift", "affine", "crop-flip", "crop-flip-cutout"])
def test_other_data_than_images_are_refused(name: str) -> None:
    series = DataInfo((187, 1), 2, ("a", "b"), 187)
    with pytest.raises(DataError, match=rf"{name}' expects images .*, got .* \(187, 1\)"):
        create_augmentation(name, series)
    assert create_augmentation("none", series)(torch.ones(2, 187, 1), generator()).shape[0] == 2


def test_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean crop-flip"):
        create_augmentation("crop-flp", INFO)
