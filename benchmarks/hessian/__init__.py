"""Times and errors of curvature products, eigenvalues and densities, beside other code.

Of the network `fashion-cnn` in float32, a little trained, on MNIST (ISOLOSS_DATA) or else on the
digits that scikit-learn has, and of `resnet20` on CIFAR-10, or else noise. Each contender has a
process of its own; they take turns, one at work at a time, round for round, so that a loaded
machine slows all of them. The peers get batches of 1,000, as people run them; `+tuned` is the same
with an allocator that keeps what is freed. A row a contender:

- `first`: seconds of the first product, which builds what the later ones use;
- `later`: median seconds of the later ones, over the rounds, and their range;
- `ratio`: median, and range, over the rounds of the contender's time over that of `isoloss`;
- `ratio, processor`: the same of processor time, which other people's work does not add to;
- `error`: ||A v - reference|| / ||reference||, the reference in float64 by plain torch;
- `GiB`: the largest memory of the process until then.

For the eigenvalues, to a tolerance of 1e-4, `products` are products with the Hessian, `error` is
the largest error of the five relative to the first, against those of float64 products at a
tolerance of 1e-8. For the density, of 100 Lanczos steps, it is that of the largest node.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.hessian import rounds
from benchmarks.hessian.subject import COUNT, KINDS, Settings
from isoloss.records.files import write_text
from isoloss.records.provenance import git_commit, versions

FILE = Path(__file__).resolve().parents[2] / "results" / "benchmarks" / "hessian.json"
OURS = ("isoloss", "isoloss_recompute")
PEERS = ("curvlinops", "pyhessian", "hessian_eigenthings")
PARTS = ("products", "resnet", "eigenvalues", "density")


def main(arguments: Sequence[str]) -> None:
    """Print a table a kind, and append the run to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks hessian")
    parser.add_argument("--peers", action="store_true", help="beside curvlinops, PyHessian and "
                        "hessian-eigenthings, as they are and tuned")  # fmt: skip
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--contenders", help="names, separated by commas, besides isoloss")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of the products")
    parser.add_argument("--images", type=int, default=10_000, help="of the products")
    parser.add_argument("--resnet-images", type=int, default=512)
    parser.add_argument("--eigen-images", type=int, default=1000)
    parser.add_argument("--density-images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5, help="of the later products")
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no further round "
                        "of products is begun")  # fmt: skip
    parser.add_argument("--long-rounds", type=int, default=1, help="of eigenvalues and densities")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file, a list of runs")
    asked = parser.parse_args(arguments)
    counts = (asked.images, asked.resnet_images, asked.eigen_images, asked.density_images)
    if min(*counts, asked.rounds, asked.long_rounds, asked.threads) < 1:
        parser.error("expected 1 image, round and thread or more")
    parts, kinds = asked.only.split(","), asked.kinds.split(",")
    if not {*parts} <= {*PARTS} or not {*kinds} <= {*KINDS}:
        parser.error(f"expected parts among {', '.join(PARTS)}, kinds among {', '.join(KINDS)}")
    contenders = OURS
    if asked.peers:
        contenders += tuple(name + how for name in PEERS for how in ("", "+tuned"))
    if asked.contenders is not None:
        contenders = (OURS[0], *asked.contenders.split(","))
    load = [os.getloadavg()[0]]
    found: list[rounds.Row] = []
    if "products" in parts:
        found += rounds.of_products(contenders, Settings(asked.images, asked.threads),
                                    asked.rounds, kinds, asked.seconds)  # fmt: skip
    if "resnet" in parts:
        residual = Settings(asked.resnet_images, asked.threads, "resnet20")
        found += rounds.of_products(contenders, residual, asked.rounds, ["hessian"],
                                    asked.seconds)  # fmt: skip
    for kind, images, count in (
        ("eigenvalues", asked.eigen_images, COUNT),
        ("density", asked.density_images, 1),
    ):
        if kind in parts:
            settings = Settings(images, asked.threads)
            exact = rounds.largest_eigenvalues(settings, count)
            found += rounds.of_numbers(kind, contenders, settings, asked.long_rounds, exact)
    load.append(os.getloadavg()[0])
    print(f"load of the machine: {load[0]:.1f} before, {load[1]:.1f} after, {os.cpu_count()} cores")
    run = {
        "rows": [asdict(row) for row in found],
        "arguments": {k: str(v) for k, v in vars(asked).items() if k != "out"},
        "load": load, "cores": os.cpu_count(),
        "git": git_commit(), "versions": {**versions(), **rounds.peer_versions()},
    }  # fmt: skip
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else []
    write_text(asked.out, json.dumps([*known, run], indent=1, sort_keys=True) + "\n")
