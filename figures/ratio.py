"""The ratio of the extreme eigenvalues, made of the two that a surface holds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from isoloss.records.surface_data import SurfaceData

RATIO = "eig_ratio"
"""Its name among the columns of a surface that is drawn; no file holds it."""


def with_ratio(data: SurfaceData) -> SurfaceData:
    """Add |min_eig / max_eig| where both are there, which Li et al. 2018 map over a plane.

    Near 0 the loss is near to convex there; at 1 it falls as steeply one way as it rises another.
    Both eigenvalues are of the same Hessian, so that no scale of the loss takes part.
    """
    if not {"min_eig", "max_eig"} <= data.values.keys() or RATIO in data.values:
        return data

    def added(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {**values, RATIO: np.abs(values["min_eig"] / values["max_eig"])}

    origin = {name: np.asarray(value) for name, value in data.origin.items()}
    if {"min_eig", "max_eig"} <= origin.keys():
        origin = added(origin)
    repeats = data.repeats
    if repeats is not None:
        repeats = dataclasses.replace(repeats, values=added(repeats.values))
    return dataclasses.replace(
        data,
        values=added(data.values),
        origin={name: float(value) for name, value in origin.items()},
        repeats=repeats,
    )
