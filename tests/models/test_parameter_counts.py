"""Published parameter counts, and the same by formulas of our own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from isoloss.models import create_model, model_facts


def count(spec: str, arguments: dict[str, Any] | None = None) -> int:
    with torch.device("meta"):
        return model_facts(create_model(spec, arguments)).parameters


def cifar_resnet(blocks: int, projections: bool) -> int:
    """3x3 convolutions without biases, two numbers a channel in batch norm, linear 64-10."""
    convolutions = 27 * 16 + 2 * blocks * 9 * 16**2
    norms = 2 * 16 * (1 + 2 * blocks)
    for width in (32, 64):
        convolutions += 9 * width * width // 2 + (2 * blocks - 1) * 9 * width**2
        norms += 2 * width * 2 * blocks
        if projections:
            convolutions, norms = convolutions + width * width // 2, norms + 2 * width
    return convolutions + norms + 64 * 10 + 10


def wide_resnet(units: int, k: int) -> int:
    total, before = 27 * 16, 16
    for width in (16 * k, 32 * k, 64 * k):
        total += before * width * (9 + 1) + 9 * width**2 + 2 * before + 2 * width
        total += (units - 1) * (2 * 9 * width**2 + 4 * width)
        before = width
    return total + 2 * before + before * 10 + 10


@pytest.mark.parametrize(
    ("spec", "arguments", "published", "formula"),
    [
        ("mnist-baseline", {}, 21_538, 9 * 2152 + 216 * 10 + 10),
        ("mnist-light", {}, 6_308, 9 * 668 + 2 * 68 + 160),
        ("mnist-constrained", {}, 7_718, 9 * 822 + 2 * 75 + 160 + 10),
        ("wide-resnet", {}, 10_961_370, wide_resnet(2, 8)),
        ("wide-resnet", {"form": "sam-project"}, 17_158_106, wide_resnet(3, 8)),
        ("wide-resnet", {"depth": 28, "width": 10}, 36_479_194, wide_resnet(4, 10)),
        ("ecg-attention", {}, 19_528_109, 19_314_181 + 213_128 + 400 + 400),
        ("resnet20", {"shortcut": "zero-pad"}, 269_722, cifar_resnet(3, False)),
        ("resnet56", {"shortcut": "zero-pad"}, 853_018, cifar_resnet(9, False)),
        ("resnet110", {"shortcut": "zero-pad"}, 1_727_962, cifar_resnet(18, False)),
        ("resnet20", {}, 272_474, cifar_resnet(3, True)),
        ("resnet56", {}, 855_770, cifar_resnet(9, True)),
        ("resnet110", {}, 1_730_714, cifar_resnet(18, True)),
        ("resnet56-noshort", {}, 853_018, cifar_resnet(9, False)),
        ("vgg9", {}, 2_789_706, 1_735_488 + 2 * 1152 + 4096 * 256 + 256 + 512 + 2570),
        ("densenet121", {}, 6_956_298, None),
        ("torchvision:densenet121", {"num_classes": 1000}, 7_978_856, None),
        ("torchvision:resnet18", {"num_classes": 1000}, 11_689_512, None),
    ],
)
def test_counts(spec: str, arguments: dict[str, Any], published: int, formula: int | None) -> None:
    assert count(spec, arguments) == published
    assert formula in (None, published)


def test_round_numbers_of_the_residual_paper() -> None:
    # He et al. 2016a, Table 6, in millions.
    counts = [count(f"resnet{depth}", {"shortcut": "zero-pad"}) for depth in (20, 56, 110)]
    assert [f"{n / 1e6:.2g}" for n in counts] == ["0.27", "0.85", "1.7"]
