"""Isoloss with a fresh graph for each product, as the others make one."""

from __future__ import annotations

from benchmarks.hessian.peers import isoloss
from benchmarks.hessian.subject import Product, Settings


def products(settings: Settings) -> dict[str, Product]:
    """Return products by kind."""
    return isoloss.products(settings, "recompute")


def density(settings: Settings) -> tuple[list[float], int]:
    """Return the largest node of one probe's quadrature, and its products."""
    return isoloss.density(settings, "recompute")
