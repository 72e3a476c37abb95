"""Eigenvectors of the Hessian as directions, from what is stored of its spectrum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from isoloss.landscape.directions.direction import DirectionError, RawDirection
from isoloss.records.spectra import EigenpairsData


def eigenvector_direction(
    pairs: EigenpairsData, index: int, parameters: Mapping[str, Tensor], **source: object
) -> RawDirection:
    """Return a stored eigenvector, of norm 1 and of either sign.

    Along it the loss curves as x^2 lambda / 2 about theta0, where the gradient is small.

    Args:
        pairs: Stored eigenpairs of the Hessian at the same weights.
        index: 0 for the algebraically largest eigenvalue, 1 for the next; -1 for the smallest, -2
            for the next smallest.
        parameters: theta0, by name.
        **source: What else to store of it, JSON-able, as `Direction.source`.

    Raises:
        DirectionError: If there is no such eigenvector, or it is one by other parameters.
    """
    place = index if index >= 0 else -1 - index
    vectors = pairs.eigenvectors if index >= 0 else pairs.smallest_eigenvectors
    values = pairs.eigenvalues if index >= 0 else pairs.smallest_eigenvalues
    count = 0 if values is None else len(values)
    if values is None or place >= count:
        held = [f"0 to {len(pairs.eigenvalues) - 1}"] if len(pairs.eigenvalues) else []
        if pairs.smallest_eigenvalues is not None and len(pairs.smallest_eigenvalues):
            held.append(f"-1 to {-len(pairs.smallest_eigenvalues)}")
        raise DirectionError(
            f"expected an eigenvector among {' and '.join(held) or 'those stored, none'}, got "
            f"{index}\ncompute more with `top` or `smallest`"
        )
    if not vectors:
        raise DirectionError(
            "expected stored eigenvectors, got eigenvalues alone\ncompute the spectrum again"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    if {name: tuple(array.shape[1:]) for name, array in vectors.items()} != shapes:
        raise DirectionError(
            f"expected an eigenvector by the {len(shapes)} tensors that the surface moves, got one "
            f"by {len(vectors)} others\ngive both the same `parameters`"
        )
    value = float(values[place])
    return RawDirection(
        {name: torch.from_numpy(vectors[name][place]).double() for name in parameters},
        "eigen",
        {
            "label": f"eigenvector {index} (λ = {value:.3g})",
            "index": index,
            "eigenvalue": value,
            **source,
        },
    )
