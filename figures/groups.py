"""What stands for a group of runs in a figure: one surface, the median curve, one spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from isoloss.figures.density import has_density
from isoloss.figures.fields import Directions, Field, common_key, field, row_through_origin
from isoloss.figures.quantities import ComparisonGroup, ComparisonRow

if TYPE_CHECKING:
    from isoloss.records.spectra import SpectrumData
    from isoloss.records.surfaces import SurfaceData


def shared_key(surfaces: Sequence[SurfaceData | None]) -> str | None:
    """Return a quantity that all surfaces hold; None where they share none, or there is none."""
    held = [surface for surface in surfaces if surface is not None]
    return common_key(*held) if held else None


def curve_of(row: ComparisonRow) -> SurfaceData | None:
    """Return the 1-D surface of a row, its own or cut from the 2-D one."""
    if row.curve is not None:
        return row.curve
    return None if row.surface is None else row_through_origin(row.surface)


def group_surface(group: ComparisonGroup, key: str | None) -> Field | None:
    """Return a quantity of the group's first surface, its own loss where the key is None."""
    surface = next((row.surface for row in group.rows if row.surface is not None), None)
    return None if surface is None else field(surface, key)


def group_curve(group: ComparisonGroup, key: str | None) -> Field | None:
    """Return the group's curve: that of a single run, or the median over the runs that have one.

    The band of a median is what the runs span, over all the directions that each was measured
    along. Runs on another grid than the first are left out.
    """
    stored = [curve for row in group.rows if (curve := curve_of(row)) is not None]
    fields = [field(curve, key or shared_key(stored)) for curve in stored]
    if not fields:
        return None
    alike = [what for what in fields if np.array_equal(what.x, fields[0].x)]
    return alike[0] if len(alike) == 1 else _median(alike)


def with_median_eigenvalue(group: ComparisonGroup) -> SpectrumData | None:
    """Return the spectrum with a density whose largest eigenvalue is the (lower) median one."""
    held = [row.hessian for row in group.rows if has_density(row.hessian)]
    spectra = sorted((data for data in held if data is not None), key=_largest)
    return spectra[(len(spectra) - 1) // 2] if spectra else None


def _median(fields: Sequence[Field]) -> Field:
    """Return the median of several runs' curves, each of them a median over its directions."""
    each = np.stack([what.drawable for what in fields])
    low = [what.drawable if what.directions is None else what.directions.low for what in fields]
    high = [what.drawable if what.directions is None else what.directions.high for what in fields]
    along = {1 if what.directions is None else len(what.directions.each) for what in fields}
    several = f" and their {' or '.join(map(str, sorted(along)))} directions"
    return replace(
        fields[0],
        values=np.median(each, axis=0),
        done=np.all([what.done for what in fields], axis=0),
        origin=None,
        directions=Directions(
            each=each,
            low=np.min(low, axis=0),
            high=np.max(high, axis=0),
            band=f"range over {len(fields)} runs{several if along != {1} else ''}",
            total=len(fields),
            widest=None,
            of="runs",
        ),
    )


def _largest(data: SpectrumData) -> float:
    pairs = data.eigenpairs
    return np.inf if pairs is None or not len(pairs.eigenvalues) else float(pairs.eigenvalues[0])
