"""Surfaces for ParaView: VTK's XML polygon data (`.vtp`), quadrilaterals or, of a line, lines.

The point (ix, iy) has the number iy nx + ix and lies at (x, y, z), z the loss; all columns are
arrays over the points, in base64, which keeps every bit. A cell has finished and finite corners
only, so that a hole is a hole.
https://docs.vtk.org/en/latest/vtk_file_formats/vtkxml_file_format.html
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from xml.sax.saxutils import quoteattr

import numpy as np

from isoloss.records.surface_data import SurfaceData

HEIGHT = "zvalue"  # what the loss-landscape code's export calls the array of heights
_HEIGHTS = ("train_loss", "test_loss", "val_loss")
_TYPES = {"f8": "Float64", "i8": "Int64", "u1": "UInt8"}


def height_column(data: SurfaceData) -> str:
    """Return the column that is drawn as height: the loss of training, else of another split."""
    return next((name for name in _HEIGHTS if name in data.values), next(iter(data.values)))


def notes(data: SurfaceData) -> list[str]:
    """Return what is the height, and how many points are in no cell for want of one."""
    name = height_column(data)
    median = data.directions_done > 1
    planes = f"median of {data.directions_done} planes of " if median else ""
    found = [f"height (`{HEIGHT}`) is the {planes}{name}"]
    if missing := int((~_sound(data)).sum()):
        found.append(f"{missing} of {data.done.size} points are pending or not finite: holes")
    return found


def _sound(data: SurfaceData) -> np.ndarray:
    return data.median_done & np.isfinite(data.median(height_column(data)))


def point_arrays(data: SurfaceData) -> dict[str, np.ndarray]:
    """Return the arrays over points, (ny, nx) or (nx,).

    The columns, of several directions those of the first, and then also `<column>_median`,
    `<column>_low` and `<column>_high`; `zvalue`; and `done`.
    """
    arrays = {HEIGHT: data.median(height_column(data)), **data.values}
    if data.directions_done > 1:
        for name in data.values:
            low, high = data.band(name)
            arrays |= {
                f"{name}_median": data.median(name), f"{name}_low": low, f"{name}_high": high
            }  # fmt: skip
    done = data.done.astype(np.uint8)
    return {name: array.astype(np.float64) for name, array in arrays.items()} | {"done": done}


def surface_vtp(data: SurfaceData) -> bytes:
    """Return a surface or curve as the content of a `.vtp` file."""
    x, y = (data.x, np.zeros(1)) if data.y is None else (data.x, data.y)
    xs, ys = np.meshgrid(x, y)
    height, sound = data.median(height_column(data)).astype(np.float64), _sound(data)
    # A place for points without a height, in no cell: within the bounds of the others.
    floor = height[sound].min() if sound.any() else 0.0
    points = np.stack([xs.ravel(), ys.ravel(), np.where(sound, height, floor).ravel()], axis=1)
    thin = data.y is None or 1 in sound.shape
    lines, polys = (_lines(sound.ravel()), []) if thin else ([], list(_quads(sound)))
    arrays = "".join(_array(name, array.ravel()) for name, array in point_arrays(data).items())
    return (
        '<?xml version="1.0"?>\n'
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n'
        f'<PolyData>\n<Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" '
        f'NumberOfLines="{len(lines)}" NumberOfStrips="0" NumberOfPolys="{len(polys)}">\n'
        f"<PointData Scalars={quoteattr(HEIGHT)}>\n{arrays}</PointData>\n"
        f"<Points>\n{_array('Points', points)}</Points>\n"
        f"<Lines>\n{_cells(lines)}</Lines>\n<Polys>\n{_cells(polys)}</Polys>\n"
        "</Piece>\n</PolyData>\n</VTKFile>\n"
    ).encode()


def _quads(sound: np.ndarray) -> np.ndarray:
    """Return the corners of cells, (cells, 4) numbers of points, anticlockwise."""
    numbers = np.arange(sound.size).reshape(sound.shape)
    corners = [np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, 1:], np.s_[1:, :-1]]
    whole = np.all([sound[corner] for corner in corners], axis=0)
    return np.stack([numbers[corner][whole] for corner in corners], axis=1)


def _lines(sound: np.ndarray) -> list[np.ndarray]:
    """Return the runs of two or more finished points next to each other."""
    numbers = np.flatnonzero(sound)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [run for run in runs if len(run) > 1]


def _cells(cells: Iterable[np.ndarray]) -> str:
    cells = list(cells)
    points = np.concatenate([np.empty(0), *cells]).astype(np.int64)
    offsets = np.cumsum([len(cell) for cell in cells], dtype=np.int64)
    return _array("connectivity", points) + _array("offsets", offsets)


def _array(name: str, values: np.ndarray) -> str:
    """Return an array, (n,) or (n, components), in base64 after its size in bytes."""
    values = values.astype(values.dtype.newbyteorder("<"))
    content = values.tobytes()
    coded = base64.b64encode(np.array(len(content), "<u8").tobytes() + content).decode()
    shown = name if name.isprintable() else ascii(name)
    components = values.shape[1] if values.ndim == 2 else 1
    return (
        f'<DataArray type="{_TYPES[values.dtype.str[1:]]}" Name={quoteattr(shown)} '
        f'NumberOfComponents="{components}" format="binary">{coded}</DataArray>\n'
    )
