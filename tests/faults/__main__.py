"""`python -m tests.faults --kills 200`: kill commands at random, and count what was lost by it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

# The tests' folder is no part of the package: the house is imported as it is installed.
from tests.faults.kills import SCENARIOS, SIGNALS, Tally, campaign

HEADS = ("ended before", "lost", "unreadable", "differing", "left over", "failures", "hangs")


def main() -> int:
    """Run the campaign and print its table; 1 where anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="signals to send (200: 30 minutes)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="*", default=(), choices=[one.name for one in SCENARIOS])
    asked = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="isoloss-faults-"))
    tallies = campaign(asked.kills, asked.seed, folder, names=asked.only)
    if all(tally.clean for tally in tallies.values()):
        shutil.rmtree(folder)
    print(f"\n{asked.kills} kills, seed {asked.seed}, {time.monotonic() - began:.0f} s\n")
    print(table(tallies))
    return 0 if all(tally.clean for tally in tallies.values()) else 1


def table(tallies: dict[str, Tally]) -> str:
    """Return the counts of all scenarios as a Markdown table, their sums last."""
    rows = {
        f"`{name}`": [*tally.kills.values(), tally.after, tally.lost, tally.unreadable,
                      tally.differing, tally.leftovers, len(tally.failures), tally.hangs]
        for name, tally in tallies.items()
    }  # fmt: skip
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    heads = [*SIGNALS, *HEADS]
    lines = ["| command | " + " | ".join(heads) + " |", "|---" + "|---:" * len(heads) + "|"]
    lines += [f"| {name} | " + " | ".join(map(str, counts)) + " |" for name, counts in rows.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
