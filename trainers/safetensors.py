"""Weights in the safetensors format: a JSON table and the bytes of each tensor, nothing to run.

The file is `N (8 bytes, little-endian) | JSON, N bytes | data`; the table gives each tensor
`{"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}`, offsets counted from the data.
(https://huggingface.co/docs/safetensors, "Format".) It has no checksums.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from isoloss.trainers.errors import CheckpointError, shown

# The format's own bound on the table.
LARGEST_TABLE = 100_000_000

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


def is_safetensors(path: Path, file: BinaryIO) -> bool:
    """Return whether a file is meant to be of this format: by its name, or by how it begins."""
    start = file.read(9)
    file.seek(0)
    named = path.suffix == ".safetensors"
    begins = start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    return named or begins


def read_safetensors(path: Path, file: BinaryIO) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Raises:
        CheckpointError: If the table does not describe the file's bytes, each once.
    """
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(LARGEST_TABLE, size - 8):
        raise _damaged(path, f"a table of {length} bytes in a file of {size}")
    try:
        table = json.loads(file.read(length), object_pairs_hook=_unique)
        table.pop("__metadata__", None)
        order = sorted(table.items(), key=lambda item: item[1]["data_offsets"])
        tensors: dict[str, Tensor] = {}
        position = 0
        for name, entry in order:
            dtype, shape, (begin, end) = (
                _DTYPES[entry["dtype"]],
                entry["shape"],
                entry["data_offsets"],
            )
            whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            if not whole or begin != position or end - begin != math.prod(shape) * dtype.itemsize:
                raise _damaged(path, f"the shape or place of {shown(name)}")
            if end > size - 8 - length:
                raise _damaged(path, f"{shown(name)}, which ends beyond the file")
            content = bytearray(file.read(end - begin))
            flat = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
            tensors[name], position = flat.reshape(shape), end
    except CheckpointError:
        raise
    except Exception as error:  # a table of anything: no JSON, no such dtype, nested too deeply
        raise _damaged(path, f"its table ({type(error).__name__})") from error
    if position != size - 8 - length:
        raise _damaged(path, f"{size - 8 - length - position} bytes that belong to no tensor")
    return {name: tensors[name] for name in table}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"expected a whole safetensors file, got {path} with damage in {what}: it is truncated or "
        "of another format\nget a new copy of it"
    )
