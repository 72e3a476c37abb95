"""Normalisations of a direction against the weights it is drawn around.

Filters are the slices of a tensor along dimension 0 (Li et al. 2018, section 4: the direction's
filter gets the norm of the weights' filter). That makes a filter of

- a convolution: the weights of one output channel;
- a Linear or graph convolution: the weights of one output unit (a row);
- an Embedding: one entry's vector;
- a fused attention projection (3E, E): the row of one query, key or value unit.

A tensor with at most one dimension (bias, batch-norm scale) counts as a single filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from isoloss.errors import UsageError

Tensors = dict[str, Tensor]
IGNORE = ("biasbn", "none")


class NormalisationError(UsageError, ValueError):
    """An unknown normalisation or ignore rule, or a direction that it makes zero."""


def _rows(tensor: Tensor) -> Tensor:
    """Return the filters of a tensor as rows, shape (filters, entries)."""
    return tensor.reshape(1, -1) if tensor.ndim <= 1 else tensor.flatten(1)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Divide, giving 0 where b is 0: a filter without a direction keeps none."""
    return torch.where(b > 0, a / b, torch.zeros_like(a))


def _by_filter(d: Tensor, w: Tensor) -> Tensor:
    rows = _rows(d)
    scale = _divide(_rows(w).norm(dim=1, keepdim=True), rows.norm(dim=1, keepdim=True))
    return (rows * scale).view_as(d)


def _by_layer(d: Tensor, w: Tensor) -> Tensor:
    return d * _divide(w.norm(), d.norm())


def _by_weight(d: Tensor, w: Tensor) -> Tensor:
    return d * w.abs()


def _unit_filters(d: Tensor, w: Tensor) -> Tensor:
    rows = _rows(d)
    norms = rows.norm(dim=1, keepdim=True)
    return (rows * _divide(torch.ones_like(norms), norms)).view_as(d)


def _unit_layers(d: Tensor, w: Tensor) -> Tensor:
    return d * _divide(torch.ones_like(d.norm()), d.norm())


def _unchanged(d: Tensor, w: Tensor) -> Tensor:
    return d


TENSOR_RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "filter": _by_filter,  # ||d_f|| = ||w_f|| for each filter
    "layer": _by_layer,  # ||d_l|| = ||w_l|| for each tensor
    "weight": _by_weight,  # d * |w| entry by entry
    "dfilter": _unit_filters,  # ||d_f|| = 1
    "dlayer": _unit_layers,  # ||d_l|| = 1
    "none": _unchanged,
}
NORMALISATIONS = (*TENSOR_RULES, "model")  # model: ||d|| = ||w|| over all tensors together


def check_rules(normalisation: str, ignore: str) -> None:
    """Raise `NormalisationError` for a rule that is not known."""
    for what, value, valid in (
        ("normalisation", normalisation, NORMALISATIONS),
        ("ignore rule", ignore, IGNORE),
    ):
        if value not in valid:
            raise NormalisationError(f"expected a {what} among {', '.join(valid)}, got {value!r}")


def normalise(
    direction: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    normalisation: str = "filter",
    ignore: str = "biasbn",
) -> Tensors:
    """Scale a direction against the weights; ignored entries are set to zero first.

    Args:
        direction: Tensors by name.
        weights: Tensors of the same names and shapes.
        normalisation: One of `NORMALISATIONS`.
        ignore: `"biasbn"` zeroes tensors with at most one dimension, `"none"` keeps all.

    Returns:
        A new direction.

    Raises:
        NormalisationError: For an unknown rule.
    """
    check_rules(normalisation, ignore)
    kept = {
        name: torch.zeros_like(d) if ignore == "biasbn" and d.ndim <= 1 else d
        for name, d in direction.items()
    }
    if normalisation == "model":
        squares = sum(d.square().sum() for d in kept.values())
        target = sum(weights[name].square().sum() for name in kept)
        scale = _divide(torch.as_tensor(target).sqrt(), torch.as_tensor(squares).sqrt())
        return {name: d * scale for name, d in kept.items()}
    rule = TENSOR_RULES[normalisation]
    return {name: rule(d, weights[name]) for name, d in kept.items()}
