"""Whether what was measured of some runs may be compared, and where not, why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from isoloss.records.identity import unlike
from isoloss.records.runs import Run, RunError
from isoloss.records.spectra import SpectrumData, read_spectrum
from isoloss.records.surfaces import SurfaceData, read_surface


@dataclass(frozen=True)
class Measured:
    """A run with what was measured of it; anything may be missing."""

    run: Run
    surface: SurfaceData | None
    curve: SurfaceData | None
    hessian: SpectrumData | None


def measure(run: Run) -> Measured:
    """Read what was measured of a run."""
    surface, curve, hessian = (
        run.path / name for name in ("surface-2d.h5", "surface-1d.h5", "hessian.h5")
    )
    return Measured(
        run,
        read_surface(surface) if surface.exists() else None,
        read_surface(curve) if curve.exists() else None,
        read_spectrum(hessian) if hessian.exists() else None,
    )


def differences_between(measured: Sequence[Measured]) -> list[str]:
    """Name what was measured differently, as `surface dtype: run float32, other float64`."""
    found = [text for m in measured if (text := _other_weights(m))]
    found += _other_losses(measured)
    for kind in ("surface", "curve", "hessian"):
        there = [m for m in measured if getattr(m, kind) is not None]
        settings = {m.run.name: getattr(m, kind).settings for m in there}
        for name, values in unlike(settings).items():
            shown = ", ".join(f"{run} {_short(value)}" for run, value in values.items())
            found.append(f"{kind} {name}: {shown}")
    return found


def _other_weights(m: Measured) -> str:
    """Say where what was measured of one run is of different weights (trained on, or best)."""
    weights = {
        kind: stored.settings.get("checkpoint_sha256")
        for kind in ("surface", "curve", "hessian")
        if (stored := getattr(m, kind)) is not None
    }
    with suppress(RunError):
        weights["test accuracy"] = m.run.evaluation().get("checkpoint_sha256")
    known = {kind: digest for kind, digest in weights.items() if digest is not None}
    if len(set(known.values())) < 2:
        return ""
    shown = ", ".join(f"{kind} {digest[:8]}" for kind, digest in known.items())
    return f"weights measured of {m.run.name}: {shown}"


def other_grids(measured: Sequence[Measured]) -> list[str]:
    """Say where surfaces or curves span different ranges, which may be compared all the same."""
    found = []
    for kind in ("surface", "curve"):
        grids = {
            m.run.name: " ".join(filter(None, stored.settings["grid"].values()))
            for m in measured
            if (stored := getattr(m, kind)) is not None and stored.settings.get("grid")
        }
        if len(set(grids.values())) > 1:
            found.append(f"{kind} grids: {', '.join(f'{r} {g}' for r, g in grids.items())}")
    return found


def _other_losses(measured: Sequence[Measured]) -> list[str]:
    """Say where the test scores are means of different losses."""
    losses = {}
    for m in measured:
        with suppress(RunError):
            losses[m.run.name] = json.dumps(m.run.evaluation().get("loss"), sort_keys=True)
    if len(set(losses.values())) < 2:
        return []
    return [f"loss of the test scores: {', '.join(f'{r} {_short(v)}' for r, v in losses.items())}"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}.."
