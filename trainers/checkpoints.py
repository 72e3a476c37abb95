"""Weights and training states on disk, loaded without running anything they hold.

Before anything is used, the checksums within the archive are compared, which torch does not do,
and for a run's own checkpoints the digest that was stored when they were written. Files in torch's
form before 1.6, and those saved without checksums, have nothing to compare: damage to the numbers
in them goes unseen.
"""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isoloss.records.digests import expected_digests, write_with_digest
from isoloss.records.files import write_atomically
from isoloss.trainers.errors import CheckpointError
from isoloss.trainers.fitting import Fit, fits, load_into, match_names
from isoloss.trainers.safetensors import is_safetensors, read_safetensors
from isoloss.trainers.unpickling import full_load, restricted_load
from isoloss.trainers.weight_search import (
    WEIGHT_KEYS,
    Weights,
    find_weights,
    plain,
    strip_prefixes,
)

__all__ = [
    "WEIGHT_KEYS",
    "CheckpointError",
    "Fit",
    "Weights",
    "fits",
    "load_into",
    "load_state",
    "load_weights",
    "match_names",
    "read_weights",
    "save_state",
    "save_weights",
    "strip_prefixes",
]

# What tensors may take beyond the bytes of their file: a few are stored once and repeated.
REPEATED = 2**30


def save_weights(path: Path, weights: Mapping[str, Any], *, digest: bool = False) -> None:
    """Write a state dict atomically, its tensors contiguous and on the CPU.

    The same weights give the same bytes.

    Args:
        path: The file.
        weights: A `state_dict()`.
        digest: Whether to store the file's digest beside it, which `load_weights` compares.
    """
    state = {name: _detached(value) for name, value in weights.items()}
    save_state(path, state, digest=digest)


def save_state(path: Path, state: dict[str, Any], *, digest: bool = False) -> None:
    """Write tensors and plain values (numbers, text, lists, dictionaries) atomically."""

    def write(temporary: Path) -> None:
        # Through a handle: given a path, torch writes its (random) name into the file.
        with open(temporary, "wb") as file:
            torch.save(state, file)

    (write_with_digest if digest else write_atomically)(Path(path), write)


def load_weights(path: Path) -> dict[str, Any]:
    """Read weights from a checkpoint of any usual form: the tensors of `read_weights`."""
    return read_weights(path).tensors


def read_weights(path: Path, *, key: str | None = None, trust_pickle: bool = False) -> Weights:
    """Read weights from a checkpoint of any usual form, and say where in it they were.

    That is a state dict, or a dictionary that holds one (see `weight_search`), written by
    `torch.save` or as safetensors. Prefixes that wrappers put before every name are taken off.

    Args:
        path: The file.
        key: The entry to take where there are several.
        trust_pickle: Whether a file that cannot be read otherwise is unpickled, which runs
            whatever code it names. For files of one's own.

    Returns:
        Tensors by name, on the CPU, with an account of where they were.

    Raises:
        CheckpointError: If the file is missing or damaged, needs unpickling of foreign objects,
            or holds no weights.
    """
    path = Path(path)
    content, checks = _read(path, foreign=True, trust_pickle=trust_pickle)
    found = find_weights(content, path, key)
    _check_sizes(path, found.tensors)
    return replace(found, **checks)


def load_state(path: Path) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values, tensors to the CPU.

    Raises:
        CheckpointError: If the file is missing or damaged, needs unpickling of foreign objects,
            or holds no dictionary.
    """
    return _read(Path(path), foreign=False)[0]


def _read(
    path: Path, *, foreign: bool, trust_pickle: bool = False
) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return what a file holds, and what was checked and done: fields of `Weights`."""
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint, got no file at {path}")
    checks: dict[str, Any] = {}
    # One handle for all: a training may put another file in its place.
    with open(path, "rb") as file:
        checks["digested"] = _check_digest(path, file)
        if is_safetensors(path, file):
            return dict(read_safetensors(path, file)), checks
        checks["summed"] = _check_sums(path, file)
        try:
            content = restricted_load(path, file, foreign=foreign)
        except CheckpointError:
            if not trust_pickle:
                raise
            file.seek(0)
            content, checks["unpickled"] = full_load(path, file), True
    content = plain(content)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: expected a dictionary of tensors, got {type(content).__name__}"
        )
    return dict(content), checks


def _check_digest(path: Path, file: BufferedReader) -> bool:
    """Refuse a file that is not what was written; return whether that is known."""
    expected = expected_digests(path)
    if not expected:
        return False
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if found not in expected:
        raise CheckpointError(
            f"expected {path} as it was written, with SHA-256 {expected[0][:12]}.., got "
            f"{found[:12]}..: it is damaged or another file\n"
            "put a copy of it back, take another checkpoint, or train the run again (`force`)"
        )
    return True


def _check_sums(path: Path, file: BufferedReader) -> bool:
    """Refuse an archive with an entry that does not have its checksum; return if it has any."""
    zipped = file.read(4) == b"PK\x03\x04"  # as torch decides
    file.seek(0)
    if not zipped:
        return False
    damaged: str | None = "its directory"
    unsummed = False
    # Flipped bits make the reader raise nearly anything: NotImplementedError, OSError, ..
    with contextlib.suppress(Exception), zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # All of them 0: saved under torch.serialization.set_crc32_options(False).
        unsummed = not any(entry.CRC for entry in entries)
        if sum(entry.file_size for entry in entries) > path.stat().st_size + REPEATED:
            damaged = "the sizes of its entries"  # torch compresses none
        else:
            damaged = None if unsummed else archive.testzip()
    file.seek(0)
    if damaged is not None:
        raise CheckpointError(
            f"expected a whole checkpoint, got {path} with damage in {damaged}: it is truncated or "
            "of another format, or bits of it have changed\nget a new copy of it"
        )
    return not unsummed


def _check_sizes(path: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse tensors that claim more values than the file can hold."""
    held = path.stat().st_size
    storages, total = {}, 0
    for tensor in tensors.values():
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            total += tensor.numel() * tensor.element_size()
    if sum(storages.values()) > held or total > held + REPEATED:
        raise CheckpointError(
            f"expected tensors as large as their file, got {path} of {held} bytes with "
            f"{max(total, sum(storages.values()))} bytes of tensors: it is truncated or made up\n"
            "get a new copy of it"
        )


def _detached(value: Any) -> Any:
    # A copy, as a view would be written with the whole storage behind it.
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return value
