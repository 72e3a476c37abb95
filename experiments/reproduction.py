"""A run's commands given again, from what the run stored, and what came of them beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import make
from isoloss.experiments.over_training import OverTrainingExperiment
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.selection import select
from isoloss.experiments.settings import (
    OverTrainingSettings,
    Selection,
    SpectrumSettings,
    SurfaceSettings,
)
from isoloss.experiments.spectra import SpectrumExperiment
from isoloss.experiments.surfaces import SurfaceExperiment
from isoloss.experiments.train_options import stored_options
from isoloss.experiments.training import train
from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5
from isoloss.records.over_training import KIND
from isoloss.records.runs import Run, RunError, find_run
from isoloss.records.stored_group import StoredGroup
from isoloss.records.surfaces import read_surface
from isoloss.records.trajectories import GROUP as TRAJECTORIES
from isoloss.trainers.checkpoints import load_weights

# Of float64, or of another order of summation: relative to the largest value of a data set.
TOLERANCE = 1e-6
# Eigenvalues and traces of float32 products are known to about what Lanczos asks of a residual.
CURVATURE_TOLERANCE = 1e-4
# What a result states; all else in a file (directions, eigenvectors, nodes) makes it.
STATED = (
    "_loss", "grad_norm", "max_eig", "min_eig",
    "eigenvalues", "trace/estimate", "/eigenvalue", "/trace", "/frobenius_norm",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One result of a run, made again.

    Attributes:
        name: `training`, or the file.
        identical: Whether every number is the same, bit for bit.
        difference: Largest difference of the numbers it states, relative to the largest of them.
        tolerance: What that may be.
        reason: Why it could not be made again, or may differ; empty where neither.
    """

    name: str
    identical: bool = False
    difference: float | None = None
    tolerance: float = TOLERANCE
    reason: str = ""

    @property
    def reproduced(self) -> bool:
        """Whether it is the same within the tolerance."""
        return self.identical or (self.difference is not None and self.difference <= self.tolerance)

    def text(self) -> str:
        """Say in a line what came of it."""
        why = f" ({self.reason})" if self.reason else ""
        if self.identical:
            return f"{self.name}: the same, bit for bit"
        if self.difference is None:
            return f"{self.name}: not made again{why}"
        verdict = "the same" if self.reproduced else "NOT the same"
        return (
            f"{self.name}: {verdict}, relative difference {self.difference:.2g}, "
            f"{self.tolerance:g} allowed{why}"
        )


def reproduce(
    run: Run | str | None,
    reporter: Reporter | None = None,
    *,
    results: Path | str = "results",
    data_dir: Path | None = None,
) -> list[Part]:
    """Train a run again and make its surfaces and spectra again, each from the stored settings.

    Measurements are made at the run's own weights, so that each part stands for itself. What is
    made again lies in `RESULTS/reproduced` and is gone on with after an interruption.

    Args:
        run: The run or its name; the newest where None.
        reporter: Told what happens.
        results: Folder of all results.
        data_dir: Folder of the data; the run's own where None.

    Returns:
        The training, unless the weights came from elsewhere, and each finished file.

    Raises:
        RunError: For a run that is missing or damaged.
    """
    reporter, results = reporter or Reporter(), Path(results)
    if not isinstance(run, Run):
        trained = select(Selection(run=run, results=results, data_dir=data_dir), reporter)
        assert trained.run is not None
        run = trained.run
    if run.status != "finished":
        raise ExperimentError(
            f"expected a finished run, got {run.name}, which is {run.status}\n"
            f"finish it first: `run` {run.name} with `resume`"
        )
    place = results / "reproduced"
    parts = [_training(run, reporter, place, data_dir)]
    reporter.say(parts[0].text())
    for file in sorted(run.path.glob("*.h5")):
        parts.append(_file(run, file, reporter, place / "measured" / run.name, data_dir))
        reporter.say(parts[-1].text())
    return parts


def _training(run: Run, reporter: Reporter, place: Path, data_dir: Path | None) -> Part:
    facts = run.facts()
    if facts.imported_from is not None:
        return Part("training", reason=f"its weights are from {facts.imported_from}")
    options = stored_options(run)
    again = _begun(place, run)
    if again is None or again.status != "finished":
        if again is not None and not (again.checkpoints / "state.pt").is_file():
            shutil.rmtree(again.path)  # ended before there was anything to go on with
            again = None
        with _threads(facts.threads):
            again = train(
                options,
                reporter,
                results=place,
                data_dir=data_dir or facts.data_dir,
                device=facts.device or "auto",
                figures=False,
                resume=again is not None,
            )
    stored, found = (load_weights(one.checkpoint()) for one in (run, again))
    identical = stored.keys() == found.keys() and all(
        torch.equal(stored[name], found[name]) for name in stored
    )
    difference = max(_difference(stored[name].numpy(), found[name].numpy()) for name in stored)
    return Part("training", identical, difference, reason=_other_circumstances(facts, again))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with that many threads; None for as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begun(place: Path, run: Run) -> Run | None:
    try:
        again = find_run(place, run.name)
    except RunError:
        return None
    if stored_options(again) == stored_options(run):
        return again
    shutil.rmtree(again.path)  # of a run of that name which has been replaced since
    return None


def _other_circumstances(facts: Any, again: Run) -> str:
    """Say what else may have made a training another one."""
    found = again.facts()
    pairs = {
        "torch": (facts.versions.get("torch"), found.versions.get("torch")),
        "threads": (facts.threads, found.threads),
        "device": (facts.device, found.device),
        "processes": (facts.processes, found.processes),
    }
    return ", ".join(f"{name} {a}, now {b}" for name, (a, b) in pairs.items() if a != b)


def _file(run: Run, file: Path, reporter: Reporter, place: Path, data_dir: Path | None) -> Part:
    with open_hdf5(file) as content:
        settings, kind = content.json("settings"), content.text("isoloss")
    asked = settings.get("asked")
    if asked is None:
        return Part(file.name, reason="its file does not say what was asked for")
    if kind == "surface" and not _complete(file):
        return Part(file.name, reason="it is not finished")
    loss = settings["loss"]
    selection = Selection(
        run=run.name,
        results=run.path.parent.parent,
        data_dir=data_dir,
        checkpoint=Path(settings["checkpoint"]).stem,
        **{"closure" if loss.get("closure") else "loss": loss["spec"]},
        loss_arg=loss["arguments"],
    )
    subject, out = select(selection, reporter), place / file.name
    others = [key for key, value in subject.about.items() if settings.get(key) != value]
    if others:
        return Part(file.name, reason=f"made with other {', '.join(others)} than the run's now")
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = {key: value for key, value in asked.items() if value is not None}
    chosen["device"] = settings["device"]
    with _threads(settings["plan"]["threads"]):
        if kind == "surface":
            SurfaceExperiment(subject, make(SurfaceSettings, chosen), out).run(reporter)
        elif kind == KIND:
            OverTrainingExperiment(subject, make(OverTrainingSettings, chosen), out).run(reporter)
        else:
            SpectrumExperiment(subject, make(SpectrumSettings, chosen), out).run(reporter)
    with open_hdf5(out) as content:
        made = content.json("settings")
    other = [key for key in made["plan"] if made["plan"][key] != settings["plan"].get(key)]
    reason = f"another plan: {', '.join(other)}" if other else ""
    if moved := _other_directions(settings, made):
        reason = f"other directions than stored: {', '.join(moved)}"
    stored, found = _datasets(file), _datasets(out)
    # Paths are of other runs' weights; an unfinished spectrum is made again with all its stages.
    stored = {name: a for name, a in stored.items() if not name.startswith(f"{TRAJECTORIES}/")}
    identical = stored.keys() <= found.keys() and all(
        stored[name].tobytes() == found[name].tobytes() for name in stored
    )
    stated = [name for name in stored if name.endswith(STATED) and name in found]
    difference = max(_difference(stored[name], found[name]) for name in stated)
    curved = kind in ("hessian", KIND) or "max_eig" in stored
    tolerance = CURVATURE_TOLERANCE if curved else TOLERANCE
    return Part(file.name, identical, difference, tolerance, reason)


def _other_directions(stored: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Name the axes whose directions came out otherwise: another run's weights have changed, .."""
    pairs = [settings.get("directions", {}) for settings in (stored, made)]
    return [
        f"{axis} ({recipe.get('label', recipe.get('kind'))})"
        for axis, recipe in pairs[0].items()
        if recipe.get("digest") != pairs[1].get(axis, {}).get("digest")
    ]


def _complete(file: Path) -> bool:
    data = read_surface(file)
    return bool(data.done.all() and (data.repeats is None or data.repeats.done.all()))


def _datasets(file: Path) -> dict[str, np.ndarray]:
    """Return every number of a file, by name."""
    with open_hdf5(file) as content:
        return dict(_numbers(content, ""))


def _numbers(group: StoredGroup, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for name in group.names():
        if not group.is_array(name):
            yield from _numbers(group.group(name), f"{prefix}{name}/")
            continue
        with suppress(FileError):  # a text: the name of the file
            yield f"{prefix}{name}", group.array(name)


def _difference(stored: np.ndarray, found: np.ndarray) -> float:
    """Return max |a - b| / max |a| over finite entries; inf where shape or finiteness differ."""
    if stored.shape != found.shape:
        return float("inf")
    a, b = np.asarray(stored, float), np.asarray(found, float)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = float(np.abs(a[finite]).max())
    return float(np.abs(a[finite] - b[finite]).max()) / (largest or 1.0)


def as_json(parts: list[Part]) -> Iterator[Mapping[str, Any]]:
    """Yield what came of each part, JSON-able."""
    for part in parts:
        yield {**vars(part), "reproduced": part.reproduced}
