"""Several workers on one surface: what they take here, and a simulation of up to 4,096 of them.

Of the network `fashion-cnn` in float32 on 1,000 random images, one thread a worker.

- `start`: seconds until a first worker is ready, and until a second is that starts with it;
- `message`: milliseconds of a chunk of one number there and its square back;
- `point`: seconds of a point, in one process that computes alone;
- `speed-up`: seconds of one process alone, over those of two workers that share the same points,
  in turns, start-up left out; beside it that of two processes which have a half each from the
  beginning, which is what the machine allows; `fastest` is of the shortest time of each.

The simulation runs the very code that shares items out, with workers in simulated time on a surface
of 201 x 201 points: `efficiency` is the time that all points take, over the time that the workers
had together, counted in their speeds, until the last point was there.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.scale import measured, simulated
from isoloss.records.files import write_text
from isoloss.records.provenance import git_commit, versions

FILE = Path(__file__).resolve().parents[2] / "results" / "benchmarks" / "scale.json"


def main(arguments: Sequence[str]) -> None:
    """Print the tables, and append the run to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale")
    parser.add_argument("--points", type=int, default=40, help="of a surface here; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="in which the ways take turns")
    parser.add_argument("--ray", action="store_true", help="beside processes, actors of Ray")
    parser.add_argument("--largest", type=int, default=4096, help="workers simulated; 0: none")
    parser.add_argument("--rules", action="store_true", help="simulate other chunks as well")
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file, a list of runs")
    asked = parser.parse_args(arguments)
    if asked.points < 0 or asked.rounds < 1 or asked.largest < 0:
        parser.error("expected counts")
    load = [os.getloadavg()[0]]
    here = measured.all_of_it(asked.points, asked.rounds, asked.ray) if asked.points else []
    simulations = list(simulated.table(asked.largest, asked.rules)) if asked.largest else []
    load.append(os.getloadavg()[0])
    print(f"load of the machine: {load[0]:.1f} before, {load[1]:.1f} after, {os.cpu_count()} cores")
    run = {
        "measured": [asdict(row) for row in here],
        "simulated": [asdict(row) for row in simulations],
        "points": asked.points, "rounds": asked.rounds, "load": load, "cores": os.cpu_count(),
        "git": git_commit(), "versions": versions(),
    }  # fmt: skip
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else []
    write_text(asked.out, json.dumps([*known, run], indent=1, sort_keys=True) + "\n")
