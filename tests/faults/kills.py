"""Commands that are killed at random moments, given again, and compared with ones that were not.

A scenario is a command on a prepared folder of results. It is run undisturbed; then a copy of the
folder is prepared for each kill, the command is started and ended by a signal after a random time,
everything that is there is read, and the command is given again. What it leaves then has to be what
the undisturbed one left, and what was finished before the kill must not have been computed again.
"""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.commands import Ended, Started, warm_up

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
COLD = 0.2  # share of the kills of commands that start from nothing, imports included
# Of JSON files: what may differ between two makings of the same.
TIMES = ("created", "updated", "seconds", "finished", "host", "command", "git", "wall_seconds")
RECORD = 8 + 2 * 8 + 4  # bytes of a point in a journal: index, loss and accuracy, checksum
DATA = ("--dataset-arg", "size=8", "--fraction", "0.2")


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        name: What the table calls it.
        arguments: The command.
        outputs: Files that are compared, as glob patterns below the folder of results.
        again: What goes on with it, given the folder of results; the command itself where None.
        finished: How much was finished, given the folder of results after the kill.
        kept: How much was not computed again, given what the command said when it was given again
            and what the undisturbed one said.
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    again: Callable[[Path], tuple[str, ...]] | None = None
    finished: Callable[[Path], int] = lambda results: 0
    kept: Callable[[str, str], int] = lambda said, undisturbed: 0


def _train_again(results: Path) -> tuple[str, ...]:
    there = (results / "runs" / "b" / "config.json").exists()
    return ("train", "--run", "b", "--resume") if there else TRAIN


def _train_force_again(results: Path) -> tuple[str, ...]:
    new = _epochs_asked(results / "runs" / "old") == EPOCHS
    return ("train", "--run", "old", "--resume", "--no-figures") if new else TRAIN_FORCE


def _epochs_asked(run: Path) -> int:
    config = run / "config.json"
    return int(json.loads(config.read_text())["epochs"]) if config.is_file() else 0


def _epochs(results: Path, name: str) -> int:
    """Return the finished epochs of a run that is under way."""
    run = results / "runs" / name
    history = run / "history.json"
    if not history.is_file() or _epochs_asked(run) != EPOCHS:
        return 0
    return len(json.loads(history.read_text()))


def _old_or_new(results: Path) -> int:
    """Return the finished epochs of the new run, and of the old one at least that it is there."""
    places = [results / "runs", *(results / "runs").glob(".old-*")]
    kept = [
        run for place in places for run in (place / "old", place / ".kept") if _epochs_asked(run)
    ]
    assert kept, f"neither the old run nor the new one is in {results / 'runs'}"
    return _epochs(results, "old")


def _surface_force_again(results: Path) -> tuple[str, ...]:
    """Return the command without `--force` once the old file was replaced."""
    from isoloss.records.surfaces import read_surface

    new = read_surface(results / "runs" / "old" / "surface-2d.h5").done.shape == (9, 21)
    return tuple(one for one in FORCE if one != "--force") if new else FORCE


def _points(results: Path) -> int:
    """Return the finished points in the journal of a surface that is under way."""
    from isoloss.records.surfaces import journal_path

    for path in results.glob("runs/*/*.journal"):
        assert path == journal_path(path.with_suffix(""))
        _, _, records = path.read_bytes().partition(b"\n")
        return len(records) // RECORD
    return 0


def _products(results: Path) -> int:
    """Return the products that the finished stages of a spectrum took."""
    from isoloss.records.spectra import read_spectrum

    path = results / "runs" / "a" / "hessian.h5"
    if not path.is_file():
        return 0
    data = read_spectrum(path)
    stages = (data.eigenpairs, data.trace, data.density)
    return sum(stage.account["products"] for stage in stages if stage is not None)


def _trials(results: Path) -> int:
    table = results / "tune" / "t" / "trials.csv"
    if not table.is_file():
        return 0
    with open(table, newline="") as file:
        return sum(row["state"] == "complete" for row in csv.DictReader(file))


def _went_on_after(said: str, undisturbed: str) -> int:
    if "is complete" in said:
        return 10**9
    found = re.search(r"going on after (?:epoch )?(\d+) of", said)
    return int(found[1]) if found else 0


def _products_saved(said: str, undisturbed: str) -> int:
    took = [re.search(r"(\d+) products in", text) for text in (said, undisturbed)]
    assert took[1] is not None
    return int(took[1][1]) - (int(took[0][1]) if took[0] else 0)


def _trials_kept(said: str, undisturbed: str) -> int:
    found = re.search(r"(\d+) of \d+ trials are done", said)
    return int(found[1]) if found else 0


EPOCHS = 6
LONG = (*DATA, "--epochs", str(EPOCHS), "--optimizer", "sam", "--checkpoint-every", "2")
TRAIN = ("train", "--run", "b", *LONG)
TRAIN_FORCE = ("train", "--run", "old", *LONG, "--force", "--no-figures")
GRID = ("--x=-1:1:21", "--y=-1:1:9")
FORCE = ("surface", "old", *GRID, "--force", "--no-figures")
CHECKPOINTS = "checkpoints/[!sd]*.pt"  # neither state.pt, which holds times, nor digests of it
EVALUATE = Scenario("evaluate", ("evaluate", "a"), ("runs/a/*.json", "runs/a/*.txt",
                    "runs/a/*.csv", "runs/a/*.png"))  # fmt: skip
SCENARIOS = (
    Scenario("train", TRAIN, (f"runs/b/{CHECKPOINTS}", "runs/b/evaluation.json",
             "runs/b/*.png"), _train_again, lambda results: _epochs(results, "b"), _went_on_after),
    Scenario("train --force", TRAIN_FORCE, (f"runs/old/{CHECKPOINTS}", "runs/old/evaluation.json",
             "runs/old/summary.txt"), _train_force_again, _old_or_new, _went_on_after),
    Scenario("surface", ("surface", "a", *GRID), ("runs/a/surface-2d.h5",
             "runs/a/surface-2d-*.png"), None, _points, _went_on_after),
    Scenario("surface --force", FORCE, ("runs/old/surface-2d.h5",), _surface_force_again, _points,
             _went_on_after),
    Scenario("surface --repeat", ("surface", "a", "--x=-1:1:21", "--repeat", "4"),
             ("runs/a/surface-1d.h5", "runs/a/surface-1d.png"), None, _points, _went_on_after),
    Scenario("hessian", ("hessian", "a", "--top", "3", "--probes", "3"),
             ("runs/a/hessian.h5", "runs/a/hessian.json", "runs/a/hessian.png"), None, _products,
             _products_saved),
    EVALUATE,
    Scenario("sharpness", ("sharpness", "a", "--samples", "200", "--starts", "2", "--probes", "10"),
             ("runs/a/sharpness.json", "runs/a/sharpness.csv", "runs/a/sharpness.png")),
    Scenario("compare", ("compare", "old", "other"), ("comparisons/*/table.*",
             "comparisons/*/comparison.png")),
    Scenario("tune", ("tune", "--name", "t", "--search", "lr=loguniform:0.01:0.1", "--trials", "2",
             "--set", "epochs=1", "--set", "fraction=0.1"), ("tune/t/trials.csv", "tune/t/*.png",
             "tune/t/runs/*/*.png", "tune/t/runs/*/evaluation.json"), None, _trials, _trials_kept),
)  # fmt: skip


@dataclass
class Tally:
    """What came of the kills of one scenario.

    Attributes:
        kills: Signals that met the command alive, by name.
        after: Signals that came when it had ended.
        lost: Finished points, epochs, products or trials that were computed again.
        unreadable: Files that could not be read after the kill.
        differing: Files that differ from those of the undisturbed command.
        leftovers: Files that nobody needs, after the command was given again.
        failures: Commands given again that did not end with exit 0, and errors that a kill made of
            its own, in words.
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


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves that nothing disturbs.

    Attributes:
        contents: Of its files, see `_contents`.
        said: What it printed.
        seconds: What it takes where everything is imported.
    """

    contents: dict[str, bytes]
    said: str
    seconds: float


def prepare(folder: Path) -> Path:
    """Make the folder of results that scenarios begin from: trained runs, two of them measured."""
    results = folder / "template"
    for name, seed in (("a", "0"), ("old", "1"), ("other", "2")):
        _expect(("train", "--run", name, *DATA, "--epochs", "2", "--seed", seed, "--no-figures"),
                results, warm=True)  # fmt: skip
    for name in ("old", "other"):
        _expect(("surface", name, "--x=-1:1:5", "--y=-1:1:3", "--no-figures"), results, warm=True)
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
        say: Told about each failure, and now and then how far it is.
        names: Scenarios; all where empty.
    """
    warm_up()
    chance = random.Random(seed)
    template = prepare(folder)
    chosen = [one for one in SCENARIOS if not names or one.name in names][:kills]
    whole = {one.name: _undisturbed(one, template, folder, warm=True) for one in chosen}
    start_up = _start_up(template, folder, _undisturbed(EVALUATE, template, folder, warm=True))
    tallies = {one.name: Tally() for one in chosen}
    for index in range(kills):
        scenario = chosen[index % len(chosen)]
        kind = SIGNALS[(index + index // len(chosen)) % len(SIGNALS)]
        expected, warm = whole[scenario.name], chance.random() >= COLD
        delay = chance.uniform(0.02, 1.05) * (expected.seconds + (0.0 if warm else start_up))
        results = _fresh(template, folder)
        problem = _kill_once(
            scenario, kind, delay, results, expected, tallies[scenario.name], warm=warm
        )
        if (index + 1) % 10 == 0:
            say(f"{index + 1} of {kills} kills")
        if problem:
            kept = results.rename(folder / f"kill-{index + 1}")
            say(f"kill {index + 1} ({scenario.name}, {kind}, {delay:.2f} s): {problem}; in {kept}")
    return tallies


def _fresh(template: Path, folder: Path) -> Path:
    """Return a copy of the template, always at the same path: files hold the command line."""
    results = folder / "results"
    if results.exists():
        shutil.rmtree(results)
    return Path(shutil.copytree(template, results))


def _kill_once(
    scenario: Scenario, kind: str, delay: float, results: Path, expected: Undisturbed,
    tally: Tally, *, warm: bool,
) -> str:  # fmt: skip
    """Kill one command, give it again, and count; return what went wrong, in words."""
    command = Started(scenario.arguments, results, warm=warm)
    time.sleep(delay)
    if command.send(kind):
        tally.kills[kind] += 1
    else:
        tally.after += 1
    ended = command.end()
    if ended.code is None:
        tally.hangs += 1
        return "did not end"
    if "unexpected" in ended.complained:
        tally.failures.append(ended.complained)
        return ended.complained.strip()
    unreadable = _unreadable(results)
    tally.unreadable += len(unreadable)
    try:
        finished = scenario.finished(results)
    except AssertionError as error:
        tally.lost += 1
        return str(error)
    arguments = scenario.again(results) if scenario.again else scenario.arguments
    done = Started(arguments, results, warm=True).end()
    if done.code is None:
        tally.hangs += 1
        return "did not end when it was given again"
    if done.code:
        tally.failures.append(done.complained.strip())
        return f"given again, it failed: {done.complained.strip()}"
    lost = max(0, finished - scenario.kept(done.said, expected.said)) if finished else 0
    found = _contents(scenario, results)
    names = sorted(found.keys() | expected.contents.keys())
    differing = [name for name in names if found.get(name) != expected.contents.get(name)]
    leftovers = _leftovers(results)
    tally.lost += lost
    tally.differing += len(differing)
    tally.leftovers += len(leftovers)
    wrong = {"unreadable": unreadable, "differing": differing, "left over": leftovers}
    problems = [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
    return "; ".join([*problems, *([f"{lost} lost of {finished}"] if lost else [])])


def _undisturbed(scenario: Scenario, template: Path, folder: Path, *, warm: bool) -> Undisturbed:
    results = _fresh(template, folder)
    ended = _expect(scenario.arguments, results, warm=warm)
    contents = _contents(scenario, results)
    assert contents, f"{scenario.name}: nothing to compare"
    return Undisturbed(contents, ended.said, ended.seconds)


def _start_up(template: Path, folder: Path, undisturbed: Undisturbed) -> float:
    """Return how many seconds longer a cold command takes; it must leave what a warm one does."""
    cold = _undisturbed(EVALUATE, template, folder, warm=False)
    assert cold.contents == undisturbed.contents, "a warm command differs from a cold one"
    return max(0.0, cold.seconds - undisturbed.seconds)


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


def _leftovers(results: Path) -> list[str]:
    """Return hidden and temporary files and journals, which a finished command leaves none of."""
    names = ("journal", ".tmp")
    return [
        str(path.relative_to(results))
        for path in results.rglob("*")
        if path.name.startswith(".") or any(name in path.name for name in names)
    ]


def _expect(arguments: Sequence[str], results: Path, *, warm: bool) -> Ended:
    ended = Started(arguments, results, warm=warm).end()
    if ended.code != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed undisturbed: {ended.complained}")
    return ended
