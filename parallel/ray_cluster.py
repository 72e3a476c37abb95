"""Workers that are actors of Ray, on this machine or on a cluster (extra `cluster`)."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from isoloss.parallel.code import HOUSE
from isoloss.parallel.executor import Item, Value, WorkError
from isoloss.parallel.sharing import Hand, share_out
from isoloss.parallel.worker import Answer, Start

# Seconds without any worker after which it is said that the cluster has no room.
_PATIENCE = 60.0


class RayCluster:
    """Actors of Ray, which end with this process.

    Args:
        address: "auto" joins the cluster that `RAY_ADDRESS` or `ray start` on this machine names,
            and where there is none starts Ray here, reachable from this machine alone, without
            dashboard and usage statistics, and ends it at the end; or HOST:PORT of a running one.
        workers: How many; None for as many as the cluster has GPUs or processors for.
        threads: Processors that each takes.
        gpu: Whether each takes a GPU.

    Raises:
        WorkError: Without Ray.
    """

    def __init__(
        self,
        address: str = "auto",
        workers: int | None = None,
        *,
        threads: int = 1,
        gpu: bool = False,
    ) -> None:
        self.address, self.workers, self.threads, self.gpu = address, workers, threads, gpu

    def map(
        self,
        recipe: Callable[[], Callable[[Item], Value]],
        items: Sequence[Item],
        name: Callable[[Item], str] = str,
    ) -> Generator[tuple[Item, Value]]:
        """Compute a value for each item; see `Executor.map`."""
        with _connected(self.address, self._resources()) as ray:
            try:
                start = Start.here(ray.cloudpickle.dumps(recipe))
            except Exception as error:
                raise WorkError(
                    f"expected a network, loss and data that can be sent to other machines, got "
                    f"one that cannot: {error}\ndefine it in a module"
                ) from error
            crew = _Actors(ray, ray.put(start), self.threads, self.gpu)
            yield from share_out(crew, self.workers or self._room(ray), items, name)

    def _resources(self) -> dict[str, int]:
        """Return what a Ray that is started here offers: what was asked for, or what there is."""
        if self.workers is None:
            return {}
        return {"num_cpus": self.workers * self.threads}

    def _room(self, ray: Any) -> int:
        there = ray.cluster_resources()
        found = there.get("GPU", 0) if self.gpu else there.get("CPU", 0) // self.threads
        return max(1, int(found))


@contextmanager
def _connected(address: str, resources: dict[str, int]) -> Iterator[Any]:
    """Yield Ray, connected; what was begun here is ended."""
    joins = address != "auto" or _named_by_environment()
    if not joins:
        # The one way to bind all of Ray's sockets to this machine; read when Ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise WorkError(
            "`cluster`: expected Ray, which is not installed here\n"
            "install it: pip install 'isoloss[cluster]', or compute on this machine with `workers`"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    asked: dict[str, Any] = {"address": address} if joins else {"address": "local", **resources}
    if not joins:
        asked |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    with _handler_kept():
        try:
            ray.init(**asked, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise WorkError(
                f"`cluster`: expected Ray at {address}, got none: {reason}\n"
                "start it with `ray start --head`, or compute on this machine with `workers`"
            ) from error
    try:
        if not joins and not ray.util.get_node_ip_address().startswith("127."):
            warnings.warn("Ray was imported before and listens on the network", stacklevel=2)
        yield ray
    finally:
        ray.shutdown()


def _named_by_environment() -> bool:
    folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp")
    return bool(os.environ.get("RAY_ADDRESS")) or (folder / "ray" / "ray_current_cluster").exists()


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Keep a handler of SIGTERM, which Ray replaces by one that leaves the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _Actors:
    """Starts actors, and waits for them."""

    def __init__(self, ray: Any, start: Any, threads: int, gpu: bool) -> None:
        self._ray, self._start, self._patient = ray, start, True
        options = {"num_cpus": threads, "num_gpus": int(gpu), "max_restarts": 0}
        self._actor = ray.remote(_actor_class()).options(**options)

    def start(self) -> _Actor:
        return _Actor(self._ray, self._actor.remote(str(HOUSE)), self._start)

    def answers(self, hands: Sequence[Hand]) -> Sequence[tuple[Hand, Answer]]:
        known = {hand.pending: hand for hand in hands if isinstance(hand, _Actor)}
        there, _ = self._ray.wait(list(known), timeout=_PATIENCE if self._patient else None)
        if not there:
            self._patient = False
            warnings.warn("no worker yet: the cluster may have no room for any", stacklevel=4)
            return []
        self._patient = False
        there, _ = self._ray.wait(list(known), num_returns=len(known), timeout=0)
        return [(known[pending], known[pending].answer()) for pending in there]


class _Actor:
    """One actor, and the answer it owes."""

    def __init__(self, ray: Any, actor: Any, start: Any) -> None:
        self._ray, self.actor = ray, actor
        self.pending = actor.begin.remote(start)

    def send(self, chunk: Sequence[tuple[int, Any]]) -> None:
        self.pending = self.actor.compute.remote(chunk)

    def answer(self) -> Answer:
        try:
            answer: Answer = self._ray.get(self.pending)
            return answer
        except self._ray.exceptions.RayError as error:
            self.end()
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return Answer(lost=lines[0] if lines else type(error).__name__)

    def end(self) -> None:
        with suppress(Exception):  # its machine may be gone
            self._ray.kill(self.actor)


def _actor_class() -> type:
    """Return the class of actors, which Ray sends as it is: isoloss need not be found there yet."""

    class IsolossWorker:
        def __init__(self, house: str) -> None:
            import sys
            from importlib.util import module_from_spec, spec_from_file_location
            from pathlib import Path

            # The very code of who sends work, where this machine sees its folder; it need not be
            # installed then.
            if "isoloss" not in sys.modules and Path(house, "__init__.py").is_file():
                spec = spec_from_file_location(
                    "isoloss", f"{house}/__init__.py", submodule_search_locations=[house]
                )
                assert spec is not None
                assert spec.loader is not None
                sys.modules["isoloss"] = module_from_spec(spec)
                spec.loader.exec_module(sys.modules["isoloss"])
            from isoloss.parallel.worker import Worker

            self._worker = Worker()

        def begin(self, start: Any) -> Any:
            return self._worker.begin(start)

        def compute(self, chunk: Any) -> Any:
            return self._worker.compute(chunk)

    return IsolossWorker
