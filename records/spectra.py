"""The HDF5 file of a Hessian's spectrum, and the JSON summary beside it.

Layout: `eigenvalues`, `residuals` (k,), algebraically largest, descending, and
`sample_standard_error` (k,) of each over draws of the samples; `smallest_eigenvalues`,
`smallest_residuals` (s,), ascending, where asked; `eigenvectors/<parameter>` (k, *shape) and
`smallest_eigenvectors/<parameter>`;
`trace/{estimate,standard_error,samples,sample_standard_error}`;
`scaled/{eigenvalue,residual,trace,trace_standard_error}`, numbers of T H T;
`density/{nodes,weights}` (probes, steps), `density/{grid,curve,low,high}`; `exact/eigenvalues`
(n,), all of a dense matrix, descending, which are then the density's nodes, as of one probe;
`layers/<module>/{parameters,eigenvalue,residual,trace,trace_standard_error,frobenius_norm,
frobenius_standard_error}`; `classes/{weights,of_class,of_cross,of_same,along}` of `ggn`. How a
stage was computed (converged, reason, products, method, ..) is in the attributes of `eigenvalues`,
`trace`, `scaled`, `density`, `exact` and `classes`. A file may hold any of the stages. The same
content gives the same bytes.

Of several operators on the same data, the first is laid out so, and each other in the same way
below `operators/<name>`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from isoloss.records.classes import ClassData, read_classes
from isoloss.records.exact_spectra import ExactData, read_exact
from isoloss.records.hdf5 import open_hdf5, write_hdf5
from isoloss.records.json_text import check_entries
from isoloss.records.layers import LayerData, read_layers, write_layers
from isoloss.records.stored_group import StoredGroup
from isoloss.records.tables import data_frame, eigenvalue_rows, eigenvalue_text

if TYPE_CHECKING:
    import pandas as pd

# What the account of a computation must say of how it ended.
ENDED: dict[str, tuple[type, ...]] = {"converged": (bool,), "reason": (str,)}
STAGES = ("exact", "eigenpairs", "trace", "scaled", "density", "classes")


@dataclass(frozen=True)
class EigenpairsData:
    """Stored eigenpairs (see `hessian.eigenpairs.Eigenpairs`).

    Attributes:
        eigenvalues: (k,) descending.
        residuals: (k,).
        eigenvectors: By parameter, (k, *shape); empty where they were not stored.
        smallest_eigenvalues: (s,) ascending; None if not asked.
        smallest_residuals: (s,).
        smallest_eigenvectors: By parameter, (s, *shape).
        account: How they were computed: converged, reason, products, settings; under `gradient`,
            norm of the gradient and its square's share in the span of the largest; under `sample`,
            how many samples of how many, the largest eigenvalue's bias from sampling, and the
            reason where there is no error.
        sample_standard_error: (k,), of the eigenvalues over draws of the samples; None where there
            is none.
    """

    eigenvalues: np.ndarray
    residuals: np.ndarray
    eigenvectors: dict[str, np.ndarray]
    smallest_eigenvalues: np.ndarray | None
    smallest_residuals: np.ndarray | None
    smallest_eigenvectors: dict[str, np.ndarray]
    account: dict[str, Any]
    sample_standard_error: np.ndarray | None = None

    def __repr__(self) -> str:
        converged, reason = self.account.get("converged", False), self.account.get("reason", "")
        return eigenvalue_text(self.rows(), converged, reason)

    def rows(self) -> list[dict[str, Any]]:
        """Return eigenvalues with residuals and errors, a row each."""
        smallest = (self.smallest_eigenvalues, self.smallest_residuals)
        errors = self.sample_standard_error
        return eigenvalue_rows((self.eigenvalues, self.residuals), smallest, errors)


@dataclass(frozen=True)
class TraceData:
    """A stored trace (see `hessian.trace.Trace`).

    Attributes:
        estimate: The trace.
        standard_error: Of the estimate over random probes.
        samples: Number of probes' values averaged.
        account: As that of `EigenpairsData`, and the method.
        sample_standard_error: Over draws of the samples; None where there is none.
    """

    estimate: float
    standard_error: float
    samples: int
    account: dict[str, Any]
    sample_standard_error: float | None = None

    def __repr__(self) -> str:
        sampled = self.sample_standard_error
        of_samples = "" if sampled is None else f", sample_standard_error={sampled:.2g}"
        return (
            f"TraceData(estimate={self.estimate:.6g}, standard_error={self.standard_error:.2g}"
            f"{of_samples}, converged={self.account.get('converged')})"
        )


@dataclass(frozen=True)
class ScaledData:
    """Stored numbers of T H T, T the filters' root mean squares (`hessian.operators.scaled`).

    Attributes:
        eigenvalue: Largest eigenvalue; None if eigenvalues were not asked for, or no parameter is
            in a filter (the account's `reason` says so).
        residual: Its residual, None with it.
        trace: Trace; None if not asked for, or without filters.
        trace_standard_error: Of the trace, None with it.
        account: How they were computed, `eigenvalue` and `trace` apart.
    """

    eigenvalue: float | None
    residual: float | None
    trace: float | None
    trace_standard_error: float | None
    account: dict[str, Any]

    def __repr__(self) -> str:
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        shown = ", ".join(f"{name}={value:.6g}" for name, value in numbers.items())
        return f"ScaledData({shown or self.account.get('reason', '')})"


@dataclass(frozen=True)
class DensityData:
    """A stored density (see `hessian.density.Density`).

    Attributes:
        nodes: (probes, steps).
        weights: (probes, steps), each row sums to 1.
        grid: (points,).
        curve: (points,), mean over probes.
        low: (points,), minimum over probes.
        high: (points,), maximum over probes.
        account: bandwidth, seed, products, reason, settings.
    """

    nodes: np.ndarray
    weights: np.ndarray
    grid: np.ndarray
    curve: np.ndarray
    low: np.ndarray
    high: np.ndarray
    account: dict[str, Any]

    @property
    def exact(self) -> bool:
        """Whether the nodes are all eigenvalues, not a quadrature's."""
        return self.account.get("method") == "exact"

    def __repr__(self) -> str:
        probes, steps = self.nodes.shape
        return (
            f"DensityData({probes} probes of {steps} steps, nodes from "
            f"{self.nodes.min():.4g} to {self.nodes.max():.4g})"
        )


@dataclass(frozen=True)
class SpectrumData:
    """A stored spectrum: the stages that are finished, the others None.

    Attributes:
        settings: What it was computed from.
        eigenpairs: Extreme eigenpairs.
        trace: Trace.
        density: Spectral density.
        scaled: Largest eigenvalue and trace in units of the filters.
        others: Spectra of further operators on the same data, by name; the settings hold for all.
        exact: All eigenvalues.
        layers: Numbers of single layers' blocks, by the module's name.
        classes: What means over classes make up, of the Gauss-Newton matrix.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    eigenpairs: EigenpairsData | None = None
    trace: TraceData | None = None
    density: DensityData | None = None
    scaled: ScaledData | None = None
    others: dict[str, SpectrumData] = field(default_factory=dict)
    exact: ExactData | None = None
    layers: dict[str, LayerData] = field(default_factory=dict)
    classes: ClassData | None = None

    @property
    def operators(self) -> dict[str, SpectrumData]:
        """The spectrum of each operator by its name, this one first."""
        return {str(self.settings.get("operator", "hessian")): self, **self.others}

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the finished stages, in the order of `STAGES`."""
        return tuple(stage for stage in STAGES if getattr(self, stage) is not None)

    @property
    def finished(self) -> tuple[str, ...]:
        """Names of the finished stages and, as `layers/<module>`, of the finished layers."""
        return (*self.stages, *(f"layers/{name}" for name in self.layers))

    def with_stage(self, stage: str, found: Any) -> SpectrumData:
        """Return the spectrum with one more of what `finished` names."""
        kind, _, layer = stage.partition("/")
        changed: dict[str, Any] = {kind: {**self.layers, layer: found} if layer else found}
        return replace(self, **changed)

    def __repr__(self) -> str:
        return (
            "\n".join(
                f"{stage}:\n{found!r}" if stage == "eigenpairs" else repr(found)
                for stage in self.stages
                for found in (getattr(self, stage),)
            )
            or "SpectrumData(nothing finished)"
        ) + "".join(f"\n{name}:\n{other!r}" for name, other in self.others.items())

    def to_dataframe(self) -> pd.DataFrame:
        """Return the eigenvalues as a pandas data frame, empty where there are none.

        Columns are `operator` where there are several, `end`, `eigenvalue`, `residual` and, where
        there are errors over draws of the samples, `sample_standard_error`.
        """
        rows = []
        for name, one in self.operators.items():
            own = [] if one.eigenpairs is None else one.eigenpairs.rows()
            rows += [{"operator": name, **row} if self.others else row for row in own]
        return data_frame(rows or {"end": [], "eigenvalue": [], "residual": []})


def write_spectrum(path: Path | str, data: SpectrumData) -> None:
    """Write the finished stages; the file is replaced whole.

    Args:
        path: The HDF5 file.
        data: All that it is to hold, the settings JSON-able.

    Raises:
        FileError: If the file cannot be written; what was there before is unchanged.
    """

    def fill(file: h5py.File) -> None:
        _write_stages(file, data)
        if data.others:
            group = file.create_group("operators", track_order=True)
            for name, other in data.others.items():
                _write_stages(group.create_group(name), other)

    size = sum(_size(one) for one in data.operators.values())
    write_hdf5(Path(path), "hessian", data.settings, fill, size)


def read_spectrum(path: Path | str) -> SpectrumData:
    """Read a Hessian file.

    Raises:
        FileError: If the file is missing, truncated, or holds no Hessian.
    """
    with open_hdf5(Path(path), "hessian") as file:
        settings, others = file.json("settings"), {}
        if "operators" in file:
            group = file.group("operators")
            others = {
                name: _read_stages(group.group(name), settings | {"operator": name}, {})
                for name in group.names()
            }
        return _read_stages(file, settings, others)


def _write_stages(group: h5py.Group, data: SpectrumData) -> None:
    if data.eigenpairs is not None:
        _write_eigenpairs(group, data.eigenpairs)
    for stage in ("trace", "scaled", "density", "exact", "classes"):
        found = getattr(data, stage)
        if found is not None:
            _write_stage(group.create_group(stage), found)
    write_layers(group, data.layers)


def _read_stages(
    group: StoredGroup, settings: dict[str, Any], others: dict[str, SpectrumData]
) -> SpectrumData:
    return SpectrumData(
        settings,
        _read_eigenpairs(group) if "eigenvalues" in group else None,
        _read_trace(group.group("trace")) if "trace" in group else None,
        _read_density(group.group("density")) if "density" in group else None,
        _read_scaled(group.group("scaled")) if "scaled" in group else None,
        others,
        read_exact(group.group("exact")) if "exact" in group else None,
        read_layers(group),
        read_classes(group.group("classes")) if "classes" in group else None,
    )


DENSITY_ARRAYS = ("nodes", "weights", "grid", "curve", "low", "high")


def _write_eigenpairs(file: h5py.Group, pairs: EigenpairsData) -> None:
    dataset = file.create_dataset("eigenvalues", data=pairs.eigenvalues)
    dataset.attrs["account"] = json.dumps(pairs.account)
    file.create_dataset("residuals", data=pairs.residuals)
    if pairs.sample_standard_error is not None:
        file.create_dataset("sample_standard_error", data=pairs.sample_standard_error)
    if pairs.smallest_eigenvalues is not None:
        file.create_dataset("smallest_eigenvalues", data=pairs.smallest_eigenvalues)
        file.create_dataset("smallest_residuals", data=pairs.smallest_residuals)
    for group_name in ("eigenvectors", "smallest_eigenvectors"):
        vectors = getattr(pairs, group_name)
        if vectors:
            # Tracked order: the parameters come back in the order of the operator's vectors.
            group = file.create_group(group_name, track_order=True)
            for name, array in vectors.items():
                group.create_dataset(name, data=array)


def _read_eigenpairs(file: StoredGroup) -> EigenpairsData:
    largest, smallest = file.array("eigenvalues", (None,)), None
    if "smallest_eigenvalues" in file:
        smallest = file.array("smallest_eigenvalues", (None,))
    errors = "sample_standard_error"

    def vectors(name: str, count: int) -> dict[str, np.ndarray]:
        if name not in file:
            return {}
        group = file.group(name)
        return {key: group.array(key, (count, ...)) for key in group.names()}

    return EigenpairsData(
        eigenvalues=largest,
        residuals=file.array("residuals", largest.shape),
        eigenvectors=vectors("eigenvectors", len(largest)),
        smallest_eigenvalues=smallest,
        smallest_residuals=(
            None if smallest is None else file.array("smallest_residuals", smallest.shape)
        ),
        smallest_eigenvectors=(
            {} if smallest is None else vectors("smallest_eigenvectors", len(smallest))
        ),
        account=file.json_of("eigenvalues", "account", ENDED),
        sample_standard_error=file.array(errors, largest.shape) if errors in file else None,
    )


def _write_stage(
    group: h5py.Group, stage: TraceData | ScaledData | DensityData | ExactData | ClassData
) -> None:
    for name, value in vars(stage).items():
        if name == "account":
            group.attrs["account"] = json.dumps(value)
        elif value is not None:
            group.create_dataset(name, data=value)


def _read_trace(group: StoredGroup) -> TraceData:
    return TraceData(
        group.number("estimate"),
        group.number("standard_error"),
        group.count("samples"),
        group.json("account", ENDED),
        _number(group, "sample_standard_error"),
    )


def _read_scaled(group: StoredGroup) -> ScaledData:
    names = ("eigenvalue", "residual", "trace", "trace_standard_error")
    numbers = {name: _number(group, name) for name in names}
    return ScaledData(**numbers, account=_account_of_scaled(group))


def _account_of_scaled(group: StoredGroup) -> dict[str, Any]:
    account = group.json("account", {})
    for name in ("eigenvalue", "trace"):
        if name in account:
            check_entries(account, {name: (dict,)}, f"`scaled` in {group.path}")
            check_entries(account[name], ENDED, f"`scaled` in {group.path}")
    return account


def _read_density(group: StoredGroup) -> DensityData:
    nodes, grid = group.array("nodes", (None, None)), group.array("grid", (None,))
    weights = group.array("weights", nodes.shape)
    curve, low, high = (group.array(name, grid.shape) for name in ("curve", "low", "high"))
    return DensityData(
        nodes, weights, grid, curve, low, high, group.json("account", {"bandwidth": (float,)})
    )


def _number(group: StoredGroup, name: str) -> float | None:
    return group.number(name) if name in group else None


def _size(data: SpectrumData) -> int:
    """Return about how many bytes the arrays of a spectrum take."""
    size = 0 if data.density is None else 4 * data.density.nodes.nbytes
    size += 0 if data.exact is None else data.exact.eigenvalues.nbytes
    if data.eigenpairs is not None:
        vectors = (data.eigenpairs.eigenvectors, data.eigenpairs.smallest_eigenvectors)
        size += sum(array.nbytes for group in vectors for array in group.values())
    return size
