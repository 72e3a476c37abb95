"""The recurrence against the pixels a unit's gradient really reaches."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from isoloss.models import MODELS, create_model, default_facts, model_facts, receptive_field

SHAPES = {
    "a dilated, strided stack": nn.Sequential(
        nn.Conv2d(1, 2, 3, dilation=2), nn.AvgPool2d(3, 2), nn.ReLU(), nn.Conv2d(2, 2, (5, 3))
    ),
    "overlapping pools": nn.Sequential(
        nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(1, 1, 2, stride=3), nn.MaxPool2d(3, 2)
    ),
}


def reached(maps: nn.Module, size: int) -> int:
    """Height or width, the larger, of the pixels that the centre unit of the last map reaches.

    With positive weights and inputs, averages in place of maxima and no normalisation nothing
    cancels: every pixel the unit depends on has a positive derivative.
    """
    maps = _positive(copy.deepcopy(maps).double())
    x = torch.ones(1, _channels(maps), size, size, dtype=torch.float64, requires_grad=True)
    last = maps(x)
    middle = last.shape[-1] // 2
    (gradient,) = torch.autograd.grad(last[0, 0, last.shape[-2] // 2, middle], x)
    rows, columns = (gradient[0].sum(0) != 0).nonzero(as_tuple=True)
    assert 0 < rows.min() <= rows.max() < size - 1, "cut off by the border: enlarge the image"
    return int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1


def _positive(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
            setattr(module, name, average)
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.Conv2d):
            # Around 1 / fan in, so that values stay of order one through many layers.
            nn.init.constant_(child.weight, 1 / child.weight[0].numel())
        else:
            _positive(child)
    return module


def _channels(module: nn.Module) -> int:
    return next(m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d))


def _maps(name: str, averaged: int) -> nn.Module:
    """The network up to its last map; its global average as one of the size it has by default."""
    # The width makes no difference.
    model = create_model(name, {"width": 1} if name == "wide-resnet" else {})
    layers = list(model.children())
    if isinstance(model, nn.Sequential):
        end = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
        layers = layers[:end]
    elif name.startswith("vgg"):
        layers = [model.features]
    else:
        return _Until(model, averaged)
    if averaged:
        layers[-1] = nn.AvgPool2d(averaged)
    return nn.Sequential(*layers)


class _Until(nn.Module):
    """A network whose own forward runs up to the pooling."""

    def __init__(self, model: nn.Module, averaged: int) -> None:
        super().__init__()
        model.pool, model.linear = nn.AvgPool2d(averaged), nn.Identity()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        units = x.shape[-1] // 32
        return self.model(x).unflatten(1, (-1, units, units))


@pytest.mark.parametrize(
    ("name", "averaged", "size", "field"),
    [
        ("fashion-cnn", 0, 64, 10),  # 3, pooled 4, 3x3 at distance 2: 8, pooled 10
        ("mnist-baseline", 0, 96, 24),
        ("mnist-light", 7, 28 * 5, 56),
        ("mnist-constrained", 7, 28 * 5, 56),
        ("vgg9", 0, 128, 44),
        ("resnet20", 8, 32 * 7, 109),
        ("resnet20-noshort", 8, 32 * 7, 109),
        ("wide-resnet", 8, 32 * 5, 81),
    ],
)
def test_registered_networks(name: str, averaged: int, size: int, field: int) -> None:
    facts = default_facts(name)
    assert facts is not None
    assert facts.receptive_field == field == reached(_maps(name, averaged), size)


@pytest.mark.parametrize("maps", SHAPES.values(), ids=SHAPES)
def test_any_stack(maps: nn.Module) -> None:
    assert receptive_field(maps, (1, 60, 60)) == reached(maps, 60)


def test_uneven_axes_give_the_larger() -> None:
    assert receptive_field(nn.Conv2d(1, 1, (3, 7)), (1, 9, 9)) == 7
    assert receptive_field(nn.AdaptiveAvgPool2d((None, 1)), (1, 6, 8)) == 8


class Branches(nn.Module):
    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x)


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_the_widest_branch_counts() -> None:
    branches = Branches(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 5, padding=2))
    assert receptive_field(branches, (1, 8, 8)) == 5


@pytest.mark.parametrize(
    "model",
    [
        Branches(nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 5)),  # 2 pixels apart, and 1
        Undecided(),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 2)),
        nn.AdaptiveAvgPool2d(3),  # windows of unequal size
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.Softmax2d()),
    ],
)
def test_none_where_it_means_nothing(model: nn.Module) -> None:
    assert receptive_field(model, (1, 8, 8)) is None


def test_other_kinds_of_networks_have_none() -> None:
    for name in ("se-cnn", "se-cnn-residual", "ecg-attention", "gcn"):
        facts = default_facts(name)
        assert facts is not None
        assert facts.receptive_field is None
    assert model_facts(create_model("classifier")).receptive_field is None


def test_the_network_stays_as_it_is() -> None:
    model = create_model("mnist-light").train()
    before = copy.deepcopy(model.state_dict())
    assert receptive_field(model, MODELS.get("mnist-light").facts["input_shape"]) == 56
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
