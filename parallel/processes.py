"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from isoloss.parallel.executor import Item, Value, WorkError
from isoloss.parallel.sharing import Hand, share_out
from isoloss.parallel.worker import Answer, Start, Worker

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess


class Processes:
    """Spawned processes of this machine, which end with this one, however it ends.

    A script that uses it has what it runs under `if __name__ == "__main__":`, as its processes
    import it; what they are sent has to be in a module.

    Args:
        workers: How many.
        gpus: How many GPUs they share: the k-th process sees number k modulo `gpus` of those that
            this one sees.
    """

    def __init__(self, workers: int, gpus: int = 0) -> None:
        self.workers, self.gpus = workers, gpus

    def map(
        self,
        recipe: Callable[[], Callable[[Item], Value]],
        items: Sequence[Item],
        name: Callable[[Item], str] = str,
    ) -> Generator[tuple[Item, Value]]:
        """Compute a value for each item; see `Executor.map`."""
        try:
            start = pickle.dumps(Start.here(pickle.dumps(recipe)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise WorkError(
                f"expected a network, loss and data that can be sent to other processes, got one "
                f"that cannot: {error}\ndefine it in a module, not inside a function or notebook"
            ) from error
        yield from share_out(_Spawned(start, self.gpus), self.workers, items, name)


class _Spawned:
    """Starts processes, and waits for them."""

    def __init__(self, start: bytes, gpus: int) -> None:
        self._start, self._gpus, self._started = start, gpus, 0
        # A fork would share the threads' locks.
        self._context = multiprocessing.get_context("spawn")

    def start(self) -> _Process:
        gpu = self._started % self._gpus if self._gpus else None
        self._started += 1
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, gpu), name="isoloss-worker")
        with _without_ctrl_c():
            process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        return _Process(process, ours, self._start)

    def answers(self, hands: Sequence[Hand]) -> Sequence[tuple[Hand, Answer]]:
        known = {hand.pipe: hand for hand in hands if isinstance(hand, _Process)}
        return [(known[pipe], known[pipe].answer()) for pipe in wait(list(known))]  # type: ignore[index]


class _Process:
    """One process and the pipe to it."""

    def __init__(self, process: SpawnProcess, pipe: Connection, start: bytes) -> None:
        self.process, self.pipe = process, pipe
        # It reads this once it has imported what it needs: other processes start meanwhile.
        self._starting = threading.Thread(target=self._hand_over, args=(start,), daemon=True)
        self._starting.start()

    def _hand_over(self, start: bytes) -> None:
        with suppress(OSError):
            self.pipe.send_bytes(start)

    def send(self, chunk: Sequence[tuple[int, Any]]) -> None:
        with suppress(OSError):  # lost: `answer` says so
            self.pipe.send(chunk)

    def answer(self) -> Answer:
        try:
            answer: Answer = self.pipe.recv()
            return answer
        except (EOFError, OSError):
            self.process.join(10)
            code = self.process.exitcode
            how = f"exit code {code}" if code is None or code >= 0 else f"signal {-code}"
            self.end()
            return Answer(lost=f"its process was ended by {how}")

    def end(self) -> None:
        self.process.kill()  # it holds nothing that is not to be computed again
        self.process.join()
        self._starting.join()
        self.pipe.close()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Let a process that is started inside never hear Ctrl-C: whoever started it ends it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, gpu: int | None) -> None:
    """Answer until the other end closes."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    os.dup2(2, 1)  # standard output is for results, which others write
    if gpu is not None:
        name = "CUDA_VISIBLE_DEVICES"
        seen = os.environ.get(name, "")
        os.environ[name] = seen.split(",")[gpu] if seen else str(gpu)
    worker = Worker()
    with suppress(EOFError, OSError):
        pipe.send(worker.begin(pickle.loads(pipe.recv_bytes())))
        while True:
            pipe.send(worker.compute(pipe.recv()))


def end_with_parent() -> None:
    """Let this process, one that multiprocessing started, end when the one that started it ends.

    Also where that one is killed by SIGKILL, which none of its own code can answer.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()
