"""curvlinops (f-dangel/curvlinops), on the same batches, without its probes of determinism."""

from __future__ import annotations

from torch import nn

from benchmarks.hessian.subject import Product, Settings


def products(settings: Settings) -> dict[str, Product]:
    """Return products by kind."""
    from curvlinops import EFLinearOperator, GGNLinearOperator, HessianLinearOperator

    model = settings.network()
    found = {}
    for kind, make in (
        ("hessian", HessianLinearOperator),
        ("ggn", GGNLinearOperator),
        ("empirical-fisher", EFLinearOperator),
    ):
        operator = make(
            model,
            nn.CrossEntropyLoss(),
            list(model.parameters()),
            settings.batches,
            check_deterministic=False,
        )
        found[kind] = operator.__matmul__
    return found
