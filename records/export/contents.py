"""What there is to export: a stored result of any kind, with what its file holds beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isoloss.records.density_pair import NODES, WEIGHTS, read_density_pair
from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5
from isoloss.records.ll.directions import AXES, direction_in
from isoloss.records.ll.kinds import SURFACE, described, kind_in
from isoloss.records.over_training import KIND, OverTrainingData, read_over_training
from isoloss.records.spectra import SpectrumData, read_spectrum
from isoloss.records.stored_group import StoredGroup
from isoloss.records.surface_data import SurfaceData
from isoloss.records.surface_reading import surface_in


@dataclass(frozen=True)
class StoredSurface:
    """A surface and its directions.

    Attributes:
        path: Its file.
        data: The surface.
        directions: By axis, an array for each parameter; empty where the file keeps none.
        ours: Whether Isoloss wrote the file.
    """

    path: Path
    data: SurfaceData
    directions: Mapping[str, Sequence[np.ndarray]]
    ours: bool


Content = StoredSurface | SpectrumData | OverTrainingData


def read_content(path: Path) -> Content:
    """Read a surface, ours or of the loss-landscape code, a curvature, or a density's pair.

    Raises:
        FileError: If it is none of them, or damaged.
    """
    if path.suffix == ".npy":
        return read_density_pair(path)
    with open_hdf5(path) as file:
        kind = kind_in(file)
        if kind in ("surface", SURFACE):
            directions = _directions(file) if kind == "surface" else {}
            return StoredSurface(path, surface_in(file), directions, file.ours)
    if kind == "hessian":
        return read_spectrum(path)
    if kind == KIND:
        return read_over_training(path)
    raise FileError(f"expected a surface or a spectrum, got {described(path)}")


def _directions(file: StoredGroup) -> dict[str, list[np.ndarray]]:
    there = [axis for axis in AXES if f"{axis}direction" in file]
    stored = [axis for axis in there if file.group(f"{axis}direction").names()]
    return {axis: direction_in(file, axis) for axis in stored} if stored == there else {}


def stem_of(path: Path) -> str:
    """Return what names of exports begin with; dots in a name are a part of it."""
    for suffix in (NODES, WEIGHTS, ".h5"):
        if path.name.endswith(suffix) and path.name != suffix:
            return path.name.removesuffix(suffix)
    return path.name
