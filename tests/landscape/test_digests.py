"""Digests are stored in runs and surfaces: what they are made of does not change."""

from __future__ import annotations

import hashlib

import torch

from isoloss.landscape.batches import Batch, FixedData
from isoloss.landscape.vectors import digest


def test_a_digest_is_of_names_dtypes_shapes_and_entries_in_order():
    tensors = {
        "w": torch.arange(6.0).reshape(2, 3).T,
        "n": torch.tensor(3),
        "e": torch.empty(0, 2),
        "b": torch.tensor([True, False]),
    }
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        sha.update(tensor.numpy().tobytes())  # row by row, also of a transposed tensor
    assert digest(tensors) == digest(tensors.items()) == sha.hexdigest()
    # As stored by an earlier version.
    assert digest(tensors) == "c4ba891553b656b9de556029c2b6247dc1cd880d1981786543f1ab0cf3d6335b"
    assert digest({"w": torch.zeros(2, 3)}) != digest({"w": torch.zeros(3, 2)})


def test_data_have_the_digest_of_their_tensors_batch_after_batch():
    inputs = torch.arange(6.0).reshape(3, 2)
    tokens = {"x": torch.arange(4, dtype=torch.float64).reshape(2, 2)}
    data = FixedData([Batch(inputs, torch.arange(3), 3), Batch(tokens, torch.arange(2), 2)])
    # As stored by an earlier version.
    assert data.digest() == "203ac6220d6f9e1276acccfb6836a097871d1921b0749b19a17a03a80939ceb5"
