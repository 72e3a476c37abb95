"""Contenders in processes of their own, taking turns."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.hessian.peers import isoloss
from benchmarks.hessian.subject import KINDS, Settings, references, vector

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
    note: str = ""

    def text(self) -> str:
        """Return a line of the table."""
        if self.note:
            return f"{self.contender:18} {self.note}"
        first = "" if self.first is None else f"{self.first:8.3f}"
        later, ratio, cpu = (
            "" if three is None else f"{three[0]:.3f} ({three[1]:.3f} to {three[2]:.3f})"
            for three in (self.later, self.ratio, self.cpu)
        )
        spent = "" if self.products is None else f"{self.products:5}"
        times = f"{first:>8} {later:>26} {ratio:>26} {cpu:>26}"
        return f"{self.contender:18} {times} {self.error:9.1e} {spent}"


def of_products(contenders: Sequence[str], settings: Settings, rounds: int) -> list[Row]:
    """Print and return a row a kind and contender: one first product, then one each round."""
    size = sum(p.numel() for p in settings.network().parameters())
    exact = references(settings, vector(size))
    found = []
    with _workers(contenders, settings) as workers:
        for kind in KINDS:
            print(f"\n{kind}\n{_head()}")
            first = {name: worker.ask(kind, 0) for name, worker in workers.items()}
            times: dict[str, list[Seconds]] = {name: [] for name in workers}
            for index in range(1, rounds + 1):
                for name, worker in workers.items():
                    if not isinstance(first[name], str):
                        times[name].append(worker.ask(kind, index)[0])
            for name, answer in first.items():
                if isinstance(answer, str):
                    found.append(Row(kind, name, note=answer))
                else:
                    error = answer[1].double() - exact[kind]
                    row = Row(kind, name, answer[0][0], *_times(times[name], times["isoloss"]))
                    found.append(replace(row, error=float(error.norm() / exact[kind].norm())))
                print(found[-1].text(), flush=True)
    return found


def of_eigenvalues(contenders: Sequence[str], settings: Settings, rounds: int = 3) -> list[Row]:
    """Print and return a row for each contender that computes the five largest eigenvalues."""
    exact = isoloss.exact_eigenvalues(settings)
    print(f"\neigenvalues: {settings.source()}\n{_head()}")
    with _workers(contenders, settings) as workers:
        answers: dict[str, list[Any]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                answers[name].append(worker.ask("eigenvalues", 0))
    found = []
    for name, several in answers.items():
        if isinstance(several[0], str):
            continue
        times = _times([t for t, _ in several], [t for t, _ in answers["isoloss"]])
        values, products = several[0][1]
        pairs = zip(sorted(values, reverse=True), exact, strict=True)
        error = max(abs(a - b) for a, b in pairs) / abs(exact[0])
        found.append(Row("eigenvalues", name, None, *times, error, products))
        print(found[-1].text(), flush=True)
    return found


def peer_versions() -> dict[str, str]:
    """Return the version of curvlinops where it is installed."""
    try:
        return {"curvlinops-for-pytorch": metadata.version("curvlinops-for-pytorch")}
    except metadata.PackageNotFoundError:
        return {}


class _Worker:
    """A contender in its process."""

    def __init__(self, name: str, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, name, settings), daemon=True)
        self.process.start()
        other.close()

    def ask(self, kind: str, index: int) -> Any:
        """Return (`Seconds`, result), or in words why there is none."""
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
    known: dict[str, Any] | str | None = None
    size = sum(p.numel() for p in settings.network().parameters())
    while True:
        try:
            kind, index = pipe.recv()
        except EOFError:
            return
        if known is None:
            try:
                known = {k: (lambda i, f=f: f(vector(size, i)))
                         for k, f in module.products(settings).items()}  # fmt: skip
                if hasattr(module, "eigenvalues"):
                    known["eigenvalues"] = lambda i: module.eigenvalues(settings)
            except ImportError as error:
                known = f"skipped: {error}"
        if isinstance(known, str) or kind not in known:
            pipe.send(known if isinstance(known, str) else "has none")
            continue
        start, spent = time.perf_counter(), time.process_time()
        result = known[kind](index)
        pipe.send(((time.perf_counter() - start, time.process_time() - spent), result))


def _times(own: Sequence[Seconds], ours: Sequence[Seconds]) -> Sequence[tuple[float, float, float]]:
    """Return seconds, their ratios, and ratios of processor seconds, over the rounds."""
    pairs = list(zip(own, ours, strict=True))
    return [_three([a[0] for a in own]), *(_three([a[i] / b[i] for a, b in pairs]) for i in (0, 1))]


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _head() -> str:
    times = f"{'first':>8} {'later, s':>26} {'ratio':>26} {'ratio, processor':>26}"
    return f"{'contender':18} {times} {'error':>9} products"
