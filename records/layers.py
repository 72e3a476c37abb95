"""What is stored of single layers' blocks of a matrix."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py

from isoloss.records.stored_group import StoredGroup

_NUMBERS = (
    "eigenvalue", "residual", "trace", "trace_standard_error", "frobenius_norm",
    "frobenius_standard_error",
)  # fmt: skip


@dataclass(frozen=True)
class LayerData:
    """Numbers of one layer's block: the second derivatives by its parameters alone.

    Attributes:
        parameters: Size of the block.
        eigenvalue: Its largest eigenvalue.
        residual: Of that.
        trace: Its trace; those of all layers add up to the whole's.
        trace_standard_error: Over random probes.
        frobenius_norm: Its Frobenius norm.
        frobenius_standard_error: Over random probes.
        account: How they were computed, `eigenvalue`, `trace` and `frobenius_norm` apart, and the
            `names` of the parameters.
    """

    parameters: int
    eigenvalue: float
    residual: float
    trace: float
    trace_standard_error: float
    frobenius_norm: float
    frobenius_standard_error: float
    account: dict[str, Any]

    @property
    def not_converged(self) -> list[str]:
        """Names of the numbers that did not reach what was asked of them."""
        names = ("eigenvalue", "trace", "frobenius_norm")
        return [name for name in names if not self.account[name]["converged"]]


def share_of_trace(layers: Mapping[str, LayerData], name: str) -> tuple[float, float]:
    """Return a layer's share of the sum of all layers' traces, and its standard error.

    To first order in the errors of all traces, which are of different probes: with s = t / T,
    var s = ((1 - s)^2 var t + s^2 var(T - t)) / T^2. NaN where the sum is 0.
    """
    total = math.fsum(layer.trace for layer in layers.values())
    if not total or not math.isfinite(total):
        return math.nan, math.nan
    share = layers[name].trace / total
    own = layers[name].trace_standard_error
    others = math.hypot(*(x.trace_standard_error for n, x in layers.items() if n != name))
    return share, math.hypot((1 - share) * own, share * others) / abs(total)


def layer_rows(layers: Mapping[str, LayerData]) -> list[dict[str, Any]]:
    """Return the numbers of each layer with its share of the trace, a row each."""
    rows = []
    for name, layer in layers.items():
        share, error = share_of_trace(layers, name)
        numbers = {key: getattr(layer, key) for key in ("parameters", *_NUMBERS)}
        rows.append({"layer": name, **numbers, "share": share, "share_standard_error": error})
    return rows


def write_layers(group: h5py.Group, layers: Mapping[str, LayerData]) -> None:
    """Write layers below `layers` of a group, in their order."""
    if not layers:
        return
    place = group.create_group("layers", track_order=True)
    for name, layer in layers.items():
        own = place.create_group(name)
        own.attrs["account"] = json.dumps(layer.account)
        for key in ("parameters", *_NUMBERS):
            own.create_dataset(key, data=getattr(layer, key))


def read_layers(group: StoredGroup) -> dict[str, LayerData]:
    """Read the layers of a group; none where it has none."""
    if "layers" not in group:
        return {}
    place = group.group("layers")
    return {name: _layer(place.group(name)) for name in place.names()}


def _layer(group: StoredGroup) -> LayerData:
    known = {"eigenvalue": (dict,), "trace": (dict,), "frobenius_norm": (dict,)}
    numbers = {key: group.number(key) for key in _NUMBERS}
    account = group.json("account", known)
    return LayerData(parameters=group.count("parameters"), **numbers, account=account)
