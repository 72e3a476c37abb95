"""The surface of loss-landscape from start to figures: FOLDER SIDE IMAGES THREADS.

As its `plot_surface.py` and `plot_2D.py`: the file is opened and written anew at each point; then
contours and a surface are drawn and saved as PDF. Prints the seconds spent on the points.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import torch

from benchmarks.surface.peers.loss_landscape import as_run
from benchmarks.surface.subject import Plane


def main(folder: Path, side: int, images: int, threads: int) -> None:
    """Evaluate and draw."""
    torch.set_num_threads(threads)
    loss = as_run(Plane(images=images, threads=threads))
    axis, path = np.linspace(-1, 1, side), folder / "surface.h5"
    losses = -np.ones((side, side))
    with h5py.File(path, "w") as file:
        file["xcoordinates"], file["ycoordinates"] = axis, axis
        file["train_loss"] = losses
    began = time.perf_counter()
    for index in range(side * side):
        j, i = divmod(index, side)
        losses[j, i] = loss(axis[i], axis[j])
        with h5py.File(path, "r+") as file:
            file["train_loss"][:] = losses
    spent = time.perf_counter() - began
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for kind in ("contour", "contourf"):
        figure, axes = plt.subplots()
        getattr(axes, kind)(axis, axis, losses, levels=20)
        figure.savefig(folder / f"{kind}.pdf")
    figure = plt.figure()
    surface = figure.add_subplot(projection="3d")
    surface.plot_surface(*np.meshgrid(axis, axis), losses, cmap="coolwarm")
    figure.savefig(folder / "3d.pdf")
    print(spent)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
