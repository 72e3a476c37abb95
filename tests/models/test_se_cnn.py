from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isoloss.models import ModelError, create_model, model_facts
from isoloss.models.se_cnn import SEBlock, SqueezeExcitation

IMAGES = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def gates(se: SqueezeExcitation, x: torch.Tensor) -> torch.Tensor:
    z = x.mean(dim=(2, 3))
    hidden = (z @ se.squeeze.weight.T + se.squeeze.bias).clamp(min=0)
    return 1 / (1 + torch.exp(-(hidden @ se.excite.weight.T + se.excite.bias)))


@pytest.mark.parametrize("shortcut", ["none", "conv", "zero-pad"])
def test_order_within_a_block(shortcut: str) -> None:
    block = SEBlock(3, 16, dilation=2, shortcut=shortcut).double()
    x = torch.randn(4, 3, 10, 10, dtype=torch.float64)
    y = F.conv2d(x, block.conv.weight, block.conv.bias, padding=2, dilation=2).clamp(min=0)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / torch.sqrt(
        y.var((0, 2, 3), keepdim=True, unbiased=False) + block.bn.eps
    )
    y = y * gates(block.se, y)[:, :, None, None]
    if shortcut == "conv":
        y = y + torch.einsum("oi,bihw->bohw", block.shortcut.weight[:, :, 0, 0], x)
        y = y + block.shortcut.bias[:, None, None]
    if shortcut == "zero-pad":
        y = torch.cat([y[:, :3] + x, y[:, 3:]], 1)
    expected = y.reshape(4, 16, 5, 2, 5, 2).amax((3, 5))
    # The same operations in float64, summed in another order.
    torch.testing.assert_close(block(x), expected, rtol=1e-11, atol=1e-11)


def test_gates_scale_channels_between_0_and_1() -> None:
    se = SqueezeExcitation(32)
    assert se.squeeze.out_features == 2
    nn.init.zeros_(se.excite.weight)
    nn.init.zeros_(se.excite.bias)
    x = torch.randn(2, 32, 3, 3)
    assert torch.equal(se(x), x / 2)


@pytest.mark.parametrize("name", ["se-cnn", "se-cnn-residual"])
@pytest.mark.parametrize(
    ("arguments", "features", "layers"),
    [
        ({}, 128, [128, 10]),
        ({"blocks": 2}, 64, [128, 10]),
        ({"head": "flatten"}, 128 * 3 * 3, [128, 10]),
        ({"blocks": 2, "head": "flatten", "fc2": 64}, 64 * 7 * 7, [128, 64, 10]),
        ({"fc2": 32}, 128, [128, 32, 10]),
    ],
)
def test_variants(name: str, arguments: dict, features: int, layers: list[int]) -> None:
    model = create_model(name, arguments)
    assert model(IMAGES).shape == (2, 10)
    linear = [module for module in model.head if isinstance(module, nn.Linear)]
    assert linear[0].in_features == features
    assert [module.out_features for module in linear] == layers
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5]
    dilations = [block.conv.dilation[0] for block in model.blocks]
    assert dilations == [1, 1, 2][: len(dilations)]
    # Weight decay: the head's weights, neither its biases nor the gates'.
    decayed = dict(model.named_parameters())
    assert model.weight_decay_names() <= set(decayed)
    assert [decayed[n].shape for n in sorted(model.weight_decay_names())] == [
        m.weight.shape for m in linear
    ]


def test_counts() -> None:
    convolutions = 9 * (32 + 32 * 64 + 64 * 128) + 224
    gated = sum(2 * c * (c // 16) + c + c // 16 for c in (32, 64, 128))
    plain = convolutions + 2 * 224 + gated + 129 * 128 + 1290
    assert model_facts(create_model("se-cnn")).parameters == plain
    padded = create_model("se-cnn-residual", {"shortcut": "zero-pad"})
    assert model_facts(padded).parameters == plain
    projected = 32 + 32 * 64 + 64 * 128 + 224
    assert model_facts(create_model("se-cnn-residual")).parameters == plain + projected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 4}, "blocks of se-cnn-residual is one of 2, 3; got 4"),
        ({"head": "max"}, "one of gap, flatten; got 'max'"),
        ({"fc2": 16}, "one of None, 64, 32; got 16"),
        ({"shortcut": "none"}, "one of conv, zero-pad; got 'none'"),
        ({"shortcut": "zero-pad", "in_channels": 64}, "up to 32 channels, got 64"),
        ({"input_shape": (1, 4, 4)}, "at least 8x8"),
    ],
)
def test_misuse(arguments: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("se-cnn-residual", arguments)
