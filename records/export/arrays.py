"""Results as NumPy archives; keys are the names that the arrays have in our HDF5 files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping

import numpy as np

from isoloss.records.export.contents import StoredSurface
from isoloss.records.npy import npy_bytes
from isoloss.records.over_training import OverTrainingData
from isoloss.records.spectra import SpectrumData


def of_surface(surface: StoredSurface) -> dict[str, np.ndarray]:
    """Return the arrays of a surface: (ny, nx), (nx,) of a curve, pending values NaN.

    Beside those of the file: `cosine` of the directions and, as JSON text, `settings`.
    """
    data = surface.data
    found: dict[str, np.ndarray] = {"xcoordinates": data.x}
    if data.y is not None:
        found["ycoordinates"] = data.y
    found |= {**data.values, "done": data.done}
    found |= {f"origin/{name}": np.array(value) for name, value in data.origin.items()}
    if data.cosine is not None:
        found["cosine"] = np.array(data.cosine)
    if data.repeats is not None:
        found |= {f"repeats/{name}": array for name, array in data.repeats.values.items()}
        found["repeats/done"] = data.repeats.done
        if data.repeats.cosines is not None:
            found["repeats/cosines"] = data.repeats.cosines
    for axis, tensors in surface.directions.items():
        found |= {f"{axis}direction/{index}": array for index, array in enumerate(tensors)}
    return found | _settings(data.settings)


def of_spectrum(data: SpectrumData) -> dict[str, np.ndarray]:
    """Return the arrays of a spectrum, and as JSON text `settings`."""
    found: dict[str, np.ndarray] = {}
    if (pairs := data.eigenpairs) is not None:
        found |= {name: array for name, array in vars(pairs).items() if _is_number(array)}
        for group in ("eigenvectors", "smallest_eigenvectors"):
            vectors = getattr(pairs, group)
            found |= {f"{group}/{name}": array for name, array in vectors.items()}
    for stage in ("trace", "scaled", "density", "classes"):
        stored = getattr(data, stage)
        if stored is not None:
            entries = {name: value for name, value in vars(stored).items() if _is_number(value)}
            found |= {f"{stage}/{name}": np.asarray(value) for name, value in entries.items()}
    return found | _settings(data.settings)


def of_training(data: OverTrainingData) -> dict[str, np.ndarray]:
    """Return the arrays of a curvature over a training, and as JSON text `settings`."""
    found = data.stored_columns()
    found |= {f"eigenvectors/{name}": array for name, array in data.eigenvectors.items()}
    if data.cold is not None:
        found |= {f"cold/{name}": np.asarray(value) for name, value in vars(data.cold).items()}
    return found | _settings(data.settings)


def _is_number(value: object) -> bool:
    return isinstance(value, np.ndarray | float | int)


def _settings(settings: Mapping[str, object]) -> dict[str, np.ndarray]:
    return {"settings": np.array(json.dumps(settings, sort_keys=True))} if settings else {}


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return an archive for `numpy.load`; the same arrays give the same bytes.

    Not by `numpy.savez`, where names of arrays are names of arguments.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # of 1980, the earliest date there is
            with archive.open(member, "w", force_zip64=True) as stream:
                stream.write(npy_bytes(np.asarray(array)))
    return file.getvalue()
