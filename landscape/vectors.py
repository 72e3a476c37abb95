"""Parameter-shaped vectors: between one flat vector and tensors by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# Entries that are copied to float64 at a time.
PIECE = 2**22


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """Concatenate the tensors, row-major, in the mapping's order.

    Args:
        tensors: Tensors of one dtype and device, by name.

    Returns:
        A new vector of shape (n,), n the number of entries of all tensors together.
    """
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut a flat vector into views that have the names and shapes of `like`.

    Args:
        vector: Shape (n,).
        like: Tensors that give names, order and shapes; n entries in all.

    Returns:
        Views into `vector`, by name.

    Raises:
        ValueError: If the vector's length is not the number of entries of `like`.
    """
    size = sum(tensor.numel() for tensor in like.values())
    if vector.shape != (size,):
        raise ValueError(
            f"expected a vector of shape ({size},) for {len(like)} tensors, "
            f"got shape {tuple(vector.shape)}"
        )
    parts: dict[str, Tensor] = {}
    start = 0
    for name, tensor in like.items():
        parts[name] = vector[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    return parts


def inner(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the inner product <a, b> over all entries, accumulated in float64."""
    total = 0.0
    for name in a:
        first = a[name]
        second = first if b is a else b[name]
        if first.numel() <= PIECE:
            total += float(torch.sum(first.double() * second.double()))
        else:  # without float64 copies of the whole
            pairs = zip(*(t.reshape(-1).split(PIECE) for t in (first, second)), strict=True)
            total += sum(float(torch.dot(p.double(), q.double())) for p, q in pairs)
    return total


def digest(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and entries, in order.

    Args:
        tensors: By name, or pairs of name and tensor where a name occurs more than once.
    """
    sha256 = hashlib.sha256()
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        sha256.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha256.update(flat.view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def norm(a: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of all entries together, accumulated in float64."""
    return inner(a, a) ** 0.5
