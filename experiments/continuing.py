"""Surfaces that the loss-landscape code began: its directions, and its finished points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from isoloss.experiments.direction_specs import absolute_direction
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import OptionError
from isoloss.experiments.settings import SurfaceSettings
from isoloss.landscape import Surface
from isoloss.records.ll import direction_file, finished_points
from isoloss.records.provenance import file_sha256

# Its losses are sums of float32 means of batches, by other kernels and another torch perhaps.
SAME_LOSS = 1e-3
COMPARED = 3


def with_its_directions(settings: SurfaceSettings, path: Path) -> SurfaceSettings:
    """Return the settings with the directions of the file that a surface file names beside it.

    Raises:
        OptionError: If there is none, and none is given.
    """
    names = ["xdir"] if settings.y is None else ["xdir", "ydir"]
    missing = [name for name in names if getattr(settings, name) == "random"]
    if not missing:
        return settings
    found = direction_file(path)
    if found is None:
        raise OptionError(
            missing[0],
            f"expected the direction file of {path} beside it, got none\n"
            "give it by its path, as file:PATH",
        )
    spec = absolute_direction(f"file:{found}")
    xdir, ydir = (spec if name in missing else getattr(settings, name) for name in ("xdir", "ydir"))
    return replace(settings, xdir=xdir, ydir=ydir)


def about(path: Path) -> dict[str, Any]:
    """Return what to store of the file that is continued."""
    return {"continued_from": {"file": path.name, "sha256": file_sha256(path)}}


def taken_over(surface: Surface, path: Path) -> dict[int, tuple[float, ...]]:
    """Return the finished points of a surface file by their numbers in a surface of ours.

    Some of them are evaluated and compared: the file says nothing of network, data and loss.

    Raises:
        FileError: If it is no such file, or has other axes or columns.
        ExperimentError: If its losses are others.
    """
    grid = surface.grid
    y = None if grid.y is None else grid.y.points
    found = finished_points(path, grid.x.points, y, surface.columns)
    for index in sorted(found)[:: max(1, len(found) // COMPARED)][:COMPARED]:
        at = grid.coordinates(index)
        stored, own = found[index][0], surface.evaluate_at(*at)[0]
        if abs(stored - own) > SAME_LOSS * max(abs(own), SAME_LOSS):
            place = ", ".join(f"{c:g}" for c in at)
            raise ExperimentError(
                f"expected {surface.columns[0]} {own:.6g} at ({place}), got {stored:.6g} in "
                f"{path}\nit is of another network, other data or another loss (`loss`, `samples` "
                "all, `split`), or in another order of directions"
            )
    return found
