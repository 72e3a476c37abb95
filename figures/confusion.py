"""Confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from isoloss.figures.style import COLORMAP, PAGE, SMALL, FigureError, new_figure, styled

_LARGEST_WITH_COUNTS = 30  # classes beyond which the counts could not be read


@styled
def confusion_figure(
    counts: np.ndarray, class_names: Sequence[str] | None = None, *, title: str = ""
) -> Figure:
    """Draw a confusion matrix: counts as text, the share of the true class as colour.

    Args:
        counts: (K, K) counts; `counts[i, j]` samples of class i were taken for class j.
        class_names: K names; None numbers the classes.
        title: Title at the upper left.

    Raises:
        FigureError: If the matrix is not square or the names do not fit.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise FigureError(f"expected a square matrix (K, K) of counts, got shape {counts.shape}")
    size = len(counts)
    names = [str(k) for k in range(size)] if class_names is None else list(class_names)
    if len(names) != size:
        raise FigureError(f"expected {size} class names for a {counts.shape} matrix, got {names}")
    # A class without samples has no shares; zero leaves its row in the lowest colour.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    widest = max(map(len, names)) * 0.06
    side = float(np.clip(0.3 * size, 1.6, PAGE - 1.3 - widest))
    figure = new_figure(side + 1.2 + widest, side + 0.7 + widest)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=COLORMAP, vmin=0.0, vmax=1.0, interpolation="nearest")
    colormap = matplotlib.colormaps[COLORMAP]
    fitting = 72 * side / size / (0.62 * max(2, len(str(int(counts.max())))))
    for i, j in np.ndindex(counts.shape) if size <= _LARGEST_WITH_COUNTS else ():
        red, green, blue, _ = colormap(float(shares[i, j]))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45  # Rec. 709 luma
        axes.text(
            j, i, f"{counts[i, j]:d}", ha="center", va="center",
            fontsize=min(SMALL, 0.85 * fitting), color="white" if dark else "black",
        )  # fmt: skip
    rotation = 90 if max(map(len, names)) > 3 else 0
    axes.set_xticks(range(size), names, rotation=rotation)
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, loc="left")
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("share of the true class")
    return figure
