"""Fresh results of the estimators as files keep them: arrays and JSON-able accounts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.class_structure import ClassStructure, eigenvalues_of
from isoloss.hessian.density import Density
from isoloss.hessian.eigenpairs import Eigenpairs
from isoloss.hessian.frobenius import FrobeniusNorm
from isoloss.hessian.gradient_overlap import GradientOverlap
from isoloss.hessian.trace import Trace
from isoloss.records.classes import ClassData
from isoloss.records.layers import LayerData
from isoloss.records.spectra import (
    DENSITY_ARRAYS,
    DensityData,
    EigenpairsData,
    ScaledData,
    TraceData,
)

OF_PAIRS = ("converged", "reason", "products", "copies", "settings")
OF_TRACE = ("method", "converged", "reason", "products", "settings")


def stored_eigenpairs(
    pairs: Eigenpairs,
    shapes: Mapping[str, Sequence[int]] | None = None,
    sample_standard_error: np.ndarray | None = None,
    sample: Mapping[str, Any] | None = None,
    overlap: GradientOverlap | None = None,
) -> EigenpairsData:
    """Return eigenpairs as files keep them.

    Args:
        pairs: Fresh eigenpairs.
        shapes: Shape of each parameter in the order of the operator's vectors, as
            `HessianOperator.shapes`; the eigenvectors are stored by these names, and are left out
            where it is None.
        sample_standard_error: (k,), of the eigenvalues over draws of the samples.
        sample: What is known of the samples, JSON-able.
        overlap: Of the gradient with the span of the largest eigenvectors.

    Raises:
        ValueError: If the shapes do not make up the eigenvectors.
    """
    asked = pairs.smallest_eigenvalues is not None
    return EigenpairsData(
        eigenvalues=_array(pairs.eigenvalues),
        residuals=_array(pairs.residuals),
        eigenvectors=_by_parameter(pairs.eigenvectors, shapes),
        smallest_eigenvalues=_array(pairs.smallest_eigenvalues) if asked else None,
        smallest_residuals=_array(pairs.smallest_residuals) if asked else None,
        smallest_eigenvectors=_by_parameter(pairs.smallest_eigenvectors, shapes) if asked else {},
        account={
            **_account(pairs, *OF_PAIRS),
            **({} if sample is None else {"sample": dict(sample)}),
            **({} if overlap is None else {"gradient": _of_gradient(overlap)}),
        },
        sample_standard_error=sample_standard_error,
    )


def stored_trace(
    estimate: Trace,
    sample_standard_error: float | None = None,
    sample: Mapping[str, Any] | None = None,
) -> TraceData:
    """Return a trace as files keep it, with its error over samples as `stored_eigenpairs`."""
    return TraceData(
        estimate.value,
        estimate.standard_error,
        estimate.samples,
        {**_account(estimate, *OF_TRACE), **({} if sample is None else {"sample": dict(sample)})},
        sample_standard_error,
    )


def stored_scaled(pairs: Eigenpairs | None, estimate: Trace | None) -> ScaledData:
    """Return the largest eigenvalue and the trace of T H T as files keep them.

    Args:
        pairs: Eigenpairs of T H T; None where eigenvalues are not asked for.
        estimate: Its trace; None where that is not asked for.
    """
    return ScaledData(
        eigenvalue=None if pairs is None else float(pairs.eigenvalues[0]),
        residual=None if pairs is None else float(pairs.residuals[0]),
        trace=None if estimate is None else estimate.value,
        trace_standard_error=None if estimate is None else estimate.standard_error,
        account={
            **({} if pairs is None else {"eigenvalue": _account(pairs, *OF_PAIRS)}),
            **({} if estimate is None else {"trace": _account(estimate, *OF_TRACE)}),
        },
    )


def stored_layer(
    pairs: Eigenpairs, estimate: Trace, norm: FrobeniusNorm, shapes: Mapping[str, Sequence[int]]
) -> LayerData:
    """Return the numbers of one layer's block, whose parameters have these shapes."""
    return LayerData(
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        eigenvalue=float(pairs.eigenvalues[0]),
        residual=float(pairs.residuals[0]),
        trace=estimate.value,
        trace_standard_error=estimate.standard_error,
        frobenius_norm=norm.value,
        frobenius_standard_error=norm.standard_error,
        account={
            "names": list(shapes),
            "eigenvalue": _account(pairs, *OF_PAIRS),
            "trace": _account(estimate, *OF_TRACE),
            "frobenius_norm": _account(norm, "converged", "reason", "products", "settings"),
        },
    )


def stored_classes(structure: ClassStructure, vectors: Tensor, samples: int) -> ClassData:
    """Return the parts of G by classes as files keep them.

    Args:
        structure: Of G.
        vectors: Eigenvectors of its largest eigenvalues, (n, k).
        samples: Number of samples.
    """
    count = len(structure.weights)
    of_cross = eigenvalues_of(structure.of_cross)[: max(count * (count - 2), 0)]
    return ClassData(
        weights=_array(structure.weights),
        of_class=_padded(eigenvalues_of(structure.of_class), count),
        of_cross=_padded(of_cross, max(count * (count - 2), 0)),
        of_same=_padded(eigenvalues_of(structure.of_same), count),
        along=_array(structure.parts_along(vectors)),
        account={"samples": samples},
    )


def columns_of(vectors: Mapping[str, np.ndarray]) -> Tensor:
    """Return eigenvectors that are stored by parameter, (k, *shape) each, as columns (n, k)."""
    rows = [array.reshape(len(array), -1) for array in vectors.values()]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(rows, axis=1).T))


def stored_density(density: Density) -> DensityData:
    """Return a density as files keep it."""
    arrays = {name: _array(getattr(density, name)) for name in DENSITY_ARRAYS}
    account = _account(density, "bandwidth", "seed", "products", "reason", "settings")
    return DensityData(**arrays, account=account)


def _of_gradient(overlap: GradientOverlap) -> dict[str, Any]:
    """Return an overlap, JSON-able: None for what is not finite."""
    share = overlap.share if math.isfinite(overlap.share) else None
    return {
        "norm": overlap.norm if math.isfinite(overlap.norm) else None,
        "share": share,
        "shares": None if share is None else list(overlap.shares),
        "by_chance": overlap.by_chance,
    }


def _account(result: Any, *names: str) -> dict[str, Any]:
    """Return what a result says of how it was computed."""
    return {name: getattr(result, name) for name in names}


def _padded(values: Tensor, count: int) -> np.ndarray:
    """Return eigenvalues, (count,): a matrix of fewer rows has zeros beside its own."""
    return np.pad(_array(values), (0, count - len(values)))


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _by_parameter(
    vectors: Any, shapes: Mapping[str, Sequence[int]] | None
) -> dict[str, np.ndarray]:
    """Cut eigenvectors (n, k) into arrays (k, *shape)."""
    if shapes is None:
        return {}
    rows = _array(vectors).T
    sizes = [math.prod(shape) for shape in shapes.values()]
    if sum(sizes) != rows.shape[1]:
        raise ValueError(
            f"expected eigenvectors of {sum(sizes)} entries for {len(shapes)} parameters, "
            f"got {rows.shape[1]}\npass the `shapes` of the operator they were computed from"
        )
    pieces = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return {
        name: np.ascontiguousarray(piece).reshape(len(rows), *shape)
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }
