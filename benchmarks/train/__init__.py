"""Time of an epoch of training beside loops written by hand, which take the same steps.

Of the network `fashion-cnn` in float32, in batches of 128, by SGD with momentum and by SAM, with
and without augmentation, on MNIST (ISOLOSS_DATA) or else on the digits that scikit-learn has. The
contenders take turns, an epoch each in a round; the first round is not counted. A row a contender:

- `seconds`: median of an epoch, and range over the rounds;
- `ratio`: median, and range, over the rounds of its time over that of the loop by hand for SGD
  with the same images in the same round; `processor` the same of processor time;
- `difference`: ||w - w'|| / ||w'|| of the final weights w from those w' of the loop by hand that
  takes the same steps; of the first 20 steps alone in float64, which shows that they are the same.

With `--peers` SGD over torch's `DataLoader`, as people write it: items are picked one by one, so
its batches have another order.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.train.contenders import Contender, Subject, contenders, difference
from isoloss.records.files import write_text
from isoloss.records.provenance import git_commit, versions

FILE = Path(__file__).resolve().parents[2] / "results" / "benchmarks" / "train.json"
Three = tuple[float, float, float]  # median, smallest, largest


@dataclass(frozen=True)
class Row:
    """What an epoch took, in seconds, and in units of the loop by hand."""

    contender: str
    augmentation: str
    seconds: Three
    ratio: Three
    cpu: Three
    difference: float | None
    difference_float64: float | None

    def text(self) -> str:
        """Return a line of the table."""
        times = " ".join(f"{_text(three):>24}" for three in (self.seconds, self.ratio, self.cpu))
        apart = " ".join(
            f"{'' if value is None else f'{value:.1e}':>12}"
            for value in (self.difference, self.difference_float64)
        )
        return f"{self.contender:18} {self.augmentation:8} {times} {apart}"


def main(arguments: Sequence[str]) -> None:
    """Print a table, and append the run to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks train")
    parser.add_argument("--peers", action="store_true", help="beside torch's DataLoader")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file, a list of runs")
    asked = parser.parse_args(arguments)
    if min(asked.images, asked.rounds, asked.threads) < 1:
        parser.error("expected 1 image, round and thread or more")
    torch.set_num_threads(asked.threads)
    load, subject = [os.getloadavg()[0]], Subject(asked.images)
    print(f"{subject.source()}, {asked.threads} threads")
    print(f"{'contender':18} {'images':8} {'seconds':>24} {'ratio':>24} {'processor':>24}"
          f" {'difference':>12} {'in float64':>12}")  # fmt: skip
    found = []
    for augmentation in ("none", "affine"):
        found += _rows(subject, augmentation, asked.rounds, asked.peers)
    load.append(os.getloadavg()[0])
    print(f"load of the machine: {load[0]:.1f} before, {load[1]:.1f} after, {os.cpu_count()} cores")
    run = {
        "rows": [asdict(row) for row in found], "source": subject.source(), "load": load,
        "threads": asked.threads, "rounds": asked.rounds, "cores": os.cpu_count(),
        "git": git_commit(), "versions": versions(),
    }  # fmt: skip
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else []
    write_text(asked.out, json.dumps([*known, run], indent=1, sort_keys=True) + "\n")


def _rows(subject: Subject, augmentation: str, rounds: int, peers: bool) -> list[Row]:
    everybody = contenders(subject, augmentation, peers)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in everybody}
    for index in range(rounds + 1):
        for name, contender in everybody.items():
            seconds = _timed(contender, index)
            if index:
                times[name].append(seconds)
    small = contenders(subject.first(20), augmentation, peers, torch.float64)
    for contender in small.values():
        contender.epoch(0)
    found = []
    for name, own in times.items():
        ratios = [[a[i] / b[i] for a, b in zip(own, times["by hand, sgd"], strict=True)]
                  for i in (0, 1)]  # fmt: skip
        apart = [difference(group, name) for group in (everybody, small)]
        three = (_three([wall for wall, _ in own]), *map(_three, ratios))
        found.append(Row(name, augmentation, *three, *apart))
        print(found[-1].text(), flush=True)
    return found


def _timed(contender: Contender, index: int) -> tuple[float, float]:
    start, spent = time.perf_counter(), time.process_time()
    contender.epoch(index)
    return time.perf_counter() - start, time.process_time() - spent


def _three(values: Sequence[float]) -> Three:
    return statistics.median(values), min(values), max(values)


def _text(three: Three) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*three)
