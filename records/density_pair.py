"""Spectral densities as two arrays, `NAME_eigen.npy` and `NAME_weight.npy`: read and written.

PyHessian's functions return and take these two, and projects that use it store them: the nodes of
the quadrature (probes, steps), and their weights (probes, steps). Some ports of PyHessian square
the whole matrix of eigenvectors in place of its first row, and store (probes, steps, steps): of a
probe the row 0, the squares of the first components, are the weights of the Gauss quadrature
(Golub & Welsch 1969), and the only ones read. Their own figures sum over the rows, which gives
every node the same weight. `torch.linalg.eig` made these arrays complex, with imaginary parts of 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isoloss.records.files import FileError
from isoloss.records.npy import npy_bytes, read_npy
from isoloss.records.smoothing import smooth
from isoloss.records.spectra import DensityData, SpectrumData

NODES, WEIGHTS = "_eigen.npy", "_weight.npy"
# Of the largest number: what single precision leaves of an imaginary part that is 0.
IMAGINARY = 1e-5
# By which the weights of a probe, in single precision and of many steps, may miss 1.
SUM = 1e-2
WHOLE_MATRIX = "squares of whole eigenvectors are stored: those of their first components are read"


def pair_of(path: Path | str) -> tuple[Path, Path]:
    """Return the two files of a density, given either.

    Raises:
        FileError: If the name is none of the two.
    """
    path = Path(path)
    for suffix in (NODES, WEIGHTS):
        if path.name.endswith(suffix):
            stem = path.name.removesuffix(suffix)
            return path.with_name(stem + NODES), path.with_name(stem + WEIGHTS)
    raise FileError(
        f"expected a spectral density, NAME{NODES} with NAME{WEIGHTS} beside it, got {path}"
    )


def read_density_pair(path: Path | str) -> SpectrumData:
    """Read a density from its two files, given either, and smooth it as ours are.

    Raises:
        FileError: If one is missing, or holds no quadrature.
    """
    first, second = pair_of(path)
    nodes, weights, note = _real(first), _real(second), ""
    if nodes.ndim == 1:  # one probe
        nodes, weights = nodes[None], weights[None]
    if nodes.ndim == 2 and weights.shape == (*nodes.shape, nodes.shape[1]):
        weights, note = weights[:, 0, :], WHOLE_MATRIX
    if nodes.ndim != 2 or not nodes.size or weights.shape != nodes.shape:
        raise FileError(
            f"expected nodes (probes, steps) in {first} and as many weights in {second}, got "
            f"{nodes.shape} and {weights.shape}"
        )
    sums = weights.sum(axis=1, keepdims=True)
    if (weights < -SUM).any() or not (np.abs(sums - 1) <= SUM).all():
        raise FileError(
            f"expected weights of 0 or more in {second}, whose sum for each probe is 1, got sums "
            f"from {sums.min():.4g} to {sums.max():.4g}, the least weight {weights.min():.2g}"
        )
    weights = np.maximum(weights, 0.0)
    order = np.argsort(nodes, axis=1, kind="stable")
    nodes = np.take_along_axis(nodes, order, axis=1)
    weights = np.take_along_axis(weights / weights.sum(axis=1, keepdims=True), order, axis=1)
    grid, curves, bandwidth = smooth(nodes, weights)
    account = {"bandwidth": bandwidth, "reason": "", "note": note}
    density = DensityData(
        nodes, weights, grid, curves.mean(0), curves.min(0), curves.max(0), account
    )
    label = first.name.removesuffix(NODES)
    return SpectrumData({"label": label}, density=density)


def _real(path: Path) -> np.ndarray:
    array = read_npy(path)
    if array.dtype.kind == "c":
        if not np.abs(array.imag).max(initial=0) <= IMAGINARY * np.abs(array.real).max(initial=0):
            raise FileError(f"expected real numbers in {path}, got imaginary parts other than 0")
        array = array.real
    array = array.astype(np.float64)
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) > 1e100:
        raise FileError(f"expected finite numbers in {path}, got NaN, infinity or more than 1e100")
    return array


def pair_images(density: DensityData) -> tuple[bytes, bytes]:
    """Return nodes and weights, (probes, steps) float64 each, as the two files."""
    return npy_bytes(density.nodes), npy_bytes(density.weights)
