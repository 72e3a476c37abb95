"""Times and errors of curvature products and of the five largest eigenvalues, beside other code.

Of the network `fashion-cnn` in float32, a little trained, on MNIST (ISOLOSS_DATA) or else on the
digits that scikit-learn has. Each contender has a process of its own; they take turns, one at work
at a time, round for round, so that a loaded machine slows all of them. A row a contender:

- `first`: seconds of the first product, which builds what the later ones use;
- `later`: median seconds of the later ones, over the rounds, and their range;
- `ratio`: median, and range, over the rounds of the contender's time over that of `isoloss`;
- `ratio, processor`: the same of processor time, which other people's work does not add to;
- `error`: ||A v - reference|| / ||reference||, the reference in float64 by plain torch.

For the eigenvalues, `products` are products with the Hessian, `error` is the largest error of the
five relative to the first, against those of float64 products at a tolerance of 1e-8.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.hessian import rounds
from benchmarks.hessian.subject import Settings
from isoloss.records.files import write_text
from isoloss.records.provenance import git_commit, versions

FILE = Path(__file__).resolve().parents[2] / "results" / "benchmarks" / "hessian.json"
OURS = ("isoloss", "isoloss_recompute")
PEERS = ("curvlinops", "pyhessian")


def main(arguments: Sequence[str]) -> None:
    """Print a table a kind of product, one of eigenvalues, and append the run to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks hessian")
    parser.add_argument("--peers", action="store_true", help="beside curvlinops, and beside power "
                        "iteration with deflation as in PyHessian")  # fmt: skip
    parser.add_argument("--images", type=int, default=1000, help="of the products")
    parser.add_argument("--eigen-images", type=int, default=200, help="of the eigenvalues; 0: none")
    parser.add_argument("--rounds", type=int, default=7, help="of the later products")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file, a list of runs")
    asked = parser.parse_args(arguments)
    if min(asked.images, asked.rounds, asked.threads) < 1 or asked.eigen_images < 0:
        parser.error("expected 1 image, round and thread or more")
    contenders = OURS + PEERS if asked.peers else OURS
    load = [os.getloadavg()[0]]
    settings = Settings(images=asked.images, threads=asked.threads)
    print(settings.source())
    found = rounds.of_products(contenders, settings, asked.rounds)
    if asked.eigen_images:
        fewer = Settings(images=asked.eigen_images, threads=asked.threads)
        found += rounds.of_eigenvalues(contenders, fewer)
    load.append(os.getloadavg()[0])
    print(f"load of the machine: {load[0]:.1f} before, {load[1]:.1f} after, {os.cpu_count()} cores")
    run = {
        "rows": [asdict(row) for row in found],
        "settings": asdict(settings), "eigen_images": asked.eigen_images, "rounds": asked.rounds,
        "source": settings.source(), "load": load, "cores": os.cpu_count(),
        "git": git_commit(), "versions": {**versions(), **rounds.peer_versions()},
    }  # fmt: skip
    known = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else []
    write_text(asked.out, json.dumps([*known, run], indent=1, sort_keys=True) + "\n")
