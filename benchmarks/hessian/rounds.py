"""Contenders in processes of their own, taking turns."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.hessian.peers import isoloss
from benchmarks.hessian.subject import KINDS, Settings, references, stored, vector

OURS = "isoloss"
# glibc's allocator then keeps large blocks, and needs no page faults to hand them out again.
TUNED = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
Seconds = tuple[float, float]  # of the clock, and of the process's processor time


@dataclass(frozen=True)
class Row:
    """What a contender took, in seconds, and how far it was off; `note` where it did not run."""

    kind: str
    contender: str
    first: float | None = None
    later: tuple[float, float, float] | None = None  # median, smallest, largest
    ratio: tuple[float, float, float] | None = None  # of the contender's times to isoloss's
    cpu: tuple[float, float, float] | None = None  # the same of processor time
    error: float | None = None
    products: int | None = None
    memory: int | None = None  # largest of the process so far, in bytes
    note: str = ""

    def text(self) -> str:
        """Return a line of the table."""
        if self.note:
            return f"{self.contender:26} {self.note}"
        first = "" if self.first is None else f"{self.first:8.3f}"
        later, ratio, cpu = (
            "" if three is None else f"{three[0]:.3f} ({three[1]:.3f} to {three[2]:.3f})"
            for three in (self.later, self.ratio, self.cpu)
        )
        spent = "" if self.products is None else f"{self.products:5}"
        times = f"{first:>8} {later:>26} {ratio:>26} {cpu:>26}"
        memory = "" if self.memory is None else f"{self.memory / 2**30:9.1f}"
        return f"{self.contender:26} {times} {self.error:9.1e} {memory} {spent:>8}"


def of_products(
    contenders: Sequence[str], settings: Settings, rounds: int, kinds: Sequence[str], seconds: float
) -> list[Row]:
    """Print and return a row a kind and contender: one first product, then one each round.

    After so many seconds no further round is begun.
    """
    size, name = _size(settings), f"{settings.source()}, {_fingerprint(settings)}, {kinds}"
    exact = stored(name, lambda: references(settings, vector(size), kinds))
    began = time.perf_counter()
    found = []
    with _workers(contenders, settings) as workers:
        for kind in kinds:
            print(f"\n{kind}: {settings.source()}\n{_head()}", flush=True)
            first = {name: worker.ask(kind, 0) for name, worker in workers.items()}
            times: dict[str, list[Seconds]] = {name: [] for name in workers}
            for index in range(1, rounds + 1):
                if index > 1 and time.perf_counter() - began > seconds:
                    break
                for name, worker in workers.items():
                    if not isinstance(first[name], str):
                        times[name].append(worker.ask(kind, index).seconds)
            for name, answer in first.items():
                what = f"{kind}: {settings.source()}"
                if isinstance(answer, str):
                    row = Row(what, name, note=answer)
                else:
                    error = answer.result.double() - exact[kind]
                    row = Row(what, name, answer.seconds[0], *_times(times[name], times[OURS]))
                    row = replace(row, error=float(error.norm() / exact[kind].norm()))
                    row = replace(row, memory=answer.memory)
                found.append(row)
                print(row.text(), flush=True)
    return found


def of_numbers(
    kind: str, contenders: Sequence[str], settings: Settings, rounds: int, exact: Sequence[float]
) -> list[Row]:
    """Print and return a row for each contender that computes eigenvalues, or a density.

    Args:
        kind: `"eigenvalues"` or `"density"`.
        contenders: Their names.
        settings: What of.
        rounds: How often.
        exact: What the errors are of, the largest one first.
    """
    print(f"\n{kind}: {settings.source()}\n{_head()}", flush=True)
    with _workers(contenders, settings) as workers:
        answers: dict[str, list[Any]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                answers[name].append(worker.ask(kind, 0))
    found = []
    for name, several in answers.items():
        what = f"{kind}: {settings.source()}"
        if isinstance(several[0], str):
            row = Row(what, name, note=several[0])
        else:
            times = _times([a.seconds for a in several], [a.seconds for a in answers[OURS]])
            values, products = several[0].result
            pairs = zip(sorted(values, reverse=True), exact, strict=True)
            error = max(abs(a - b) for a, b in pairs) / abs(exact[0])
            row = Row(what, name, None, *times, error, products, memory=several[-1].memory)
        found.append(row)
        print(row.text(), flush=True)
    return found


def largest_eigenvalues(settings: Settings, count: int) -> list[float]:
    """Return eigenvalues in float64, computed once."""
    name = f"eigenvalues, {count}, {settings.source()}, {_fingerprint(settings)}"
    return stored(name, lambda: isoloss.exact_eigenvalues(settings, count))


def peer_versions() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    found = {}
    for name in ("curvlinops-for-pytorch", "pyhessian", "hessian-eigenthings"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _size(settings: Settings) -> int:
    return sum(p.numel() for p in settings.network().parameters())


def _fingerprint(settings: Settings) -> float:
    """Return what changes where network or data do."""
    weights = sum(float(p.double().square().sum()) for p in settings.network().parameters())
    return weights + float(settings.data[0].double().square().sum())


class _Answer(NamedTuple):
    """What a contender took, what it found, and the largest memory of its process, in bytes."""

    seconds: Seconds
    result: Any
    memory: int | None


class _Worker:
    """A contender in its process."""

    def __init__(self, name: str, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        name, *tuned = name.split("+")
        self.process = context.Process(target=_serve, args=(other, name, settings), daemon=True)
        before = dict(os.environ)
        os.environ.update(TUNED if tuned else {})  # read by the allocator as a process begins
        try:
            self.process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        other.close()

    def ask(self, kind: str, index: int) -> Any:
        """Return an `_Answer`, or in words why there is none."""
        self._pipe.send((kind, index))
        return self._pipe.recv()

    def end(self) -> None:
        """Let the process end."""
        self._pipe.close()
        self.process.join(10)


@contextmanager
def _workers(contenders: Sequence[str], settings: Settings) -> Iterator[dict[str, _Worker]]:
    workers = {name: _Worker(name, settings) for name in contenders}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.end()


def _serve(pipe: Connection, name: str, settings: Settings) -> None:
    """Answer until the other end closes."""
    torch.set_num_threads(settings.threads)
    module = import_module(f"benchmarks.hessian.peers.{name}")
    size, products = _size(settings), None
    while True:
        try:
            kind, index = pipe.recv()
        except EOFError:
            return
        try:
            if kind in KINDS and products is None:
                products = module.products(settings)
            v = vector(size, index)
            start, spent = time.perf_counter(), time.process_time()
            if kind in KINDS:
                result = products[kind](v) if kind in products else None
            else:
                result = getattr(module, kind)(settings) if hasattr(module, kind) else None
            seconds = time.perf_counter() - start, time.process_time() - spent
            result = result.detach() if isinstance(result, torch.Tensor) else result
        except Exception as error:  # a peer that does not run is told of, whatever the reason
            pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        pipe.send("has none" if result is None else _Answer(seconds, result, _largest_memory()))


def _largest_memory() -> int | None:
    """Return the most that this process has held, in bytes; None where Linux does not tell.

    Not `getrusage`, whose value a process begins with is that of the one which started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


def _times(own: Sequence[Seconds], ours: Sequence[Seconds]) -> Sequence[tuple[float, float, float]]:
    """Return seconds, their ratios, and ratios of processor seconds, over the rounds."""
    pairs = list(zip(own, ours, strict=True))
    return [_three([a[0] for a in own]), *(_three([a[i] / b[i] for a, b in pairs]) for i in (0, 1))]


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _head() -> str:
    times = f"{'first':>8} {'later, s':>26} {'ratio':>26} {'ratio, processor':>26}"
    return f"{'contender':26} {times} {'error':>9} {'GiB':>9} products"
