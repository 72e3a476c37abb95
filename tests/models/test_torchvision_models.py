from __future__ import annotations

import pytest
import torch

from isoloss.models import ModelError, create_model
from isoloss.registry import UnknownNameError

COLOUR = {"in_channels": 3, "input_shape": (3, 32, 32), "num_classes": 7}


def test_arguments_are_passed_on() -> None:
    spec = "torchvision:mobilenet_v3_small"
    with torch.device("meta"):
        narrow = create_model(spec, {"width_mult": 0.5}, COLOUR)
        plain = create_model(spec, {}, COLOUR)
    assert narrow.classifier[-1].out_features == 7
    assert narrow.features[-1].out_channels < plain.features[-1].out_channels


def test_vision_transformers_fit_the_images() -> None:
    with torch.device("meta"):
        model = create_model("torchvision:vit_b_16", {}, COLOUR)
    assert model.image_size == 32


def test_auxiliary_outputs_are_left_out() -> None:
    with torch.device("meta"):
        model = create_model("torchvision:googlenet", {}, COLOUR).train()
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("resnet81", {}, UnknownNameError, "no classification network 'resnet81'; did you mean"),
        ("zzz", {}, UnknownNameError, "it has: alexnet, "),
        ("resnet18", {"depth": 3}, ModelError, "unexpected keyword argument 'depth'"),
        ("resnet18", {"weights": "DEFAULT"}, ModelError, "would be downloaded"),
        ("alexnet", {}, ModelError, r"cannot be built for images \(3, 32, 32\): .*too small"),
        ("resnet18", {"in_channels": 1}, ModelError, "3 channels, got in_channels 1.*\nchoose"),
        ("resnet18", {"input_shape": (187, 1)}, ModelError, r"3 channels.*\(187, 1\)"),
    ],
)
def test_misuse(name: str, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_model(f"torchvision:{name}", arguments, COLOUR)
