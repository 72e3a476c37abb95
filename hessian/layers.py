"""The blocks of a matrix that belong to single layers of the network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from isoloss.hessian.asked import Stages, pair_limits, trace_method
from isoloss.hessian.eigenpairs import top_eigenpairs
from isoloss.hessian.frobenius import frobenius_norm
from isoloss.hessian.operators.of_problem import ProblemOperator
from isoloss.hessian.stored import stored_layer
from isoloss.hessian.trace import trace
from isoloss.records.layers import LayerData
from isoloss.records.progress import Progress

# The layer of parameters that belong to the network itself, not to a module in it.
OWN = "(network)"


def layer_parameters(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the parameters of each layer by its name, both in the order given.

    A layer is a module with parameters of its own: its weight and its bias, as a rule.

    Example:
        >>> layer_parameters(["0.weight", "0.bias", "2.weight", "scale"])
        {'0': ['0.weight', '0.bias'], '2': ['2.weight'], '(network)': ['scale']}
    """
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.rpartition(".")[0] or OWN, []).append(name)
    return layers


def measure_layer(
    operator: ProblemOperator[Any], wanted: Stages, progress: Progress | None = None
) -> LayerData:
    """Return largest eigenvalue, trace and Frobenius norm of one layer's block.

    Args:
        operator: Restricted to the layer's parameters.
        wanted: `tol`, `max_products`, `trace_error`, `trace_budget`, `basis` and `seed`, as for the
            whole.
        progress: Called with the products of each of the three in turn.
    """
    pairs = top_eigenpairs(
        operator,
        1,
        tol=wanted.tol,
        max_products=wanted.max_products,
        seed=wanted.seed,
        progress=progress,
        **pair_limits(wanted, 1),
    )
    spent: dict[str, Any] = {
        "relative_error": wanted.trace_error,
        "budget": wanted.trace_budget,
        "seed": wanted.seed,
        "progress": progress,
    }
    budget = wanted.trace_budget
    estimate = trace(operator, method=trace_method(wanted, budget), **spent)
    # A product of its squared matrix is two.
    norm = frobenius_norm(operator, method=trace_method(wanted, budget // 2), **spent)
    return stored_layer(pairs, estimate, norm, operator.shapes)
