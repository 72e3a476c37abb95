"""PyHessian's release 0.1 itself (Yao et al. 2020).

Its density asks for `torch.eig`, which torch has removed: the function below stands in for it, of
its symmetric matrix. A single batch is given as `data`, of which PyHessian keeps the gradient's
graph, several as a data loader, as its documentation does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hessian.subject import COUNT, LANCZOS_STEPS, TOLERANCE, Product, Settings


def _eig(matrix: Tensor, eigenvectors: bool = False) -> tuple[Tensor, Tensor]:
    """Return eigenvalues as rows (real, imaginary part) and eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], 1), vectors


def products(settings: Settings) -> dict[str, Product]:
    """Return the product with the Hessian, the only kind there is."""
    whole = _hessian(settings)
    shapes = [p.shape for p in whole.params]

    def product(v: Tensor) -> Tensor:
        sizes = [shape.numel() for shape in shapes]
        parts = [part.view(shape) for part, shape in zip(v.split(sizes), shapes, strict=True)]
        if whole.full_dataset:
            _, found = whole.dataloader_hv_product(parts)
        else:
            own = sys.modules["pyhessian.hessian"].hessian_vector_product
            found = own(whole.gradsH, whole.params, parts)
        return torch.cat([part.reshape(-1) for part in found])

    return {"hessian": product}


def eigenvalues(settings: Settings) -> tuple[list[float], int]:
    """Return five eigenvalues by its power iteration, and the products that they took."""
    torch.manual_seed(0)
    whole = _hessian(settings)
    spent = _count(whole)
    values, _ = whole.eigenvalues(top_n=COUNT, tol=TOLERANCE)
    return values, spent()


def density(settings: Settings) -> tuple[list[float], int]:
    """Return the largest node of one probe's quadrature, and its products."""
    torch.eig = _eig
    torch.manual_seed(0)
    whole = _hessian(settings)
    spent = _count(whole)
    (nodes,), _ = whole.density(iter=LANCZOS_STEPS, n_v=1)
    return [float(max(nodes))], spent()


def _hessian(settings: Settings) -> Any:
    import pyhessian

    batches = settings.batches
    data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    return pyhessian.hessian(settings.network(), nn.CrossEntropyLoss(), cuda=False, **data)


def _count(whole: Any) -> Callable[[], int]:
    """Count the products of both kinds from now on."""
    module, spent = sys.modules["pyhessian.hessian"], [0]

    def counted(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            spent[0] += 1
            return function(*arguments)

        return call

    if not hasattr(module, "original"):
        module.original = module.hessian_vector_product
    module.hessian_vector_product = counted(module.original)
    whole.dataloader_hv_product = counted(whole.dataloader_hv_product)
    return lambda: spent[0]
