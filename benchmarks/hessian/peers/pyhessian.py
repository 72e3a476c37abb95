"""Products and power iteration with deflation as PyHessian (amirgholami/PyHessian) has them.

Written anew from its description (Yao et al. 2020, section III.A): a fresh gradient's graph for
each batch of each product; each eigenvector by power iteration from a random vector, made
orthogonal to those before it, at most 100 steps, until the Rayleigh quotient changes by less than
1e-3 of itself, which are its defaults. It finds the eigenvalues of largest magnitude.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.hessian.subject import Product, Settings

STEPS, TOLERANCE, COUNT = 100, 1e-3, 5


def products(settings: Settings) -> dict[str, Product]:
    """Return the product with the Hessian, the only kind there is."""
    model, batches = settings.network(), settings.batches
    parameters = list(model.parameters())
    total = sum(len(targets) for _, targets in batches)

    def product(v: Tensor) -> Tensor:
        parts = v.split([p.numel() for p in parameters])
        vectors = [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
        found = torch.zeros_like(v)
        for images, targets in batches:
            loss = F.cross_entropy(model(images), targets)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            moved = torch.autograd.grad(gradients, parameters, vectors)
            found += torch.cat([part.reshape(-1) for part in moved]) * len(targets) / total
        return found

    return {"hessian": product}


def eigenvalues(settings: Settings) -> tuple[list[float], int]:
    """Return five eigenvalues and the products that they took."""
    product = products(settings)["hessian"]
    size = sum(p.numel() for p in settings.network().parameters())
    generator = torch.Generator().manual_seed(0)
    values: list[float] = []
    vectors: list[Tensor] = []
    spent = 0
    while len(values) < COUNT:
        v, value = torch.randn(size, generator=generator), None
        for _ in range(STEPS):
            v = _unit(v, vectors)
            moved = product(v)
            spent += 1
            before, value = value, float(moved @ v)
            v = _unit(moved, [])
            if before is not None and abs(value - before) / (abs(before) + 1e-6) < TOLERANCE:
                break
        values.append(value)
        vectors.append(v)
    return values, spent


def _unit(v: Tensor, others: list[Tensor]) -> Tensor:
    for other in others:
        v = v - (v @ other) * other
    return v / (v.norm() + 1e-6)
