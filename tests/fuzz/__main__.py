"""The long campaign: many inputs for every reader, and many command lines.

    python -m tests.fuzz --examples 20000 --lines 2000 --seed 1

Every reader has a process of its own, so that a crash is a finding as well. Prints a table and each
finding with its input; `--write FILE` writes the table as Markdown. Exits 1 where there are any.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Every input has a folder of its own: in memory, it costs a tenth of that on a disk.
    if os.path.isdir("/dev/shm"):
        os.environ.setdefault("TMPDIR", "/dev/shm")

from tests.fuzz.every import COMMAND_LINES, NAMES, READERS
from tests.fuzz.harness import Tally, campaign

KINDS = ("traceback", "unexpected", "hang", "memory", "crash")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=20_000, help="inputs of each reader")
    parser.add_argument("--lines", type=int, default=2_000, help="command lines")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--jobs", type=int, default=1, help="readers that read at the same time")
    parser.add_argument("--only", choices=NAMES, nargs="+", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file of the table")
    parser.add_argument("--tally", type=Path, help=argparse.SUPPRESS)  # this is such a process
    asked = parser.parse_args()
    if asked.tally is not None:
        reader = next(r for r in READERS if r.name == asked.only[0])
        tally = campaign(reader, asked.examples, asked.seed)
        asked.tally.write_text(json.dumps(dataclasses.asdict(tally)))
        return 0

    def read(name: str) -> Tally:
        count = asked.lines if name == COMMAND_LINES else asked.examples
        return _apart(name, count, asked.seed)

    tallies = []
    with ThreadPoolExecutor(max_workers=asked.jobs) as pool:
        for tally in pool.map(read, asked.only or NAMES):
            tallies.append(tally)
            speed = tally.inputs / tally.seconds if tally.seconds else 0
            print(f"{_row(tally)} {speed:.0f}/s", flush=True)
            for text in tally.findings.values():
                print(f"    {text}", flush=True)
    if asked.write is not None:
        asked.write.write_text(table(tallies), encoding="utf-8")
    return int(any(tally.findings for tally in tallies))


def table(tallies: list[Tally]) -> str:
    """Return the tallies as a Markdown table."""
    heads = ["reader", "inputs", "refused", "seed", *KINDS]
    return (
        "\n".join([f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *map(_row, tallies)])
        + "\n"
    )


def _row(tally: Tally) -> str:
    found = [tally.counts.get(kind, 0) for kind in KINDS]
    cells = [tally.name, f"{tally.inputs:,}", f"{tally.refused:,}", tally.seed, *found]
    return f"| {' | '.join(map(str, cells))} |"


def _apart(name: str, count: int, seed: int) -> Tally:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tally.json"
        numbers = ["--examples", str(count), "--seed", str(seed)]
        ended = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", "--only", name, *numbers, "--tally", str(file)],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace",
        )  # fmt: skip
        if file.is_file():
            return Tally(**json.loads(file.read_text()))
    text = f"crash: exit code {ended.returncode}: {ended.stderr[-2000:]}"
    return Tally(name, seed, count, findings={"crash": text}, counts={"crash": 1})


if __name__ == "__main__":
    sys.exit(main())
