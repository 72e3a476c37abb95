"""Whether standard errors, intervals and tests keep what docs/numerics.md says of them.

A table a part, a row a case:

- `share`: how often the truth lay within two standard errors, or in the 95 % interval, or how often
  a test at 5 % rejected what was true; ± the binomial error of that share;
- `by t`: as often within t/2 times two standard errors, t the quantile of Student's distribution
  for the degrees of freedom. Where it is empty the standard error includes that factor (traces),
  or the interval does;
- `nominal`: what `share` would be of independent normal values;
- `s.e./rms`: root mean square of the standard errors over that of the errors made; 1 is right,
  below 1 the standard error is too small;
- `holds` or `falls short`, by `judgement.Row.verdict`: rows in parentheses are not asked for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.coverage import losses, networks, samples, scores, traces
from benchmarks.coverage.judgement import HEAD, Row
from isoloss.records.files import write_text
from isoloss.records.provenance import git_commit, versions

Part = Callable[[int | None], Iterable[Row]]
PARTS: dict[str, Part] = {
    "traces": traces.rows,
    "networks": networks.rows,
    "losses": losses.rows,
    "samples": samples.rows,
    "scores": scores.rows,
}
FILE = Path(__file__).resolve().parents[2] / "results" / "benchmarks" / "coverage.json"


def main(arguments: Sequence[str]) -> None:
    """Print a table a part, and write the rows of these parts to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks coverage")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--repeats", type=int, help="seeds 0 .. of each case; otherwise 2,000, "
                        "200 of networks and samples")  # fmt: skip
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file; other parts stay")
    asked = parser.parse_args(arguments)
    chosen = asked.only.split(",")
    if not set(chosen) <= set(PARTS) or (asked.repeats is not None and asked.repeats < 2):
        parser.error(f"expected parts among {','.join(PARTS)} and 2 repeats or more")
    torch.set_num_threads(1)
    for part in chosen:
        found = []
        print(f"{part}\n{HEAD}")
        for row in PARTS[part](asked.repeats):
            print(row.text(), flush=True)
            found.append({**asdict(row), "verdict": row.verdict})
        _store(asked.out, part, found)


def _store(path: Path, part: str, found: list[dict[str, object]]) -> None:
    """Put a part's rows into the file, with what they were computed by."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[part] = {"rows": found, "git": git_commit(), "versions": versions()}
    write_text(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
