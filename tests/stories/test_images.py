"""Images: segmentation with pixels that do not count, and networks of timm."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from isoloss.landscape import Problem


class UNet(nn.Module):
    """One level down and up again, with the way around."""

    def __init__(self, classes=3):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.middle = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x):
        beside = self.down(x)
        return self.head(torch.cat([self.up(self.middle(beside)), beside], 1))


def test_segmentation_with_ignored_pixels(check):
    x, y = torch.randn(6, 1, 8, 8), torch.randint(3, (6, 8, 8))
    y[x[:, 0] > 1], y[0] = 255, 255  # the first image does not count at all
    model = UNet()
    batches = list(zip(x.split(4), y.split(4), strict=True))
    problem = Problem(model, nn.CrossEntropyLoss(ignore_index=255), batches)
    check(problem, model, lambda m, d: cross_entropy(m(d[0]), d[1], ignore_index=255), (x, y))
    assert problem.total_weight == (y != 255).sum()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_network_of_timm(check, name):
    timm = pytest.importorskip("timm", reason="needs the extra `stories`")
    size = {"img_size": 32} if name == "test_vit" else {}
    model = timm.create_model(name, pretrained=False, in_chans=1, num_classes=3, **size)
    with torch.no_grad():  # weights of 0 leave ReLUs at their kinks
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    data = (torch.randn(4, 1, 32, 32), torch.arange(4) % 3)
    problem = Problem(model, nn.CrossEntropyLoss(), [data])
    check(problem, model, lambda m, d: cross_entropy(m(d[0]), d[1]), data)
