"""Run folders: where a training leaves what later commands need. Free of torch.

    results/runs/<name>/
        config.json         all settings, resolved; written first
        facts.json          what was found when it began: data, device, versions, ..
        history.json, .csv  one record an epoch
        evaluation.json     scores of the final weights
        checkpoints/        last.pt, best.pt (lowest validation loss), state.pt (to resume),
                            epoch-0005.pt, .. where asked for; digests.json
        plugins/            copies of the user's files that took part
        summary.txt         the network, layer by layer
        log.txt             what the training said
        run.json            manifest with the status; after it, figures alone are written
    results/runs/.<name>-XXXXXXXX/      a run in the making; what a kill leaves is swept
    results/runs/.<name>.lock           held while it is trained, see `records.locks`

Numbers that are not finite are null in JSON and empty in CSV.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoloss.errors import IsolossError, UsageError
from isoloss.records.facts import Facts
from isoloss.records.files import FileError, write_text
from isoloss.records.json_text import check_entries, parse_json, to_json
from isoloss.records.leftovers import sweep_locked
from isoloss.records.locks import is_locked, locked_folder
from isoloss.records.replacing import make_work_folder, set_aside
from isoloss.records.tables import data_frame

if TYPE_CHECKING:
    import pandas as pd

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
STATUSES = ("training", "finished", "diverged", "interrupted")
CHECKPOINTS = ("last", "best")
# By which a folder is known for a run, or what is left of one.
OWN = ("config.json", "facts.json", "run.json", "checkpoints")
# What the scores of a split are read for by other commands.
SCORES: dict[str, tuple[type, ...]] = {
    "loss": (float, type(None)),
    "accuracy": (float, type(None)),
    "classes": (list,),
}
EPOCH_CHECKPOINT = re.compile(r"epoch-(\d+)\.pt")


class RunError(IsolossError, RuntimeError):
    """A run that is missing, damaged or already there."""


class RunNameError(RunError, UsageError):
    """A name that no run can have."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the run, which is that of its folder."""
        return self.path.name

    @property
    def label(self) -> str:
        """What figures and tables call the run: `label` of the configuration, else the name."""
        return str(self.config().get("label") or self.name)

    @property
    def status(self) -> str:
        """One of `STATUSES`; of a training whose process is gone, killed, "interrupted"."""
        status = str(self.manifest().get("status"))
        if status == "training" and not is_locked(self.path):
            return "interrupted"
        return status

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def checkpoint(self, which: str = "last") -> Path:
        """Return the path of a checkpoint.

        Args:
            which: `"last"`, `"best"`, or the name of an epoch's, such as `"epoch-0005"`.

        Raises:
            RunError: If there is none.
        """
        if which not in CHECKPOINTS and not EPOCH_CHECKPOINT.fullmatch(f"{which}.pt"):
            raise RunError(
                f"expected a checkpoint among {', '.join(CHECKPOINTS)} or epoch-N, got {which!r}"
            )
        path = self.checkpoints / f"{which}.pt"
        if not path.is_file():
            raise RunError(
                f"run {self.name} has no checkpoint {path.name} (status: {self.status})\n"
                f"train it again: `run` {self.name} with `force`"
            )
        return path

    def epoch_checkpoints(self) -> dict[int, Path]:
        """Return the checkpoints that `checkpoint_every` left, by epoch, 0 being the start."""
        paths = self.checkpoints.glob("epoch-*.pt")
        found = {int(m[1]): p for p in paths if (m := EPOCH_CHECKPOINT.fullmatch(p.name))}
        return dict(sorted(found.items()))

    def config(self) -> dict[str, Any]:
        """Return the resolved settings of the training."""
        config = self._read("config.json", dict)
        config.pop("facts", None)  # where runs of version 0.1 kept them
        return config

    def facts(self) -> Facts:
        """Return what was found when the run began."""
        if (self.path / "facts.json").is_file():
            file, facts = "facts.json", self._read("facts.json", dict)
        else:
            file, config = "config.json", self._read("config.json", dict)
            self._check({"facts": {}, **config}, {"facts": (dict,)}, file)
            facts = config.get("facts", {})
        try:
            return Facts.read(facts, str(self.path / file))
        except FileError as error:
            raise self._damaged(str(error)) from error

    def manifest(self) -> dict[str, Any]:
        """Return the manifest: `status`, `created`, and the facts given to `finish`."""
        return self._read("run.json", dict)

    def evaluation(self) -> dict[str, Any]:
        """Return the scores of the final weights.

        Raises:
            RunError: If there are none, or damaged ones.
        """
        evaluation = self._read("evaluation.json", dict)
        self._check(evaluation, {"splits": (dict,)}, "evaluation.json")
        for name, scores in evaluation["splits"].items():
            self._check(evaluation["splits"], {name: (dict,)}, "evaluation.json")
            self._check(scores, SCORES, "evaluation.json")
        return evaluation

    def history(self) -> dict[str, np.ndarray]:
        """Return the history as columns, each (epochs,) float64; absent values are NaN."""
        records = self._read("history.json", list)
        for record in records:
            numbers = isinstance(record, dict) and all(
                value is None or isinstance(value, int | float) for value in record.values()
            )
            if not numbers:
                raise self._damaged(
                    f"{self.path / 'history.json'} is damaged, expected numbers by name for each "
                    "epoch"
                )
        names = list(dict.fromkeys(name for record in records for name in record))
        return {name: np.array([_number(record.get(name)) for record in records]) for name in names}

    def to_dataframe(self) -> pd.DataFrame:
        """Return the history as a pandas data frame, a row for each epoch."""
        return data_frame(self.history())

    def write_history(self, records: Iterable[Any]) -> None:
        """Write the history, `history.json` and `history.csv`, whole.

        Args:
            records: One an epoch: dictionaries or dataclasses of numbers, all with the same names.
        """
        rows = [to_json(record) for record in records]
        write_json(self.path / "history.json", rows)
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        write_text(self.path / "history.csv", text.getvalue())

    def write_evaluation(self, scores: Any) -> None:
        """Write the scores of the final weights."""
        write_json(self.path / "evaluation.json", scores)

    def write_manifest(self, status: str, **facts: Any) -> None:
        """Write the manifest. At the end of a training this is the last file written.

        Args:
            status: One of `STATUSES`.
            **facts: Further entries, such as wall time and versions.
        """
        if status not in STATUSES:
            raise RunError(f"expected a status among {', '.join(STATUSES)}, got {status!r}")
        path = self.path / "run.json"
        created = self.manifest().get("created", _now()) if path.is_file() else _now()
        write_json(path, {"status": status, "created": created, "updated": _now(), **facts})

    def copy_plugin(self, file: Path, role: str) -> Path:
        """Keep a copy of a user's file.

        Args:
            file: The file.
            role: What it served as, such as "model": goes before the name, as files may share one.

        Returns:
            Path of the copy.
        """
        copy = self.path / "plugins" / f"{role}-{file.name}"
        copy.parent.mkdir(exist_ok=True)
        write_text(copy, file.read_text(encoding="utf-8"))
        return copy

    def _read(self, file: str, kind: type) -> Any:
        path = self.path / file
        try:
            content = parse_json(path.read_bytes(), str(path))
        except FileNotFoundError as error:
            raise RunError(
                f"run {self.name} has no {file}: expected {path}\n"
                f"train it again: `run` {self.name} with `force`"
            ) from error
        except FileError as error:
            raise self._damaged(str(error)) from error
        if not isinstance(content, kind):
            raise self._damaged(
                f"{path} is damaged, expected a JSON {'object' if kind is dict else 'list'}, "
                f"got {type(content).__name__}"
            )
        return content

    def _check(self, content: Mapping[str, Any], needed: Mapping[str, Any], file: str) -> None:
        try:
            check_entries(content, needed, str(self.path / file))
        except FileError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> RunError:
        return RunError(
            f"{what}\nput a copy of it back, or train again: `run` {self.name} with `force`"
        )


def check_name(name: str, option: str = "run") -> str:
    """Return the name of a run if it is one.

    Args:
        name: The name.
        option: What gave it, for the message.

    Raises:
        RunNameError: If it holds other characters than letters, digits, `.`, `_`, `-`, or starts
            with a dot.
    """
    if not NAME.fullmatch(name):
        raise RunNameError(
            f"`{option}`: expected a name of letters, digits, '.', '_' and '-' that does not start "
            f"with '.', got {name!r}\nanything for display goes in `label`"
        )
    return name


@contextmanager
def locked_run(results: Path, name: str) -> Iterator[None]:
    """Keep all others from a run, there already or not, and from every file in its folder.

    What kills left is swept first, and a replacement (see `new_run`) put right.

    Raises:
        RunError: If the name is none.
        LockedError: If another process trains the run, or writes one of its files.
    """
    path = Path(results) / "runs" / check_name(name)
    with locked_folder(path, f"run {name}", "choose another `run`"):
        sweep_locked(path)
        yield


@contextmanager
def new_run(
    results: Path,
    name: str,
    config: Mapping[str, Any],
    facts: Facts | None = None,
    *,
    force: bool = False,
) -> Iterator[Run]:
    """Make a run that appears whole: in its place when the block has ended, not at all if it fails.

    The block writes what a run must not be without, such as its first checkpoint. Until then a
    run of that name is as it was. Hold `locked_run` meanwhile.

    Args:
        results: Folder of all results.
        name: Name of the run.
        config: All settings, JSON-able.
        facts: What was found.
        force: Whether to replace a run of that name, with all that was computed from it.

    Yields:
        The run in a temporary folder, its status "training".

    Raises:
        RunError: If the name is none, or taken.
    """
    path = Path(results) / "runs" / check_name(name)
    refuse_taken(path, force)
    work = make_work_folder(path)
    try:
        run = Run(work / name)  # in a folder of its name, for what is written about it
        run.checkpoints.mkdir(parents=True)
        write_json(run.path / "config.json", dict(config))
        write_json(run.path / "facts.json", facts or Facts())
        run.write_manifest("training")
        yield run
        refuse_taken(path, force)
        with set_aside(path) as give_up:
            os.replace(run.path, path)
            give_up()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refuse_taken(path: Path, force: bool = False) -> None:
    """Raise `RunError` where a new run cannot have a folder."""
    if not path.exists():
        return
    if not (path / "config.json").is_file():
        found = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
        if not path.is_dir() or (found and not any(name in OWN for name in found)):
            held = ", ".join(found[:3]) or "a file"
            raise RunError(
                f"expected a run at {path}, got what is none of ours: {held}\n"
                "choose another `run`, or move it away"
            )
        if not force:
            raise _lost(path)
    elif not force:
        raise RunError(
            f"run {path.name} exists: {path}\n"
            "choose another `run`, continue it with `resume`, or replace it with `force`"
        )


def _lost(path: Path) -> RunError:
    return RunError(
        f"run {path.name} has no config.json: {path}\n"
        f"put a copy of it back, or train again: `run` {path.name} with `force`"
    )


def list_runs(results: Path) -> list[Run]:
    """Return all runs by name; nothing is read but the folder."""
    return [Run(path.parent) for path in sorted((Path(results) / "runs").glob("*/config.json"))]


def run_folders(results: Path) -> list[Run]:
    """Return all runs by name, those that lost their configuration among them."""
    folders = {path.parent for name in OWN for path in (Path(results) / "runs").glob(f"*/{name}")}
    return [Run(path) for path in sorted(folders) if NAME.fullmatch(path.name)]


def newest_run(results: Path) -> Run | None:
    """Return the run that was trained last among those with weights, None where there is none."""
    weights = {run: run.checkpoints / "last.pt" for run in list_runs(results)}
    times = {run: path.stat().st_mtime_ns for run, path in weights.items() if path.is_file()}
    return max(times, key=lambda run: times[run], default=None)


def find_run(results: Path, name: str) -> Run:
    """Return the run of a name.

    Raises:
        RunError: If there is none; lists near matches and says how to make one.
    """
    run = Run(Path(results) / "runs" / check_name(name))
    if (run.path / "config.json").is_file():
        return run
    if any((run.path / name).exists() for name in OWN):
        raise _lost(run.path)
    names = [run.name for run in list_runs(results)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    known = f"did you mean {', '.join(near)}?" if near else f"{len(names)} runs there"
    raise RunError(
        f"no run {name} in {Path(results) / 'runs'}: {known}\ntrain one of that name: `run` {name}"
    )


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented for people."""
    write_text(path, json.dumps(to_json(content), indent=2, allow_nan=False) + "\n")


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
