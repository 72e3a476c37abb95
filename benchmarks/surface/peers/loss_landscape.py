"""The loop of tomgoldstein/loss-landscape, written anew from what it does.

At each point the weights are set to theta0 + x d_x + y d_y tensor by tensor; a `DataLoader` gives
batches of 1,000, of images that are turned into tensors and normalised one by one, as people have
their data, or of tensors; the batch means of the loss are weighted by their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from benchmarks.surface.subject import DEVIATION, MEAN, Plane

BATCH = 1000


class Images(Dataset[Any]):
    """Images as torchvision has MNIST: a picture, and what makes a tensor of it when it is asked.

    Args:
        images: (count, 1, height, width), normalised.
        targets: Classes.
        of_mnist: Whether they are 256 grey levels.
    """

    def __init__(self, images: Tensor, targets: Tensor, of_mnist: bool) -> None:
        steps: list[Any] = [transforms.ToTensor()]
        pixels = images[:, 0]
        if of_mnist:
            pixels = ((pixels * DEVIATION + MEAN) * 255).round().to(torch.uint8)
            steps.append(transforms.Normalize((MEAN,), (DEVIATION,)))
        self._pixels, self._targets = pixels, targets
        self._change = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self._pixels[index].numpy())
        return self._change(image), int(self._targets[index])


def as_run(plane: Plane) -> Callable[[float, float], float]:
    """Return the loss by its loop over images."""
    return _loop(plane, Images(*plane.data, plane.of_mnist))


def of_tensors(plane: Plane) -> Callable[[float, float], float]:
    """Return the loss by its loop over tensors."""
    return _loop(plane, TensorDataset(*plane.data))


def _loop(plane: Plane, data: Dataset[Any]) -> Callable[[float, float], float]:
    model = plane.network()
    loader = DataLoader(data, batch_size=BATCH, shuffle=False)
    criterion = nn.CrossEntropyLoss()
    origin = [parameter.data.clone() for parameter in model.parameters()]
    across, up = (list(direction.values()) for direction in plane.directions)

    def loss(x: float, y: float) -> float:
        changes = [d0 * x + d1 * y for d0, d1 in zip(across, up, strict=True)]
        for parameter, weight, change in zip(model.parameters(), origin, changes, strict=True):
            parameter.data = weight + change
        model.eval()
        total, correct, count = 0.0, 0, 0
        with torch.no_grad():
            for images, targets in loader:
                outputs = model(images)
                total += criterion(outputs, targets).item() * len(targets)
                correct += outputs.max(1)[1].eq(targets).sum().item()
                count += len(targets)
        return total / count

    return loss
