"""Who does the independent parts of a measurement: this process, others here, or a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from isoloss.experiments.spreading_settings import Spreading
from isoloss.parallel import Executor, Processes, RayCluster


@dataclass(frozen=True)
class Spread:
    """How work is spread.

    Attributes:
        executor: What does it; None for this process.
        threads: CPU threads of each worker, which a new plan is made for.
        text: Who does it, in words; empty for this process.
    """

    executor: Executor | None
    threads: int
    text: str = ""


def spread(asked: Spreading, device: torch.device, threads: int | None = None) -> Spread:
    """Choose workers and their threads.

    On a CPU `auto` is a worker for each processor, or for as many as the threads of the plan fit
    into; of NVIDIA's GPUs it is one for each, and one of any other accelerator. What is not given
    by a plan is one thread with `auto` and on a cluster, or as many as OMP_NUM_THREADS says, and
    the processors divided by N for N workers.

    Args:
        asked: What was asked for.
        device: Where to compute.
        threads: Of a plan that is stored already.
    """
    here, own = processors(), torch.get_num_threads()
    if asked.workers is None and asked.cluster is None:
        return Spread(None, threads or own)
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    devices = gpus or int(device.type != "cpu")
    count = None if asked.workers in (None, "auto") else int(asked.workers)
    if threads is None:
        threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
        if count is not None and asked.cluster is None:
            threads = min(own, here // count)
        threads = max(1, threads)
    if asked.cluster is not None:
        cluster = RayCluster(asked.cluster, count, threads=threads, gpu=gpus > 0)
        many = "as many workers as the cluster holds" if count is None else f"{count} workers"
        return Spread(cluster, threads, f"{many}, by Ray")
    if count is None:
        count = devices or max(1, here // threads)
    if count == 1:
        return Spread(None, threads)
    one = device.index is None  # not a certain one
    return Spread(Processes(count, gpus if one else 0), threads, f"{count} workers")


def processors() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Let torch compute with that many CPU threads inside, and with as many as before after it."""
    before = torch.get_num_threads()
    if threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
