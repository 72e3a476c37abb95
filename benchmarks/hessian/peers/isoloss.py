"""Isoloss as it is: graphs are kept where they fit into memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from benchmarks.hessian.subject import COUNT, LANCZOS_STEPS, TOLERANCE, Product, Settings
from isoloss.hessian import (
    EmpiricalFisherOperator,
    GGNOperator,
    HessianOperator,
    spectral_density,
    top_eigenpairs,
)
from isoloss.landscape import Problem

OPERATORS = {
    "hessian": HessianOperator,
    "ggn": GGNOperator,
    "empirical-fisher": EmpiricalFisherOperator,
}


def problem_of(
    settings: Settings, strategy: str | None = None, dtype: torch.dtype = torch.float32
) -> Problem:
    """Return the loss, its products by a strategy that is not the plan's own where one is given."""
    problem = Problem(settings.network(), nn.CrossEntropyLoss(), [settings.data], dtype=dtype)
    if strategy is not None:
        problem.plan = replace(problem.plan, product_strategy=strategy)
    return problem


def products(settings: Settings, strategy: str | None = None) -> dict[str, Product]:
    """Return products by kind."""
    problem = problem_of(settings, strategy)
    return {kind: make(problem).matvec for kind, make in OPERATORS.items()}


def eigenvalues(settings: Settings, strategy: str | None = None) -> tuple[list[float], int]:
    """Return the five largest eigenvalues as `top_eigenpairs` finds them, and its products."""
    with HessianOperator(problem_of(settings, strategy)) as operator:
        pairs = top_eigenpairs(operator, COUNT, tol=TOLERANCE)
    return pairs.eigenvalues.tolist(), pairs.products


def density(settings: Settings, strategy: str | None = None) -> tuple[list[float], int]:
    """Return the largest node of one probe's quadrature, and its products."""
    with HessianOperator(problem_of(settings, strategy)) as operator:
        found = spectral_density(operator, probes=1, steps=LANCZOS_STEPS)
    return [float(found.nodes.max())], found.products


def exact_eigenvalues(settings: Settings, count: int = COUNT) -> list[float]:
    """Return the largest eigenvalues of float64 products, to a tolerance of 1e-8."""
    with HessianOperator(problem_of(settings, dtype=torch.float64)) as operator:
        found: list[float] = top_eigenpairs(operator, count, tol=1e-8).eigenvalues.tolist()
    return found
