"""Times and errors of the points of a surface, its memory, and whole commands, beside other code.

Of the network `fashion-cnn` in float32, a little trained, on MNIST (ISOLOSS_DATA) or else on the
digits that scikit-learn has. Each contender has a process of its own; they take turns, one at work
at a time, round for round, so that a loaded machine slows all of them. A row a contender:

- `first`: seconds of the first point, with trials and compiling;
- `later`: median seconds of the later ones, over the rounds, and their range;
- `ratio`: median, and range, over the rounds of the contender's time over that of `isoloss`;
- `error`: the largest of |loss - reference| / reference, the reference in float64 by plain torch.

Of whole commands a few points are timed, and all of 51 x 51 are said by what they took.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from benchmarks.surface.measuring import (
    OTHERS,
    OURS,
    of_commands,
    of_memory,
    of_points,
    of_small_commands,
)
from benchmarks.surface.subject import Plane
from isoloss.records.files import write_text
from isoloss.records.provenance import git_commit, versions

FILE = Path(__file__).resolve().parents[2] / "results" / "benchmarks" / "surface.json"
PARTS = ("points", "memory", "commands", "small")


def main(arguments: Sequence[str]) -> None:
    """Print a table of points and lines on the rest, and append the run to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks surface")
    parser.add_argument("--peers", action="store_true", help="beside plain loops, the loop of "
                        "loss-landscape, and loss_landscapes")  # fmt: skip
    parser.add_argument("--contenders", help="names of some, separated by /, for lack of memory")
    parser.add_argument("--no-compile", action="store_true", help="compile nothing")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5, help="of later points")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=10, help="of the grid of whole commands")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas: "
                        + ", ".join(PARTS))  # fmt: skip
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file, a list of runs")
    asked = parser.parse_args(arguments)
    if min(asked.images, asked.rounds, asked.threads) < 1 or asked.side < 2:
        parser.error("expected 1 image, round and thread or more, and a grid of 2 x 2 or more")
    parts = asked.only.split(",")
    known = [name for name in {**OURS, **(OTHERS if asked.peers else {})}
             if not (asked.no_compile and ", compiled" in name)]  # fmt: skip
    if not set(parts) <= set(PARTS):
        parser.error(f"expected parts among {', '.join(PARTS)}, got {asked.only}")
    load = [os.getloadavg()[0]]
    plane = Plane(images=asked.images, threads=asked.threads)
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)  # of the processes that are started
    print(plane.source())
    found: dict[str, object] = {}
    if "points" in parts:
        names = asked.contenders.split("/") if asked.contenders else known
        rows = of_points(plane, asked.rounds, names)
        found["points"] = [asdict(row) for row in rows]
    if "memory" in parts:
        found["memory"] = of_memory(plane)
    if "commands" in parts:
        found["commands"] = of_commands(plane, asked.side, asked.peers, not asked.no_compile)
    if "small" in parts:
        found["small"] = of_small_commands(plane)
    load.append(os.getloadavg()[0])
    print(f"load of the machine: {load[0]:.1f} before, {load[1]:.1f} after, {os.cpu_count()} cores")
    run = {
        **found,
        "settings": asdict(plane), "rounds": asked.rounds, "side": asked.side,
        "source": plane.source(), "load": load, "cores": os.cpu_count(),
        "git": git_commit(), "versions": {**versions(), **_peer_versions()},
    }  # fmt: skip
    earlier = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else []
    write_text(asked.out, json.dumps([*earlier, run], indent=1, sort_keys=True) + "\n")


def _peer_versions() -> dict[str, str]:
    try:
        return {"loss-landscapes": metadata.version("loss-landscapes")}
    except metadata.PackageNotFoundError:
        return {}
