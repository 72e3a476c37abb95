"""Wide and CIFAR residual networks, VGG-9, DenseNet: structure and names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isoloss.models import ModelError, create_model
from isoloss.models.resnet import BasicBlock, ZeroPadShortcut
from isoloss.models.wide_resnet import Unit


def convolutions(model: nn.Module, side: int) -> int:
    return sum(isinstance(m, nn.Conv2d) and m.kernel_size[0] == side for m in model.modules())


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2), (28, 1)])
def test_depth_of_a_wide_resnet(depth: int, width: int) -> None:
    model = create_model("wide-resnet", {"depth": depth, "width": width})
    # Its name counts the convolutions, the shortcuts' among them.
    assert convolutions(model, 3) + convolutions(model, 1) == depth
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert [group[0].conv1.out_channels for group in model.groups] == [
        16 * width, 32 * width, 64 * width
    ]  # fmt: skip
    longer = create_model("wide-resnet", {"depth": depth, "width": width, "form": "sam-project"})
    assert convolutions(longer, 3) == convolutions(model, 3) + 6


def test_wide_unit_by_hand() -> None:
    unit = Unit(2, 3, 2, 0.0, projected=True).double().eval()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    y = (x / (1 + unit.bn1.eps) ** 0.5).clamp(min=0)
    z = nn.functional.conv2d(y, unit.conv1.weight, stride=2, padding=1)
    z = (z / (1 + unit.bn2.eps) ** 0.5).clamp(min=0)
    shortcut = nn.functional.conv2d(y, unit.shortcut.weight, stride=2)
    expected = nn.functional.conv2d(z, unit.conv2.weight, padding=1) + shortcut
    # The same operations in float64.
    torch.testing.assert_close(unit(x), expected, rtol=1e-12, atol=1e-12)


def test_units_start_as_the_identity_without_their_last_convolution() -> None:
    x = torch.randn(2, 4, 6, 6)
    for unit in (Unit(4, 4, 1, 0.3, False), BasicBlock(4, 4, 1, "projection")):
        nn.init.zeros_(unit.conv2.weight)
        y = unit(x)
        assert torch.equal(y, x if isinstance(unit, Unit) else x.clamp(min=0))
    without = BasicBlock(4, 4, 1, "none")
    nn.init.zeros_(without.conv2.weight)
    assert without(x).abs().max() == 0


def test_dropout_of_a_wide_resnet() -> None:
    model = create_model("wide-resnet", {"depth": 10, "width": 1, "dropout": 0.3})
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3] * 3


def test_zero_padded_shortcut() -> None:
    x = torch.arange(2 * 16, dtype=torch.float32).reshape(1, 2, 4, 4)
    y = ZeroPadShortcut(2, 2)(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert y[:, 0].abs().max() == y[:, 3].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Names in the checkpoints of Li et al. 2018's code.
        ("resnet56", {
            "conv1.weight": (16, 3, 3, 3), "bn1.running_mean": (16,),
            "layer1.8.conv2.weight": (16, 16, 3, 3), "layer2.0.shortcut.0.weight": (32, 16, 1, 1),
            "layer3.0.shortcut.1.bias": (64,), "linear.weight": (10, 64),
        }),
        ("resnet56-noshort", {"layer2.0.conv1.weight": (32, 16, 3, 3), "linear.bias": (10,)}),
        ("vgg9", {
            "features.0.weight": (64, 3, 3, 3), "features.1.running_var": (64,),
            "features.20.bias": (256,), "fc.0.weight": (256, 4096), "fc.1.weight": (256,),
            "classifier.weight": (10, 256),
        }),
        ("densenet121", {
            "conv1.weight": (64, 3, 3, 3), "dense1.0.bn1.weight": (64,),
            "dense1.5.conv2.weight": (32, 128, 3, 3), "trans1.conv.weight": (128, 256, 1, 1),
            "trans3.bn.bias": (1024,), "dense4.15.conv1.weight": (128, 992, 1, 1),
            "bn.running_mean": (1024,), "linear.weight": (10, 1024),
        }),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_published_checkpoints_fit(name: str, expected: dict[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        state = create_model(name).state_dict()
    assert {key: tuple(state[key].shape) for key in expected} == expected
    assert not any("shortcut" in key for key in state) or name == "resnet56"


def test_dense_layers_put_new_channels_first() -> None:
    model = create_model("densenet121", {"growth": 2})
    x = torch.randn(1, 4, 4, 4)
    assert torch.equal(model.dense1[0](x)[:, 2:], x)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("wide-resnet", {"depth": 20}, r"6 n \+ 4.*got depth 20"),
        ("wide-resnet", {"width": 0}, "width of at least 1"),
        ("wide-resnet", {"form": "sam"}, "one of standard, sam-project; got 'sam'"),
        ("resnet20", {"shortcut": "none"}, "one of projection, zero-pad; got 'none'"),
        ("densenet121", {"growth": 0}, "growth of at least 1"),
        ("vgg9", {"input_shape": (187, 1)}, "vgg9 expects images"),
    ],
)
def test_misuse(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, arguments)
