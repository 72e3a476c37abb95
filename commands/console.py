"""What a command says: text for people or JSON for machines, and progress where somebody looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[int, int], None]


class Console:
    """Standard output of one command.

    Args:
        as_json: Whether the result is printed as JSON instead of text.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def say(self, text: str) -> None:
        """Print a line for people; nothing with `--json`."""
        if not self.as_json:
            print(text, flush=True)

    def result(self, content: dict[str, Any]) -> None:
        """Print the result for machines; nothing without `--json`."""
        if self.as_json:
            from isoloss.records.runs import to_json

            print(json.dumps(to_json(content), indent=2, allow_nan=False), flush=True)

    def of_part(self) -> Console:
        """Return the console of a part of this command: its result is not printed by itself."""
        return _Silent(as_json=True) if self.as_json else self

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Show a bar with rate and remaining time on a terminal; None elsewhere.

        Yields:
            A callback `progress(done, total)`.
        """
        if self.as_json or not sys.stderr.isatty():
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


class _Silent(Console):
    """Says nothing: the whole command prints one result."""

    def result(self, content: dict[str, Any]) -> None:
        """Print nothing."""
