"""What a command says: text for people or JSON for machines, and progress where somebody looks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from isoloss.experiments.reporting import Cost, Reporter
from isoloss.records.json_text import to_json
from isoloss.records.progress import Progress


class Console(Reporter):
    """Standard output of one command; of rank 0 alone where several processes work together.

    Args:
        as_json: Whether the result is printed as JSON instead of text.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.speaks = os.environ.get("RANK", "0") == "0"

    def say(self, text: str) -> None:
        """Print a line for people; nothing with `--json`."""
        if self.speaks and not self.as_json:
            print(text, flush=True)

    def result(self, content: dict[str, Any]) -> None:
        """Print the result for machines; nothing without `--json`."""
        if self.speaks and self.as_json:
            print(json.dumps(to_json(content), indent=2, allow_nan=False), flush=True)

    def cost(self, cost: Cost) -> None:
        """Print what some work would take."""
        each = 1000 * cost.seconds / cost.units
        file = f"; file {cost.file_bytes / 2**20:.1f} MiB" if cost.file_bytes else ""
        self.say(
            f"about {cost.seconds:.0f} s for {cost.units} {cost.unit} of {each:.3g} ms; "
            f"peak memory {cost.memory_bytes / 2**20:.0f} MiB{file}"
        )
        self.result(
            {
                "seconds": cost.seconds,
                cost.unit: cost.units,
                "peak_memory_bytes": cost.memory_bytes,
                "file_bytes": cost.file_bytes,
            }
        )

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Show a bar with rate and remaining time on a terminal; None elsewhere.

        Yields:
            A callback `progress(done, total)`.
        """
        if self.as_json or not self.speaks or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
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
        with Progress(*columns, console=RichConsole(stderr=True)) as bar:
            task = bar.add_task(description, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
