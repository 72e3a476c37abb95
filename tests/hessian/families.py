"""Shrunken networks of the families, in float64, and their matrices of curvature by other routes.

Families have wide last layers that no argument narrows: those are replaced by narrow ones of the
same kind, the rest is what the factory (or the family's own block) builds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import flatten, unflatten
from isoloss.models import create_model, se_cnn
from isoloss.models.wide_resnet import Unit
from isoloss.pyg import import_pyg

DOUBLE = torch.float64
CLASSES = 3
COUNT = 13


def fashion_cnn() -> nn.Module:
    net = create_model("fashion-cnn", {}, {"input_shape": (1, 4, 4), "num_classes": CLASSES})
    net[0], net[3] = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
    net[7], net[9] = nn.Linear(3, 20), nn.Linear(20, CLASSES)
    return net


def se_cnn_residual() -> nn.Module:
    wide = se_cnn.WIDTHS
    se_cnn.WIDTHS = (2, 3, 3)
    try:
        context = {"input_shape": (1, 4, 4), "num_classes": CLASSES}
        net = create_model("se-cnn-residual", {"blocks": 2}, context)
    finally:
        se_cnn.WIDTHS = wide
    net.head[2], net.head[-1] = nn.Linear(3, 20), nn.Linear(20, CLASSES)
    return net


def wide_resnet() -> nn.Module:
    context = {"input_shape": (1, 6, 6), "num_classes": CLASSES}
    net = create_model("wide-resnet", {"depth": 10, "width": 1}, context)
    net.conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    net.groups = nn.Sequential(
        Unit(2, 2, 1, 0.0, projected=True), Unit(2, 3, 2, 0.0, projected=True),
        Unit(3, 4, 2, 0.0, projected=True),
    )  # fmt: skip
    net.bn, net.linear = nn.BatchNorm2d(4), nn.Linear(4, CLASSES)
    return net


def ecg_attention() -> nn.Module:
    arguments = {"heads": 2, "d_model": 4, "ffn": 5}
    context = {"input_shape": (4, 1), "num_classes": CLASSES}
    net = create_model("ecg-attention", arguments, context)
    net.head = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, CLASSES))
    return net


def gcn() -> nn.Module:
    return create_model("gcn", {"hidden": 3}, {"num_features": 4, "num_classes": CLASSES})


def images(size: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randn(COUNT, 1, size, size, generator=generator, dtype=DOUBLE)


def series(generator: torch.Generator) -> Tensor:
    return torch.randn(COUNT, 4, 1, generator=generator, dtype=DOUBLE)


def graphs(generator: torch.Generator) -> list[Any]:
    """Rings of 3 to 6 nodes, with a chord in every second one."""
    data, found = import_pyg().data, []
    for i in range(COUNT):
        to = torch.arange(3 + i % 4)
        edges = torch.stack([to, to.roll(1)])
        edges = torch.cat([edges, edges.flip(0), torch.tensor([[0], [2]])[:, : i % 2]], 1)
        x = torch.randn(len(to), 4, generator=generator, dtype=DOUBLE)
        found.append(data.Data(x=x, edge_index=edges))
    return found


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], Any]]] = {
    "fashion-cnn": (fashion_cnn, images(4)),
    "se-cnn-residual": (se_cnn_residual, images(4)),
    "wide-resnet": (wide_resnet, images(6)),
    "ecg-attention": (ecg_attention, series),
    "gcn": (gcn, graphs),
}


@dataclass(frozen=True)
class Subject:
    """A network, its data, and the arguments that one call on all of them takes."""

    model: nn.Module
    inputs: Any
    targets: Tensor
    arguments: tuple[Tensor, ...]

    def problem(self, *, sizes: tuple[int, ...] = (8, 5), **options: Any) -> Problem:
        """The loss on batches of these sizes; `strategy` and `product_batch` go to the plan."""
        strategy = options.pop("strategy", "kept-graph")
        product_batch = options.pop("product_batch", 6)
        batches, start = [], 0
        for size in sizes:
            batches.append(batch_of(self.inputs, self.targets, slice(start, start + size)))
            start += size
        problem = Problem(self.model, nn.CrossEntropyLoss(), batches, dtype=DOUBLE, **options)
        problem.plan = replace(problem.plan, product_strategy=strategy, product_batch=product_batch)
        return problem

    @property
    def theta(self) -> Tensor:
        return flatten({n: p.detach() for n, p in self.model.named_parameters()})

    def outputs(self, vector: Tensor) -> Tensor:
        """f(theta) of all samples in one call, (count, classes)."""
        shapes = {name: p.detach() for name, p in self.model.named_parameters()}
        return torch.func.functional_call(self.model, unflatten(vector, shapes), self.arguments)

    def loss(self, vector: Tensor) -> Tensor:
        return F.cross_entropy(self.outputs(vector), self.targets)


def batch_of(inputs: Any, targets: Tensor, part: slice) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[part], targets[part]
    batch = import_pyg().data.Batch.from_data_list(inputs[part])
    batch.y = targets[part]
    return batch


@cache
def subject(name: str, seed: int) -> Subject:
    """The network of a seed, in eval mode, its batch norms with the statistics of the data."""
    make, draw = FAMILIES[name]
    generator = torch.Generator().manual_seed(100 + seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make().double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)
    inputs = draw(generator)
    targets = torch.randint(CLASSES, (COUNT,), generator=generator)
    whole = batch_of(inputs, targets, slice(None))
    arguments = (
        whole[:1] if isinstance(inputs, Tensor) else (whole.x, whole.edge_index, whole.batch)
    )
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(3):
            model(*arguments)
    return Subject(model.eval(), inputs, targets, arguments)


def hessian_of(function: Callable[[Tensor], Tensor], subject: Subject) -> Tensor:
    """d^2 f / d theta^2 at the subject's weights, (n, n), fused attention written out.

    By forward- over reverse-mode, all columns at once, but where there is a layer norm: there that
    route misses terms (torch 2.15: the one column of `jvp`, finite differences and reverse- over
    reverse-mode agree with each other, and not with it).
    """
    normalised = any(isinstance(module, nn.LayerNorm) for module in subject.model.modules())
    route = torch.autograd.functional.hessian if normalised else _forward_over_reverse
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return route(function, subject.theta)


def _forward_over_reverse(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    return torch.func.hessian(function)(theta)


def jacobian_of(subject: Subject) -> Tensor:
    """d f / d theta, (count, classes, n), by reverse mode."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.jacobian(subject.outputs, subject.theta)
