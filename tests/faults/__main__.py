"""`python -m tests.faults --kills 200`: kill commands at random, and count what was lost by it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

# The tests' folder is no part of the package: the house is imported as it is installed.
from tests.faults.kills import SCENARIOS, SIGNALS, campaign


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
    heads = [*SIGNALS, "ended before", "lost points", "unreadable", "differing", "left over",
             "failures", "hangs"]  # fmt: skip
    print(f"\n{asked.kills} kills, seed {asked.seed}, {time.monotonic() - began:.0f} s\n")
    print("| command | " + " | ".join(heads) + " |")
    print("|---" + "|---:" * len(heads) + "|")
    for name, tally in tallies.items():
        counts = [*tally.kills.values(), tally.after, tally.lost, tally.unreadable,
                  tally.differing, tally.leftovers, len(tally.failures), tally.hangs]  # fmt: skip
        print(f"| `{name}` | " + " | ".join(map(str, counts)) + " |")
    return 0 if all(tally.clean for tally in tallies.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
