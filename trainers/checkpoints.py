"""Weights and training states on disk, loaded without running anything they hold.

Before anything is used, the checksums within the archive are compared, which torch does not do,
and for a run's own checkpoints the digest that was stored when they were written. Files in torch's
form before 1.6, and those saved without checksums, have nothing to compare: damage to the numbers
in them goes unseen.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import zipfile
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.errors import IsolossError
from isoloss.records.digests import expected_digests, write_with_digest
from isoloss.records.files import FileError, write_atomically

# Where other programs keep the weights in a checkpoint dictionary, most telling name first.
WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "net")
# Put before every name by DataParallel and DistributedDataParallel, and by torch.compile.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
EXAMPLES = 3


class CheckpointError(IsolossError, RuntimeError):
    """A file that is damaged, holds no weights, or weights of another network."""


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
    """Read weights from a checkpoint of any usual form.

    That is a state dict, or a dictionary that holds one under one of `WEIGHT_KEYS`. Prefixes that
    wrappers put before every name are taken off.

    Args:
        path: The file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        CheckpointError: If the file is missing or damaged, needs unpickling of foreign objects,
            or holds no weights.
    """
    content = load_state(path)
    for key in WEIGHT_KEYS:
        if isinstance(content.get(key), Mapping) and _is_state_dict(content[key]):
            return strip_prefixes(content[key])
    if _is_state_dict(content):
        return strip_prefixes(content)
    found = ", ".join(map(str, list(content)[:8])) or "nothing"
    raise CheckpointError(
        f"{path}: expected a state dict, or a dictionary with one under {', '.join(WEIGHT_KEYS)}\n"
        f"got a dictionary with {found}"
    )


def load_state(path: Path) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values, tensors to the CPU.

    Raises:
        CheckpointError: If the file is missing or damaged, needs unpickling of foreign objects,
            or holds no dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint, got no file at {path}")
    try:
        # One handle for all: a training may put another file in its place.
        with open(path, "rb") as file:
            _check_digest(path, file)
            _check_sums(path, file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, CheckpointError, FileError):
        raise
    except Exception as error:  # damaged bytes raise nearly anything, IndexError to AssertionError
        foreign = re.search(r"GLOBAL (\S+)|but got <class '([^']+)'>", str(error))
        if foreign:
            name = (foreign[1] or foreign[2]).rstrip(".,")
            raise CheckpointError(
                f"{path} holds objects beside tensors and plain values ({name}): unpickling those "
                "runs code from the file, so it is refused\n"
                "in the program that made it, save the weights alone: "
                "torch.save(model.state_dict(), FILE)"
            ) from error
        raise CheckpointError(
            f"expected a checkpoint written by torch.save, got {path} "
            f"({path.stat().st_size} bytes), which is truncated or of another format"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: expected a dictionary of tensors, got {type(content).__name__}"
        )
    return dict(content)


def _check_digest(path: Path, file: BufferedReader) -> None:
    """Refuse a file that is not what was written."""
    expected = expected_digests(path)
    if not expected:
        return
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if found not in expected:
        raise CheckpointError(
            f"expected {path} as it was written, with SHA-256 {expected[0][:12]}.., got "
            f"{found[:12]}..: it is damaged or another file\n"
            "put a copy of it back, take another checkpoint, or train the run again (`force`)"
        )


def _check_sums(path: Path, file: BufferedReader) -> None:
    """Refuse an archive with an entry that does not have its checksum."""
    zipped = file.read(4) == b"PK\x03\x04"  # as torch decides
    file.seek(0)
    if not zipped:
        return
    damaged: str | None = "its directory"
    # Flipped bits make the reader raise nearly anything: NotImplementedError, OSError, ..
    with contextlib.suppress(Exception), zipfile.ZipFile(file) as archive:
        # All of them 0: saved under torch.serialization.set_crc32_options(False).
        unsummed = not any(entry.CRC for entry in archive.infolist())
        damaged = None if unsummed else archive.testzip()
    file.seek(0)
    if damaged is not None:
        raise CheckpointError(
            f"expected a whole checkpoint, got {path} with damage in {damaged}: it is truncated or "
            "of another format, or bits of it have changed\nget a new copy of it"
        )


def strip_prefixes(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Take the wrapper prefixes off that every name has."""
    names = dict(weights)
    while prefix := next((p for p in WRAPPER_PREFIXES if _all_start(names, p)), ""):
        names = {name.removeprefix(prefix): value for name, value in names.items()}
    return names


def load_into(model: nn.Module, weights: Mapping[str, Any], source: str) -> None:
    """Load weights into a network, all of them or none.

    Args:
        model: The network. Left as it is when the weights do not fit.
        weights: From `load_weights`, or any state dict.
        source: What to call the weights in an error, such as the file.

    Raises:
        CheckpointError: If names or shapes differ, or weights are of a kind that would be changed
            by loading them: integer where the network has floating point, complex, sparse, ..
    """
    own = model.state_dict()
    # Both sides without wrapper prefixes: the network may be wrapped, too.
    originals = dict(zip(strip_prefixes(own), own, strict=True))
    given = strip_prefixes(weights)
    shapes, kinds, missing = [], [], []
    for name, original in originals.items():
        if name not in given:
            # Older than torch 1.0; torch fills it in.
            if not name.endswith("num_batches_tracked"):
                missing.append(f"{name}: missing")
        elif _shape(given[name]) != _shape(own[original]):
            expected, got = _shape(own[original]), _shape(given[name])
            shapes.append(f"{name}: expected {expected}, got {got}")
        elif (wanted := _kind(own[original])) != (found := _kind(given[name])):
            kinds.append(f"{name}: expected {wanted}, got {found}")
    unexpected = [f"{name}: not in the network" for name in given if name not in originals]
    problems = shapes + kinds + missing + unexpected
    if problems:
        more = f"; and {len(problems) - EXAMPLES} more" if len(problems) > EXAMPLES else ""
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__}: {len(shapes)} other shapes, "
            + (f"{len(kinds)} of another kind, " if kinds else "")
            + f"{len(missing)} missing, {len(unexpected)} unexpected\n"
            f"{'; '.join(problems[:EXAMPLES])}{more}\n"
            "build the network the weights were trained with: same model, same arguments"
        )
    model.load_state_dict({originals[name]: value for name, value in given.items()})


def _all_start(names: Mapping[str, Any], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state"))
        for name, value in content.items()
    )


def _detached(value: Any) -> Any:
    # A copy, as a view would be written with the whole storage behind it.
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return value


def _kind(value: Any) -> str:
    """Return what kind of numbers a tensor holds, and how; copying would change them."""
    if not isinstance(value, Tensor):
        return "no tensor"
    if value.is_meta:
        return "a meta tensor, without values"
    if value.is_quantized:
        return "quantised numbers"
    if value.layout != torch.strided:
        return f"a tensor of layout {value.layout}"
    if value.dtype == torch.bool:
        return "booleans"
    if value.is_complex():
        return "complex numbers"
    return "floating point" if value.is_floating_point() else "integers"


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
