"""The tables of docs/trust.md, made anew: kills, fuzzing, hostile files.

    python -m tests.trust --kills 200 --examples 20000 --lines 2000 --seed 0

Each table stands between two markers, with the numbers that make it again. `--only` makes some of
them. Exits 1 where anything went wrong, after the document was written.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.faults.__main__ import table as kills_table
from tests.faults.kills import campaign
from tests.trust import hostile

HOUSE = Path(__file__).resolve().parents[2]
DOCUMENT = HOUSE / "docs" / "trust.md"
PARTS = ("kills", "fuzz", "hostile")


def main() -> int:
    """Make the tables and put them into the document."""
    parser = argparse.ArgumentParser(prog="python -m tests.trust", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="signals to send")
    parser.add_argument("--examples", type=int, default=20_000, help="inputs of each reader")
    parser.add_argument("--lines", type=int, default=2_000, help="command lines")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    asked = parser.parse_args()
    wrong = []
    if "kills" in asked.only:
        with tempfile.TemporaryDirectory(prefix="isoloss-faults-") as folder:
            tallies = campaign(asked.kills, asked.seed, Path(folder))
        if not all(tally.clean for tally in tallies.values()):
            wrong.append("kills")
        note = f"`python -m tests.faults --kills {asked.kills} --seed {asked.seed}`"
        put("kills", f"{note}:\n\n{kills_table(tallies)}")
    if "fuzz" in asked.only:
        numbers = f"--examples {asked.examples} --lines {asked.lines} --seed {asked.seed}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.md"
            line = [sys.executable, "-m", "tests.fuzz", *numbers.split(), "--write", str(file)]
            if subprocess.run(line, cwd=HOUSE).returncode:
                wrong.append("fuzz")
            put("fuzz", f"`python -m tests.fuzz {numbers}`:\n\n{file.read_text(encoding='utf-8')}")
    if "hostile" in asked.only:
        rows = hostile.read_all()
        for row in rows:
            for what in [*row.executed, *row.elsewhere]:
                print(f"{row.name}: {what}", file=sys.stderr)
        if not all(row.clean for row in rows):
            wrong.append("hostile")
        put("hostile", hostile.table(rows))
    if wrong:
        print(f"something went wrong: {', '.join(wrong)}; see {DOCUMENT}", file=sys.stderr)
    return int(bool(wrong))


def put(part: str, content: str, document: Path = DOCUMENT) -> None:
    """Write a part of the document between its markers."""
    text = document.read_text(encoding="utf-8")
    begin, end = (f"<!-- {mark} {part} -->\n" for mark in ("begin", "end"))
    before, rest = text.split(begin)
    _, after = rest.split(end)
    document.write_text(f"{before}{begin}\n{content}\n{end}{after}", encoding="utf-8")


def stored(part: str, document: Path = DOCUMENT) -> str:
    """Return a part of the document as it is."""
    text = document.read_text(encoding="utf-8")
    begin, end = (f"<!-- {mark} {part} -->\n" for mark in ("begin", "end"))
    return text.split(begin)[1].split(end)[0].strip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
