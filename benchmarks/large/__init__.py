"""Peak memory of the largest eigenvalue and of a surface of a large network, in its weights.

Of a decoder of the shape of GPT-2 small (124 million parameters, tied embeddings) with random
weights, in float32 on a CPU, on random tokens. Each measurement has a process of its own, whose
largest resident size is compared with that before the network was made:

- `eigenvalue`: the largest eigenvalue of the Hessian, by a Lanczos basis of 4 vectors;
- `surface`: loss on a plane of two random, filter-normalised directions.

`peak` counts the network itself, which the caller holds, `above` does not; both are multiples of
the weights' bytes, like `after`, the size at the end. Linux alone tells the largest resident size.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.large.measuring import MEASUREMENTS, Settings, measure
from isoloss.records.files import write_text
from isoloss.records.provenance import git_commit, versions

FILE = Path(__file__).resolve().parents[2] / "results" / "benchmarks" / "large.json"


def main(arguments: Sequence[str]) -> None:
    """Print a line a measurement, and append it to a JSON file as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks large")
    parser.add_argument("measurements", nargs="*", help=f"of {', '.join(MEASUREMENTS)}; all")
    for name, default in vars(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default,
                            help=f"{default} where not given")  # fmt: skip
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file, a list of runs")
    asked = vars(parser.parse_args(arguments))
    out, names = asked.pop("out"), asked.pop("measurements") or list(MEASUREMENTS)
    if wrong := sorted(set(names) - set(MEASUREMENTS)):
        parser.error(f"expected measurements among {', '.join(MEASUREMENTS)}, got {wrong[0]}")
    settings = Settings(**asked)
    for name in names:
        load = os.getloadavg()[0]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found: dict[str, Any] = pool.apply(measure, (name, settings))
        print("  ".join(f"{key} {_text(value)}" for key, value in found.items()), flush=True)
        run = {
            "measurement": name, **found, "settings": vars(settings), "load": load,
            "cores": os.cpu_count(), "git": git_commit(), "versions": versions(),
        }  # fmt: skip
        known = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
        write_text(out, json.dumps([*known, run], indent=1, sort_keys=True) + "\n")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
