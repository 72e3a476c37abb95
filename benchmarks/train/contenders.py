"""Those that train: `Trainer`, and loops written by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from isoloss.datasets import Data, DataError, load_data
from isoloss.datasets.augment import Augmentation, create_augmentation
from isoloss.datasets.splits import TensorSplit
from isoloss.models import create_model
from isoloss.trainers.optimizers import build_optimizer, resolve_optimizer
from isoloss.trainers.seeds import AUGMENTATION, epoch_order, epoch_seed
from isoloss.trainers.settings import TrainingSettings
from isoloss.trainers.trainer import Trainer

BATCH, SEED, RATE, MOMENTUM, RHO = 128, 0, 0.05, 0.9, 0.05


class Contender(Protocol):
    """A network in training."""

    model: nn.Module

    def epoch(self, index: int) -> None:
        """Train one epoch, numbered from 0."""


class Subject:
    """The images that all train on."""

    def __init__(self, count: int, data: Data | None = None) -> None:
        self.name, self.data = _load() if data is None else ("", data)
        images, targets = next(iter(self.data.train.batches(count)))
        self.images, self.targets = images.float(), targets

    def source(self) -> str:
        """Say in words what they are."""
        return f"fashion-cnn on {len(self.images):,} images of {self.name}"

    def first(self, steps: int) -> Subject:
        """Return the images of so many steps."""
        return Subject(min(steps * BATCH, len(self.images)), self.data)

    def network(self, dtype: torch.dtype) -> nn.Module:
        """Return the network as it is initialised."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            shape = {"input_shape": tuple(self.images.shape[1:]), "num_classes": 10}
            return create_model("fashion-cnn", {}, shape).to(dtype)


class Ours:
    """`Trainer`."""

    def __init__(
        self, subject: Subject, optimizer: str, augment: Augmentation | None, dtype: torch.dtype
    ) -> None:
        self.model = subject.network(dtype)
        base = {"base": "sgd", "rho": RHO} if optimizer == "sam" else {}
        settings = resolve_optimizer(optimizer, lr=RATE, momentum=MOMENTUM, **base)
        self._trainer = Trainer(
            self.model,
            nn.CrossEntropyLoss(),
            build_optimizer(settings, self.model),
            TensorSplit(subject.images, subject.targets),
            None,
            TrainingSettings(epochs=10**6, batch_size=BATCH, seed=SEED),
            augment=augment,
        )

    def epoch(self, index: int) -> None:
        """Train one epoch."""
        self._trainer.train_epoch()


class ByHand:
    """A loop over tensors, with the loss added up for the log."""

    def __init__(
        self, subject: Subject, optimizer: str, augment: Augmentation | None, dtype: torch.dtype
    ) -> None:
        self.model = subject.network(dtype).train()
        self._images, self._targets = subject.images, subject.targets
        self._augment, self._sam, self._dtype = augment, optimizer == "sam", dtype
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=MOMENTUM)

    def epoch(self, index: int) -> None:
        """Train one epoch."""
        generator = torch.Generator().manual_seed(epoch_seed(SEED, index, AUGMENTATION))
        total = 0.0
        for chosen in epoch_order(SEED, index, len(self._images)).split(BATCH):
            images, targets = self._images[chosen], self._targets[chosen]
            if self._augment is not None:
                images = self._augment(images, generator)
            images = images.to(self._dtype)
            loss = self._backward(images, targets)
            if self._sam:
                moved = self._ascend()
                self._backward(images, targets)
                with torch.no_grad():
                    for p, e in moved:
                        p.sub_(e)
            self._optimizer.step()
            total += loss * len(targets)

    def _backward(self, images: Tensor, targets: Tensor) -> float:
        self._optimizer.zero_grad()
        loss = F.cross_entropy(self.model(images), targets)
        loss.backward()
        return loss.item()

    @torch.no_grad()
    def _ascend(self) -> list[tuple[Tensor, Tensor]]:
        gradients = [(p, p.grad) for p in self.model.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for _, g in gradients]).norm()
        moved = [(p, g * (RHO / norm)) for p, g in gradients]
        for p, e in moved:
            p.add_(e)
        return moved


class OverLoader:
    """SGD over torch's `DataLoader`, in this process."""

    def __init__(self, subject: Subject, augment: Augmentation | None, dtype: torch.dtype) -> None:
        self.model = subject.network(dtype).train()
        self._augment, self._dtype = augment, dtype
        data = TensorDataset(subject.images, subject.targets)
        generator = torch.Generator().manual_seed(SEED)
        self._loader = DataLoader(data, BATCH, shuffle=True, generator=generator)
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=MOMENTUM)

    def epoch(self, index: int) -> None:
        """Train one epoch."""
        generator = torch.Generator().manual_seed(index)
        for images, targets in self._loader:
            changed = images if self._augment is None else self._augment(images, generator)
            self._optimizer.zero_grad()
            loss = F.cross_entropy(self.model(changed.to(self._dtype)), targets)
            loss.backward()
            self._optimizer.step()


def contenders(
    subject: Subject, augmentation: str, peers: bool, dtype: torch.dtype = torch.float32
) -> dict[str, Contender]:
    """Return everybody at the start, by name."""
    chosen = create_augmentation(augmentation, subject.data.info)
    augment = None if augmentation == "none" else chosen
    found: dict[str, Contender] = {}
    for name in ("sgd", "sam"):
        found[f"by hand, {name}"] = ByHand(subject, name, augment, dtype)
        found[f"isoloss, {name}"] = Ours(subject, name, augment, dtype)
    if peers:
        found["DataLoader, sgd"] = OverLoader(subject, augment, dtype)
    return found


def difference(group: Mapping[str, Contender], name: str) -> float | None:
    """Return ||w - w'|| / ||w'||, w' of the loop by hand of the same optimizer."""
    who, optimizer = name.split(", ")
    if who != "isoloss":
        return None
    own, other = (
        torch.cat([p.detach().double().flatten() for p in group[each].model.parameters()])
        for each in (name, f"by hand, {optimizer}")
    )
    return float((own - other).norm() / other.norm())


def _load() -> tuple[str, Data]:
    folder = os.environ.get("ISOLOSS_DATA")
    try:
        if folder is None:
            raise DataError("no folder with data")
        return "MNIST", load_data("mnist", data_dir=folder)
    except DataError:
        return "scikit-learn's digits", load_data("digits")
