"""Paths of trainings on the plane of a surface, as its file keeps them.

`trajectories/<run>/` of a surface file: `epoch`, `x`, `y` (in units of the directions, as the
surface's axes), `loss`, `plane_loss`, `distance`, `from_origin`, each (points,), and the attribute
`about`, JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import h5py
import numpy as np

from isoloss.records.files import FileError
from isoloss.records.hdf5 import StoredGroup

GROUP = "trajectories"


@dataclass(frozen=True)
class Trajectory:
    """The path of a training, projected on the plane of a surface around theta0.

    Attributes:
        epoch: Epochs trained at each point, (points,), whole numbers; 0 is the untrained network.
        x: Coordinates of the projections along the first direction, (points,).
        y: The same along the second.
        loss: At the points themselves, each with the buffers (batch-norm statistics) it came with.
        plane_loss: At their projections: what the surface has there.
        distance: Euclidean distance of each point from the plane, over the parameters that move.
        from_origin: The same from theta0.
        about: Whose path it is, JSON-able: `label`, `optimizer`, `split` (of the losses) and
            `checkpoints`, their SHA-256.
    """

    epoch: np.ndarray
    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    plane_loss: np.ndarray
    distance: np.ndarray
    from_origin: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def relative_distance(self) -> np.ndarray:
        """Distance from the plane over that from theta0, 0 to 1, (points,); 0 at theta0 itself."""
        away = self.from_origin > 0
        return np.divide(self.distance, self.from_origin, out=np.zeros_like(self.x), where=away)


COLUMNS = tuple(one.name for one in fields(Trajectory) if one.name != "about")


def write_trajectories(file: h5py.File, trajectories: Mapping[str, Trajectory]) -> None:
    """Write paths into a surface file that has none, and keep their order."""
    if not trajectories:
        return
    every = file.create_group(GROUP, track_order=True)
    for name, trajectory in trajectories.items():
        group = every.create_group(name)
        group.attrs["about"] = json.dumps(trajectory.about, sort_keys=True)
        for column in COLUMNS:
            group[column] = getattr(trajectory, column)


def read_trajectories(file: StoredGroup) -> dict[str, Trajectory]:
    """Return the paths in a surface file, by the names of their runs, in order; empty for none.

    Raises:
        FileError: If one is damaged.
    """
    if GROUP not in file:
        return {}
    every = file.group(GROUP)
    return {name: _read(every.group(name), name) for name in every.names()}


def _read(group: StoredGroup, name: str) -> Trajectory:
    epoch = group.array("epoch", (None,))
    columns = {column: group.array(column, epoch.shape).astype(float) for column in COLUMNS}
    placed = [columns[column] for column in ("epoch", "x", "y")]
    if not len(epoch) or not all(np.isfinite(column).all() for column in placed):
        raise FileError(
            f"expected finite epochs and coordinates of the path of {name} in {group.path}, got "
            f"{'others' if len(epoch) else 'none'}\n"
            "the file is damaged: delete it and run the command again"
        )
    about = group.json("about", {"label": (str,), "checkpoints": (list,)})
    columns["epoch"] = columns["epoch"].astype(np.int64)
    return Trajectory(**columns, about=about)
