"""A trajectory's coordinates on a plane, as the loss-landscape code keeps them.

`proj_xcoord`, `proj_ycoord` (n,), one entry a checkpoint. In a file `.._proj_cos.h5` they are
lengths, <theta_i - theta_0, d> / |d|, while the axes of its surfaces count multiples of d itself:
drawn as they are, the path is too long by |d|, and wrong where the directions are not orthogonal.
In a file `.._proj_lstsq.h5` they are multiples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5


@dataclass(frozen=True)
class Projection:
    """Coordinates of checkpoints as a file has them.

    Attributes:
        x: Along the first direction, (n,).
        y: Along the second, (n,).
    """

    x: np.ndarray
    y: np.ndarray

    def on_plane(
        self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lengths along two directions as multiples of them, on the axes of a surface.

        The multiples a, b of the point of the plane nearest to theta_i solve
        [<x, x>, <x, y>; <x, y>, <y, y>] (a, b) = (p_x |x|, p_y |y|).

        Args:
            first: Arrays of the first direction (`read_direction`).
            second: Of the second.

        Raises:
            FileError: If the directions span no plane.
        """
        x, y = (_vector(direction) for direction in (first, second))
        if x.shape != y.shape:
            raise FileError(
                f"expected directions of one network, got {x.size} and {y.size} numbers"
            )
        gram = np.array([[x @ x, x @ y], [x @ y, y @ y]])
        if not np.linalg.det(gram) > 1e-12 * gram[0, 0] * gram[1, 1]:
            raise FileError("expected two directions that span a plane, got parallel ones or zero")
        a, b = np.linalg.solve(gram, np.stack([self.x, self.y]) * np.sqrt(np.diag(gram))[:, None])
        return a, b


def _vector(direction: Sequence[np.ndarray]) -> np.ndarray:
    """Return a direction as that code projects on it: without entries that have no dimension."""
    arrays = [np.ravel(array).astype(np.float64) for array in direction if np.ndim(array)]
    return np.concatenate([np.empty(0), *arrays])


def read_projection(path: Path | str) -> Projection:
    """Read a projection file.

    Raises:
        FileError: If the file is missing, damaged, or holds no coordinates.
    """
    with open_hdf5(Path(path)) as file:
        if "proj_xcoord" not in file:
            found = ", ".join(sorted(file.names())[:8]) or "nothing in it"
            raise FileError(f"expected `proj_xcoord` in {path}, got a file with {found}")
        x = file.array("proj_xcoord", (None,))
        return Projection(x, file.array("proj_ycoord", x.shape))
