"""`list`: what can be asked for, and what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Printed
from isoloss.experiments.options import option
from isoloss.experiments.settings import Results

WHAT = ("models", "data", "optimizers", "schedules", "losses", "augmentations", "runs")


@dataclass(frozen=True, kw_only=True)
class Listing(Printed):
    """What to list."""

    what: str = option(help="What to list.", choices=WHAT, positional=True, metavar="|".join(WHAT))


@command(Listing, Results)
def list_(listing: Listing, folders: Results) -> None:
    """List what can be asked for, or the runs that are there, a line each."""
    console, what = Console(listing.as_json), listing.what
    rows = _runs(folders.results) if what == "runs" else _entries(what)
    if not rows:
        console.say(f"no runs in {folders.results}; make one with: python cli.py train")
    columns = list(rows[0]) if rows else []
    widths = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    if rows:
        console.say("  ".join(f"{column:{widths[column]}}" for column in columns).rstrip())
    for row in rows:
        console.say("  ".join(f"{row[c]!s:{widths[c]}}" for c in columns).rstrip())
    console.result({what: rows})


def _entries(what: str) -> list[dict[str, Any]]:
    if what == "models":
        return _models()
    if what == "data":
        from isoloss.datasets import DATASETS

        return [
            {
                "name": entry.usage,
                "default model": entry.facts["default_model"],
                "description": entry.description,
            }
            for entry in DATASETS
        ]
    from isoloss.datasets import AUGMENTATIONS
    from isoloss.trainers.losses import LOSSES
    from isoloss.trainers.optimizers import OPTIMIZERS
    from isoloss.trainers.schedules import SCHEDULES

    registry = {
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
        "losses": LOSSES,
        "augmentations": AUGMENTATIONS,
    }[what]
    return [{"name": entry.name, "description": entry.description} for entry in registry]


def _models() -> list[dict[str, Any]]:
    """Networks as they are by default; the receptive field in pixels, where it applies."""
    from isoloss.models import MODELS, default_facts

    rows = []
    for entry in MODELS:
        facts = default_facts(entry.name)
        field = "" if facts is None or facts.receptive_field is None else facts.receptive_field
        rows.append(
            {
                "name": entry.usage,
                "parameters": "" if facts is None else f"{facts.parameters:,}",
                "field": field,
                "description": entry.description,
            }
        )
    return rows


def _runs(results: Path) -> list[dict[str, Any]]:
    from isoloss.records.runs import RunError, list_runs

    rows = []
    for run in list_runs(results):
        row = {"name": run.name, "status": "", "dataset": "", "model": "", "optimizer": ""}
        row["test accuracy"] = ""
        try:
            config = run.config()
            row |= {key: str(config.get(key, "")) for key in ("dataset", "model", "optimizer")}
            row["status"] = run.status
            test = run.evaluation()["splits"]["test"]
            if test["accuracy"] is not None:
                row["test accuracy"] = f"{100 * test['accuracy']:.2f} %"
        except RunError as error:
            row["status"] = row["status"] or str(error).splitlines()[0]
        rows.append(row)
    return rows
