"""How long work tells how far it is, and the bar that shows it to whoever asks for one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

Progress = Callable[[int, int], None]  # (done, total)
StageProgress = Callable[[str, int, int], None]  # (stage, done, total)

_EVERY = 0.5  # seconds between two states of a line of text


@contextmanager
def bar(description: str) -> Iterator[Progress]:
    """Show on standard error how far work is, with rate and time left.

    A bar on a terminal; elsewhere, in a notebook too, a line of text that is written over.

    Yields:
        A callback `progress(done, total)`.
    """
    with _drawn(description) if sys.stderr.isatty() else _written(description) as progress:
        yield progress


@contextmanager
def shown(progress: Progress | bool | None, description: str) -> Iterator[Progress | None]:
    """Yield what to report to: a callback as it is, a bar for True, None for None and False."""
    if callable(progress):
        yield progress
    elif progress:
        with bar(description) as opened:
            yield opened
    else:
        yield None


@contextmanager
def stage_bars(
    show: Callable[[str], AbstractContextManager[Progress | None]],
) -> Iterator[StageProgress]:
    """Accompany each stage of some work by a progress of its own, which `show` opens."""
    with ExitStack() as bars:
        current: dict[str, Progress | None] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in current:
                bars.close()
                current.clear()
                current[stage] = bars.enter_context(show(stage))
            progress = current[stage]
            if progress is not None:
                progress(done, total)

        yield report


def duration(seconds: float) -> str:
    """Return a time in words of one unit: "40 s", "4 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def _written(description: str) -> Iterator[Progress]:
    began = last = time.monotonic()
    waiting = ""  # the newest state, where it is not written yet

    def write(text: str) -> None:
        print(f"\r{text:<79}", end="", file=sys.stderr, flush=True)

    def progress(done: int, total: int) -> None:
        nonlocal last, waiting
        now = time.monotonic()
        taken = now - began
        left = duration(taken / max(done, 1) * (total - done))
        waiting = f"{description}: {done}/{total}, {duration(taken)}, {left} left"
        if done >= total or now - last >= _EVERY:
            write(waiting)
            last, waiting = now, ""

    try:
        yield progress
    finally:
        if waiting:
            write(waiting)
        if waiting or last > began:
            print(file=sys.stderr, flush=True)


@contextmanager
def _drawn(description: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.2f}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as drawn:
        task = drawn.add_task(description, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)
