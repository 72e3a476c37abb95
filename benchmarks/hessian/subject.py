"""The network and the data that all contenders get, and the products to compare with."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn import functional as F

from isoloss.datasets import DataError, load_data
from isoloss.models import create_model

KINDS = ("hessian", "ggn", "empirical-fisher")
BATCH = 1000  # of those who ask for batches, as people choose it
STEPS, RATE, SEED, TRAINING_BATCH = 40, 0.1, 0, 100
COUNT, TOLERANCE = 5, 1e-4  # of the eigenvalues
LANCZOS_STEPS = 100  # of the density
REFERENCE_BATCH = 50
Product = Callable[[Tensor], Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What a comparison is of: a network, the first images of its training split, and threads."""

    images: int
    threads: int
    network_name: str = "fashion-cnn"

    def source(self) -> str:
        """Say in words what the data are."""
        images = f"{len(self.data[0]):,} images of {self._split[0]}"
        return f"{self.network_name} on {images}, {self.threads} threads"

    @cached_property
    def _split(self) -> tuple[str, Tensor, Tensor]:
        folder = os.environ.get("ISOLOSS_DATA")
        if self.network_name == "resnet20":
            return _coloured(None if folder is None else Path(folder), self.images)
        try:
            if folder is None:
                raise DataError("no folder with data")
            name, split = "MNIST", load_data("mnist", data_dir=folder).train
        except DataError:
            name, split = "scikit-learn's digits", load_data("digits").train
        batch = next(iter(split.batches(self.images)))
        return name, batch[0].float(), batch[1]

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        """Images (count, channels, height, width), float32, and classes (count,)."""
        return self._split[1:]

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The data in batches of `BATCH`."""
        return self._cut(BATCH)

    def _cut(self, size: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(*(tensor.split(size) for tensor in self.data), strict=True))

    def network(self) -> nn.Module:
        """Return the network in float32, after `STEPS` steps of gradient descent."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            shape = {"input_shape": tuple(self.data[0].shape[1:]), "num_classes": 10}
            model = create_model(self.network_name, {}, shape)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        batches = self._cut(TRAINING_BATCH)
        for step in range(STEPS):
            images, targets = batches[step % len(batches)]
            optimizer.zero_grad()
            F.cross_entropy(model(images), targets).backward()
            optimizer.step()
        return model.eval()


def _coloured(folder: Path | None, count: int) -> tuple[str, Tensor, Tensor]:
    """Return images of CIFAR-10, or noise of their shape where there are none."""
    file = None if folder is None else folder / "cifar10-subset.npz"
    if file is not None and file.exists():
        with np.load(file) as stored:
            images, targets = stored["x_train"][:count], stored["y_train"][:count]
        mean, deviation = 0.4734, 0.2516  # of all pixels of CIFAR-10
        scaled = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / deviation
        return "CIFAR-10", scaled.contiguous(), torch.from_numpy(targets)
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(count, 3, 32, 32, generator=generator)
    return "noise", noise, torch.randint(0, 10, (count,), generator=generator)


def stored(name: str, compute: Callable[[], T]) -> T:
    """Return what was computed before for that name, on this machine since it was started."""
    key = hashlib.sha256(f"{name}, torch {torch.__version__}".encode()).hexdigest()[:20]
    file = Path(tempfile.gettempdir()) / f"isoloss-benchmark-{key}.pt"
    if not file.exists():
        torch.save(compute(), file)
    found: T = torch.load(file, weights_only=True)
    return found


def vector(size: int, index: int = 0) -> Tensor:
    """Return a random unit vector, (size,) float32, the same for all contenders."""
    found = torch.randn(size, generator=torch.Generator().manual_seed(1000 + index))
    return found / found.norm()


def references(settings: Settings, v: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
    """Return products of kinds with v in float64, (n,) each, from their definitions."""
    model = settings.network().double()
    shapes = {name: p.detach() for name, p in model.named_parameters()}
    theta = torch.cat([p.reshape(-1) for p in shapes.values()])
    v = v.double()
    images, targets = settings.data[0].double(), settings.data[1]
    total = {kind: torch.zeros_like(theta) for kind in kinds}

    def outputs(flat: Tensor, x: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in shapes.values()])
        point = {
            name: part.view_as(p) for (name, p), part in zip(shapes.items(), parts, strict=True)
        }
        return functional_call(model, point, (x,))

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs(flat, x), y, reduction="sum")

    for x, y in zip(images.split(REFERENCE_BATCH), targets.split(REFERENCE_BATCH), strict=True):
        if "hessian" in kinds:
            total["hessian"] += jvp(grad(partial(loss, x=x, y=y)), (theta,), (v,))[1]
        if "ggn" in kinds:
            f, moved = jvp(partial(outputs, x=x), (theta,), (v,))
            p = f.softmax(1)
            curved = p * moved - p * (p * moved).sum(1, keepdim=True)
            total["ggn"] += vjp(partial(outputs, x=x), theta)[1](curved)[0]
        if "empirical-fisher" in kinds:
            one = vmap(grad(loss), in_dims=(None, 0, 0))
            gradients = one(theta, x[:, None], y[:, None])
            total["empirical-fisher"] += gradients.T @ (gradients @ v)
    return {kind: found / len(images) for kind, found in total.items()}
