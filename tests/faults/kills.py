"""Commands that are killed at random moments, given again, and compared with ones that were not.

A scenario is a command on a prepared folder of results. It is run once undisturbed; then a copy of
the folder is prepared for each kill, the command is started and ended by a signal after a random
time (start-up included), everything that is there is read, and the command is given again. What it
leaves then has to be what the undisturbed one left.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parents[2]
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
# Of JSON files: what may differ between two makings of the same.
TIMES = ("created", "updated", "seconds", "finished", "host", "command", "git", "wall_seconds")
HINDRANCE = 120.0  # seconds after which a command counts as hanging
RECORD = 8 + 2 * 8 + 4  # bytes of a point in a journal: index, loss and accuracy, checksum
DATA = ("--dataset-arg", "size=8", "--fraction", "0.2")


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        name: What the table calls it.
        arguments: The command.
        again: What goes on with it, given the folder of results; the command itself where None.
        outputs: Files that are compared, as glob patterns below the folder of results.
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    again: Callable[[Path], tuple[str, ...]] | None = None


def _train_again(results: Path) -> tuple[str, ...]:
    there = (results / "runs" / "b" / "config.json").exists()
    return ("train", "--run", "b", "--resume") if there else TRAIN


TRAIN = ("train", "--run", "b", *DATA, "--epochs", "6", "--optimizer", "sam",
         "--checkpoint-every", "2")  # fmt: skip
GRID = ("--x=-1:1:21", "--y=-1:1:9")
SCENARIOS = (
    Scenario("train", TRAIN, ("runs/b/checkpoints/[!sd]*.pt", "runs/b/evaluation.json",
             "runs/b/training.png"), _train_again),
    Scenario("surface", ("surface", "a", *GRID), ("runs/a/surface-2d.h5",
             "runs/a/surface-2d-*.png")),
    Scenario("surface --force", ("surface", "old", *GRID, "--force", "--no-figures"),
             ("runs/old/surface-2d.h5",)),
    Scenario("surface --repeat", ("surface", "a", "--x=-1:1:21", "--repeat", "4"),
             ("runs/a/surface-1d.h5", "runs/a/surface-1d.png")),
    Scenario("hessian", ("hessian", "a", "--top", "3", "--probes", "3"),
             ("runs/a/hessian.h5", "runs/a/hessian.json", "runs/a/hessian.png")),
    Scenario("evaluate", ("evaluate", "a"), ("runs/a/evaluation.json", "runs/a/confusion.png")),
    Scenario("compare", ("compare", "old", "other"), ("comparisons/*/table.json",
             "comparisons/*/comparison.png")),
    Scenario("tune", ("tune", "--name", "t", "--search", "lr=loguniform:0.01:0.1", "--trials", "2",
             "--set", "epochs=1", "--set", "fraction=0.1"), ("tune/t/trials.csv",)),
)  # fmt: skip


@dataclass
class Tally:
    """What came of the kills of one scenario.

    Attributes:
        kills: Signals that met the command alive, by name.
        after: Signals that came when it had ended.
        lost: Finished points that were computed again.
        unreadable: Files that could not be read after the kill.
        differing: Files that differ from those of the undisturbed command.
        leftovers: Files that nobody needs, after the command was given again.
        failures: Commands given again that did not end with exit 0, in words.
        hangs: Commands that did not end.
    """

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIGNALS, 0))
    after: int = 0
    lost: int = 0
    unreadable: int = 0
    differing: int = 0
    leftovers: int = 0
    failures: list[str] = field(default_factory=list)
    hangs: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        counts = (self.lost, self.unreadable, self.differing, self.leftovers, self.hangs)
        return not any(counts) and not self.failures


def run(arguments: Sequence[str], results: Path) -> subprocess.CompletedProcess[str]:
    """Give a command, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(HOUSE / "cli.py"), *arguments, "--results", str(results)],
        env=_environment(), capture_output=True, text=True, timeout=HINDRANCE,
    )  # fmt: skip


def prepare(folder: Path) -> Path:
    """Make the folder of results that scenarios begin from: trained runs, two of them measured."""
    results = folder / "template"
    for name, seed in (("a", "0"), ("old", "1"), ("other", "2")):
        _expect(("train", "--run", name, *DATA, "--epochs", "2", "--seed", seed, "--no-figures"),
                results)  # fmt: skip
    for name in ("old", "other"):
        _expect(("surface", name, "--x=-1:1:5", "--y=-1:1:3", "--no-figures"), results)
    return results


def campaign(
    kills: int, seed: int, folder: Path, say: Callable[[str], None] = print,
    names: Sequence[str] = (),
) -> dict[str, Tally]:  # fmt: skip
    """Kill commands at random moments and count what was lost by it.

    Args:
        kills: How many signals to send, spread evenly over scenarios and kinds of signal.
        seed: Of the moments.
        folder: An empty folder to work in.
        say: Told about each failure.
        names: Scenarios; all where empty.
    """
    chance = random.Random(seed)
    template = prepare(folder)
    chosen = [one for one in SCENARIOS if not names or one.name in names]
    whole = {one.name: _undisturbed(one, template, folder) for one in chosen}
    tallies = {one.name: Tally() for one in chosen}
    for index in range(kills):
        scenario = chosen[index % len(chosen)]
        kind = SIGNALS[index // len(chosen) % len(SIGNALS)]
        expected, seconds = whole[scenario.name]
        results = _fresh(template, folder)
        tally = tallies[scenario.name]
        problem = _kill_once(
            scenario, kind, chance.uniform(0.02, 1.05) * seconds, results, expected, tally
        )
        if problem:
            kept = results.rename(folder / f"kill-{index}")
            say(f"kill {index} ({scenario.name}, {kind}): {problem}; kept in {kept}")
    return tallies


def _fresh(template: Path, folder: Path) -> Path:
    """Return a copy of the template, always at the same path: files hold the command line."""
    results = folder / "results"
    if results.exists():
        shutil.rmtree(results)
    return Path(shutil.copytree(template, results))


def _kill_once(
    scenario: Scenario, kind: str, delay: float, results: Path, expected: dict[str, bytes],
    tally: Tally,
) -> str:  # fmt: skip
    """Kill one command, give it again, and count; return what went wrong, in words."""
    process = subprocess.Popen(
        [sys.executable, str(HOUSE / "cli.py"), *scenario.arguments,
         "--results", str(results)],
        env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # Where the campaign runs in the background Ctrl-C is ignored, by its children, too.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    time.sleep(delay)
    if process.poll() is None:
        process.send_signal(getattr(signal, kind))
        tally.kills[kind] += 1
    else:
        tally.after += 1
    try:
        _, said = process.communicate(timeout=HINDRANCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        tally.hangs += 1
        return "did not end"
    if "Traceback" in said and "unexpected" in said:
        tally.failures.append(said)
        return said.strip()
    unreadable = _unreadable(results)
    tally.unreadable += len(unreadable)
    held = _points(results)
    arguments = scenario.again(results) if scenario.again else scenario.arguments
    try:
        done = run(arguments, results)
    except subprocess.TimeoutExpired:
        tally.hangs += 1
        return "did not end when it was given again"
    if done.returncode:
        tally.failures.append(done.stderr.strip())
        return f"given again, it failed: {done.stderr.strip()}"
    lost = max(0, held - _went_on_after(done.stdout)) if held and "--force" not in arguments else 0
    found = _contents(scenario, results)
    differing = [name for name in expected if found.get(name) != expected[name]]
    leftovers = _leftovers(results)
    tally.lost += lost
    tally.differing += len(differing)
    tally.leftovers += len(leftovers)
    wrong = {"unreadable": unreadable, "differing": differing, "left over": leftovers}
    problems = [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
    return "; ".join([*problems, *([f"{lost} points lost"] if lost else [])])


def _undisturbed(
    scenario: Scenario, template: Path, folder: Path
) -> tuple[dict[str, bytes], float]:
    results = _fresh(template, folder)
    began = time.monotonic()
    _expect(scenario.arguments, results)
    seconds = time.monotonic() - began
    return _contents(scenario, results), seconds


def _contents(scenario: Scenario, results: Path) -> dict[str, bytes]:
    """Return what is compared: whole files, of JSON without times and places."""
    found = {}
    for pattern in scenario.outputs:
        for path in sorted(results.glob(pattern)):
            content = path.read_bytes()
            if path.suffix == ".json":
                timeless = _timeless(json.loads(content), str(results))
                content = json.dumps(timeless, sort_keys=True).encode()
            elif path.suffix == ".csv":
                rows = [line.split(",") for line in content.decode().splitlines()]
                kept = [i for i, head in enumerate(rows[0]) if head not in TIMES]
                content = "\n".join(",".join(row[i] for i in kept) for row in rows).encode()
            found[str(path.relative_to(results))] = content
    return found


def _timeless(value: Any, results: str) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v, results) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [_timeless(item, results) for item in value]
    return value.replace(results, "") if isinstance(value, str) else value


def _unreadable(results: Path) -> list[str]:
    """Return the files that a reader of ours cannot read right after the kill."""
    from isoloss.errors import IsolossError
    from isoloss.records.runs import list_runs
    from isoloss.records.spectra import read_spectrum
    from isoloss.records.surfaces import read_surface

    bad = []
    readers = {"surface*.h5": read_surface, "hessian.h5": read_spectrum}
    for run_folder in (results / "runs").glob("[!.]*"):
        for pattern, read in readers.items():
            for path in run_folder.glob(pattern):
                try:
                    read(path)
                except (IsolossError, OSError) as error:
                    bad.append(f"{path.name} ({error})")
    for one in list_runs(results):
        try:
            one.config(), one.manifest(), one.history()
        except IsolossError as error:
            bad.append(f"run {one.name} ({error})")
    return bad


def _points(results: Path) -> int:
    """Return the finished points in the journal of a surface that is under way."""
    from isoloss.records.surfaces import journal_path

    for path in results.glob("runs/*/*.journal"):
        assert path == journal_path(path.with_suffix(""))
        _, _, records = path.read_bytes().partition(b"\n")
        return len(records) // RECORD
    return 0


def _went_on_after(said: str) -> int:
    for line in said.splitlines():
        if "going on after" in line:
            return int(line.split("going on after ")[1].split(" of ")[0])
        if "is complete" in line:
            return 10**9
    return 0


def _leftovers(results: Path) -> list[str]:
    """Return hidden and temporary files and journals, which a finished command leaves none of."""
    names = ("journal", ".tmp")
    return [
        str(path.relative_to(results))
        for path in results.rglob("*")
        if path.name.startswith(".") or any(name in path.name for name in names)
    ]


def _expect(arguments: Sequence[str], results: Path) -> None:
    done = run(arguments, results)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed undisturbed: {done.stderr}")


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
