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
from isoloss.records.runs import RunError, run_folders

WHAT = ("models", "data", "optimizers", "schedules", "losses", "augmentations", "runs")


@dataclass(frozen=True, kw_only=True)
class Listing(Printed):
    """What to list."""

    what: str = option(help="What to list.", choices=WHAT, positional=True, metavar="|".join(WHAT))


@command(Listing, Results)
def list_(listing: Listing, folders: Results) -> None:
    """List what can be asked for, or the runs that are there, a line each."""
    console, what = Console(listing.as_json), listing.what
    if what == "runs":
        rows = _runs(folders.results)
    else:
        from isoloss.experiments.listing import entries

        rows = entries(what)
    if not rows:
        console.say(f"no runs in {folders.results}; make one with: python cli.py train")
    columns = list(rows[0]) if rows else []
    widths = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    if rows:
        console.say("  ".join(f"{column:{widths[column]}}" for column in columns).rstrip())
    for row in rows:
        console.say("  ".join(f"{row[c]!s:{widths[c]}}" for c in columns).rstrip())
    console.result({what: rows})


def _runs(results: Path) -> list[dict[str, Any]]:
    rows = []
    for run in run_folders(results):
        row = {"name": run.name, "status": "", "dataset": "", "model": "", "optimizer": ""}
        row["test accuracy"] = ""
        try:
            config = run.config()
            row |= {key: str(config.get(key, "")) for key in ("dataset", "model", "optimizer")}
            row["status"] = run.status
            if (run.path / "evaluation.json").is_file():
                test = run.evaluation()["splits"].get("test", {"accuracy": None})
                if test["accuracy"] is not None:
                    row["test accuracy"] = f"{100 * test['accuracy']:.2f} %"
        except RunError as error:
            problem = str(error).splitlines()[0]
            row["status"] = f"{row['status']}, but {problem}" if row["status"] else problem
        rows.append(row)
    return rows
