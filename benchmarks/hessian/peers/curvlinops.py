"""curvlinops (f-dangel/curvlinops), on the same batches, without its probes of determinism."""

from __future__ import annotations

from typing import Any

from torch import nn

from benchmarks.hessian.subject import COUNT, TOLERANCE, Product, Settings


def products(settings: Settings) -> dict[str, Product]:
    """Return products by kind."""
    from curvlinops import EFLinearOperator, GGNLinearOperator, HessianLinearOperator

    kinds = {
        "hessian": HessianLinearOperator,
        "ggn": GGNLinearOperator,
        "empirical-fisher": EFLinearOperator,
    }
    return {kind: _operator(make, settings).__matmul__ for kind, make in kinds.items()}


def eigenvalues(settings: Settings) -> tuple[list[float], int]:
    """Return five eigenvalues by SciPy's `eigsh`, as its documentation does, and the products."""
    import numpy as np
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import LinearOperator, eigsh

    whole, spent = _operator(HessianLinearOperator, settings).to_scipy(), [0]

    def product(v: np.ndarray) -> np.ndarray:
        spent[0] += 1
        found: np.ndarray = whole @ v
        return found

    counted = LinearOperator(whole.shape, matvec=product, dtype=whole.dtype)
    start = np.random.default_rng(0).standard_normal(whole.shape[0]).astype(whole.dtype)
    values = eigsh(counted, COUNT, which="LA", tol=TOLERANCE, v0=start, return_eigenvectors=False)
    return values.tolist(), spent[0]


def _operator(make: Any, settings: Settings) -> Any:
    model = settings.network()
    return make(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        settings.batches,
        check_deterministic=False,
    )
