"""Labels of contour lines, placed where there is room for them.

Matplotlib's own placement looks at one line at a time, so labels end up on each other, on the frame
or on the mark at the origin. Here each level gets one label, at the place on its lines furthest
from all of these, or none where every place is too close.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet

from isoloss.figures.formatting import number
from isoloss.figures.style import SMALL

_FONT = SMALL - 1.0
_ROOM = 11.0  # points between label centres, and from a label to what it must not cover
_MARGIN = 9.0  # points from a label's centre to the frame
_SHORTEST = 26.0  # points of line below which a label would hide it


def label_contours(axes: Axes, lines: QuadContourSet, avoid: np.ndarray) -> None:
    """Label contour lines in place, lowest level first.

    Args:
        axes: The axes of the lines, with their limits and aspect set.
        lines: The lines as `Axes.contour` returned them.
        avoid: Points (n, 2) in data coordinates that labels keep away from.
    """
    axes.apply_aspect()
    to_points = axes.transData
    unit = 72.0 / axes.figure.dpi
    frame = axes.bbox.get_points() * unit
    taken = list(to_points.transform(avoid) * unit)
    places: list[tuple[float, float]] = []
    for path in lines.get_paths():
        pieces = path.to_polygons(closed_only=False)
        resampled = [_resample(to_points.transform(piece) * unit) for piece in pieces]
        points = np.concatenate([np.empty((0, 2)), *resampled])
        if not len(points):
            continue
        border = np.minimum(points - frame[0], frame[1] - points).min(axis=1)
        apart = np.linalg.norm(points[:, None] - np.array(taken)[None], axis=2).min(axis=1)
        # Beyond three times the needed room more distance gains nothing; the border decides.
        score = np.minimum(apart / _ROOM, 3.0) + 0.2 * np.minimum(border / _MARGIN, 3.0)
        score[(apart < _ROOM) | (border < _MARGIN)] = -np.inf
        best = int(np.argmax(score))
        if np.isfinite(score[best]):
            taken.append(points[best])
            x, y = to_points.inverted().transform(points[best] / unit)
            places.append((float(x), float(y)))
    if places:
        axes.clabel(lines, fmt=number, fontsize=_FONT, inline=True, inline_spacing=2, manual=places)


def _resample(line: np.ndarray, step: float = 4.0) -> np.ndarray:
    """Return points every `step` points along a polyline (n, 2), or none where it is too short."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    if len(line) < 2 or lengths[-1] < _SHORTEST:
        return np.empty((0, 2))
    at = np.arange(step, lengths[-1] - step / 2, step)
    return np.column_stack([np.interp(at, lengths, line[:, k]) for k in (0, 1)])
