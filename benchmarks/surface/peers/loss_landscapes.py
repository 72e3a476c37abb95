"""loss_landscapes (marcellodebernardi/loss-landscapes): its metric of one batch of all samples."""

from __future__ import annotations

from collections.abc import Callable

import loss_landscapes.metrics
import torch
from loss_landscapes.model_interface.model_wrapper import SimpleModelWrapper
from torch import nn

from benchmarks.surface.subject import Plane


def losses(plane: Plane) -> Callable[[float, float], float]:
    """Return the loss by its metric, the weights set as its loops do: by adding to them."""
    model = plane.network()
    metric = loss_landscapes.metrics.Loss(nn.CrossEntropyLoss(), *plane.data)
    wrapper = SimpleModelWrapper(model)
    origin = [parameter.data.clone() for parameter in model.parameters()]
    across, up = (list(direction.values()) for direction in plane.directions)

    def loss(x: float, y: float) -> float:
        pieces = zip(model.parameters(), origin, across, up, strict=True)
        with torch.no_grad():
            for parameter, weight, d0, d1 in pieces:
                parameter.copy_(weight).add_(d0, alpha=x).add_(d1, alpha=y)
        return float(metric(wrapper))

    return loss
