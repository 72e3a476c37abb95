"""What is measured, in the process that is measured."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.large.network import Shape, decoder, next_token_loss, sequences
from isoloss.hessian import HessianOperator, top_eigenpairs
from isoloss.landscape import Grid, Problem, Surface

SMALL = Shape(layers=1, width=32, heads=2, vocabulary=64, context=64)


@dataclass(frozen=True)
class Settings:
    """The network, its data and what is asked for; see `Shape` for its sizes."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50257
    context: int = 1024
    sequences: int = 2
    length: int = 32
    batch_size: int = 2
    basis: int = 4
    tol: float = 1e-2
    max_products: int = 100
    grid: str = "-1:1:3"
    threads: int = 2

    @property
    def shape(self) -> Shape:
        """The network's."""
        return Shape(self.layers, self.width, self.heads, self.vocabulary, self.context)


def eigenvalue(problem: Problem, settings: Settings) -> dict[str, Any]:
    """Return the largest eigenvalue with its residual, products, and whether it converged."""
    with HessianOperator(problem) as operator:
        pairs = top_eigenpairs(
            operator,
            1,
            max_basis=settings.basis,
            confirm=0,
            tol=settings.tol,
            max_products=settings.max_products,
        )
    return {
        "eigenvalue": float(pairs.eigenvalues[0]),
        "residual": float(pairs.residuals[0] / pairs.eigenvalues[0].abs()),
        "converged": pairs.converged,
        "products": pairs.products,
    }


def surface(problem: Problem, settings: Settings) -> dict[str, Any]:
    """Return the range of the loss on a plane of two random directions, and its points."""
    data = Surface(problem, Grid.parse(settings.grid, settings.grid), seed=1).run()
    loss = data.values["train_loss"]
    return {"lowest": float(loss.min()), "highest": float(loss.max()), "points": loss.size}


MEASUREMENTS: dict[str, Callable[[Problem, Settings], dict[str, Any]]] = {
    "eigenvalue": eigenvalue,
    "surface": surface,
}


def measure(name: str, settings: Settings) -> dict[str, Any]:
    """Return what a measurement finds, with its seconds and memory."""
    torch.set_num_threads(settings.threads)
    _, _ = _measured(name, SMALL, settings)  # what libraries take once
    before = _largest()
    began = time.perf_counter()
    weights, found = _measured(name, settings.shape, settings)
    seconds = time.perf_counter() - began
    peak = (_largest() - before) / weights
    return {
        "measurement": name, "parameters": weights // 4, "weights_mb": weights / 1e6,
        "peak": peak, "above": peak - 1, "after": (_resident() - before) / weights,
        **found, "seconds": seconds,
    }  # fmt: skip


def _measured(name: str, shape: Shape, settings: Settings) -> tuple[int, dict[str, Any]]:
    network = decoder(shape)
    weights = sum(tensor.nbytes for tensor in network.parameters())
    data = sequences(shape, settings.sequences, settings.length)
    problem = Problem(network, next_token_loss, [data], metric=None, batch_size=settings.batch_size)
    return weights, MEASUREMENTS[name](problem, settings)


def _largest() -> int:
    """Return the largest resident size of this process so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
