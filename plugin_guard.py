"""Global state that a plug-in's code may change, put back when it is done.

Research code seeds generators, switches gradients off or makes double precision the default where
it is imported, and all of that holds for the whole process. It is undone after a plug-in was
imported and after it built something; what it does in a forward pass is its own.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_inside = False


@contextmanager
def undone() -> Iterator[None]:
    """Put back default dtype and device, gradients, precision, threads and generators afterwards.

    Within another such block nothing is put back before that ends: a data set may seed what it
    draws from while it is read.
    """
    global _inside
    if _inside:
        yield
        return
    states = [(get(), get, put) for get, put in _states()]
    _inside = True
    try:
        yield
    finally:
        _inside = False
        for before, get, put in states:
            if not _same(get(), before):
                put(before)


def _states() -> list[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Return how each state is read and put back."""
    import numpy as np  # not needed before there is a plug-in, nor is torch
    import torch

    states: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
        (lambda: torch.empty(0).device, _put_device),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        (torch.get_rng_state, torch.set_rng_state),
        (random.getstate, random.setstate),
        (_numpy_generator, _put_numpy_generator),
        (np.geterr, lambda before: np.seterr(**before)),
    ]
    if torch.cuda.is_initialized():
        states.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    return states


def _numpy_generator() -> Any:
    # Numpy imports this part of it when it is first asked for.
    loaded = sys.modules.get("numpy.random")
    return None if loaded is None else loaded.get_state()


def _put_numpy_generator(before: Any) -> None:
    import numpy as np

    if before is None:
        np.random.seed()  # noqa: NPY002, the global generator as it is where nobody seeded it
    else:
        np.random.set_state(before)  # noqa: NPY002, likewise


def _put_device(device: Any) -> None:
    import torch

    # None is the CPU without a function mode around every call.
    torch.set_default_device(None if device.type == "cpu" else device)


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    equal = a == b
    return bool(equal.all()) if hasattr(equal, "all") else bool(equal)
