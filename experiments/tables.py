"""Tables as text: CSV and Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from isoloss.figures.formatting import one_line


def as_csv(table: Sequence[dict[str, Any]]) -> str:
    """Return rows with the same keys as CSV, a heading first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def as_markdown(table: Sequence[dict[str, str]], notes: Sequence[str]) -> str:
    """Return rows with the same keys as a Markdown table, notes below."""
    heads = list(table[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(_escaped(row[head]) for head in heads) + " |" for row in table]
    lines += [line for note in notes for line in ("", note)]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return a text as a cell of a Markdown table: on one line, its signs no markup."""
    return re.sub(r"([\\|*<`])", r"\\\1", one_line(text))
