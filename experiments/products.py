"""What measurements of curvature share: the plan of a file that was begun, the cost of products."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from isoloss.experiments.reporting import Reporter
from isoloss.hessian.operators.of_problem import ProblemOperator
from isoloss.landscape import Plan
from isoloss.records.hdf5 import open_hdf5

_REPEATS = 3


def stored_plan(path: Path | None, kind: str, *, fresh: bool = False) -> Plan | None:
    """Return the plan of a measurement that was begun; None where there is none to go on with.

    Args:
        path: Its file.
        kind: What the file holds, as `records.hdf5.open_hdf5` takes it.
        fresh: Whether to start over.

    Raises:
        FileError: If it is none of ours.
    """
    if path is None or fresh or not path.exists():
        return None
    with open_hdf5(path, kind) as file:
        stored = file.json("settings").get("plan")
    return None if stored is None else Plan.from_json(stored)


def seconds_of_product(operator: ProblemOperator[Any]) -> float:
    """Return how long a product takes, a mean over a few after one that builds the graphs."""
    with operator:
        vector = torch.ones(operator.size, dtype=operator.dtype, device=operator.device)
        operator.matvec(vector)
        began = time.perf_counter()
        for _ in range(_REPEATS):
            operator.matvec(vector)
        return (time.perf_counter() - began) / _REPEATS


def warn_of_changed_plan(reporter: Reporter, plan: Plan, stored: dict[str, Any]) -> None:
    """Warn where the plan that was left is not the one that a file was begun with."""
    if plan.to_json() != stored:
        how = "" if plan.product_strategy == "kept-graph" else " and without kept graphs"
        reporter.warn(f"memory ran out: went on with {plan.product_batch} samples at a time{how}")
