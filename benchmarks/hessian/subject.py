"""The network and the data that all contenders get, and the products to compare with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn import functional as F

from isoloss.datasets import DataError, load_data
from isoloss.models import create_model

KINDS = ("hessian", "ggn", "empirical-fisher")
BATCH = 100  # of the training, and of those who ask for batches: what isoloss chooses, too
STEPS, RATE, SEED = 40, 0.1, 0
REFERENCE_BATCH = 50
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """What a comparison is of: the first images of the training split, and threads of torch."""

    images: int
    threads: int

    def source(self) -> str:
        """Say in words what the data are."""
        name = "MNIST" if self._split[0] == "mnist" else "scikit-learn's digits"
        return f"fashion-cnn on {len(self.data[0]):,} images of {name}, {self.threads} threads"

    @cached_property
    def _split(self) -> tuple[str, Tensor, Tensor]:
        folder = os.environ.get("ISOLOSS_DATA")
        try:
            if folder is None:
                raise DataError("no folder with data")
            name, split = "mnist", load_data("mnist", data_dir=folder).train
        except DataError:
            name, split = "digits", load_data("digits").train
        batch = next(iter(split.batches(self.images)))
        return name, batch[0].float(), batch[1]

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        """Images (count, 1, height, width), float32, and classes (count,)."""
        return self._split[1:]

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The data in batches of `BATCH`."""
        return list(zip(*(tensor.split(BATCH) for tensor in self.data), strict=True))

    def network(self) -> nn.Module:
        """Return the network in float32, after `STEPS` steps of gradient descent."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            shape = {"input_shape": tuple(self.data[0].shape[1:]), "num_classes": 10}
            model = create_model("fashion-cnn", {}, shape)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        for step in range(STEPS):
            images, targets = self.batches[step % len(self.batches)]
            optimizer.zero_grad()
            F.cross_entropy(model(images), targets).backward()
            optimizer.step()
        return model.eval()


def vector(size: int, index: int = 0) -> Tensor:
    """Return a random unit vector, (size,) float32, the same for all contenders."""
    found = torch.randn(size, generator=torch.Generator().manual_seed(1000 + index))
    return found / found.norm()


def references(settings: Settings, v: Tensor) -> dict[str, Tensor]:
    """Return the products of each kind with v in float64, (n,) each, from their definitions."""
    model = settings.network().double()
    shapes = {name: p.detach() for name, p in model.named_parameters()}
    theta = torch.cat([p.reshape(-1) for p in shapes.values()])
    v = v.double()
    images, targets = settings.data[0].double(), settings.data[1]
    total = {kind: torch.zeros_like(theta) for kind in KINDS}

    def outputs(flat: Tensor, x: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in shapes.values()])
        point = {
            name: part.view_as(p) for (name, p), part in zip(shapes.items(), parts, strict=True)
        }
        return functional_call(model, point, (x,))

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs(flat, x), y, reduction="sum")

    for x, y in zip(images.split(REFERENCE_BATCH), targets.split(REFERENCE_BATCH), strict=True):
        total["hessian"] += jvp(grad(partial(loss, x=x, y=y)), (theta,), (v,))[1]
        f, moved = jvp(partial(outputs, x=x), (theta,), (v,))
        p = f.softmax(1)
        curved = p * moved - p * (p * moved).sum(1, keepdim=True)
        total["ggn"] += vjp(partial(outputs, x=x), theta)[1](curved)[0]
        one = vmap(grad(loss), in_dims=(None, 0, 0))
        gradients = one(theta, x[:, None], y[:, None])
        total["empirical-fisher"] += gradients.T @ (gradients @ v)
    return {kind: found / len(images) for kind, found in total.items()}
