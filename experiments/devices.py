"""Where to compute and how exactly: names of devices and types, and what memory was held."""

from __future__ import annotations

import os

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
        DeviceError: For a device this machine does not have.
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
    if kind not in present or (index and not index.isdigit()):
        raise OptionError("device", f"expected auto, {', '.join(present)} or cuda:N, got {name!r}")
    if not present[kind]:
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise DeviceError(f"expected a {kind} device, this machine and torch offer: {there}")
    return torch.device(name)


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes; 0 where that is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else 1024 * peak
