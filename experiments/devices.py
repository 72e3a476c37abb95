"""Where to compute and how exactly: names of devices and types, and what memory was held."""

from __future__ import annotations

import os
import re

import torch

from isoloss.errors import IsolossError
from isoloss.experiments.options import OptionError

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class DeviceError(IsolossError, RuntimeError):
    """A device that this machine does not have."""


def resolve_device(name: str) -> torch.device:
    """Return a device that is there: auto (the fastest), cpu, cuda[:N], xpu or mps.

    Raises:
        OptionError: For a name that is no device.
        DeviceError: For a device this machine does not have, or does not have so many of.
    """
    present = {
        "xpu": torch.xpu.is_available(),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    kind, _, index = name.partition(":")
    if kind not in present or not re.fullmatch(r"[0-9]{0,4}", index) or name.endswith(":"):
        raise OptionError("device", f"expected auto, {', '.join(present)} or cuda:N, got {name!r}")
    if not present[kind]:
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise DeviceError(f"expected a {kind} device, this machine and torch offer: {there}")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    count = torch.xpu.device_count() if kind == "xpu" else count
    if int(index or 0) >= count:
        last = f"{kind} or {kind}:0" + (f" to {kind}:{count - 1}" if count > 1 else "")
        raise DeviceError(f"expected {last}, which is all that this machine has, got {name}")
    return torch.device(kind, int(index)) if index else torch.device(kind)


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes; 0 where that is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else 1024 * peak
