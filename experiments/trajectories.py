"""Paths of trainings on one plane: the surface of the plane, and each path in the same file."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.experiments.epoch_paths import (
    EpochPath,
    refuse_other_functions,
    refuse_other_networks,
)
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.measuring import part
from isoloss.experiments.options import OptionError, make
from isoloss.experiments.reporting import Cost, Reporter, announcing, heard_by
from isoloss.experiments.selection import select
from isoloss.experiments.settings import (
    SPLITS,
    Folders,
    Selection,
    SurfaceSettings,
    TrajectorySettings,
)
from isoloss.experiments.spreading_settings import Spreading
from isoloss.experiments.surfaces import SurfaceExperiment, SurfaceResult
from isoloss.experiments.trained import Trained
from isoloss.landscape import Surface
from isoloss.landscape.trajectory import Plane, enclosing_axes, path_point
from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5
from isoloss.records.identity import FREE_SETTINGS
from isoloss.records.journal import Journal, read_header
from isoloss.records.runs import Run, write_json
from isoloss.records.surfaces import SurfaceData, stored_settings
from isoloss.records.trajectories import Trajectory
from isoloss.trainers.checkpoints import load_weights

# What is kept of a point of a path while others are pending.
KEPT = ("x", "y", "loss", "plane_loss", "distance", "from_origin")
# What batch norm's statistics are on the plane, by policy.
STATISTICS = {"eval": "held", "train": "of each batch", "recalibrate": "recalibrated"}


@dataclass(frozen=True)
class TrajectoryResult:
    """Paths on a surface.

    Attributes:
        surface: The surface, its data with the paths.
        computed: Points of paths that this call evaluated.
    """

    surface: SurfaceResult
    computed: int

    @property
    def data(self) -> SurfaceData:
        """The surface with the paths."""
        return self.surface.data

    def summary(self) -> dict[str, Any]:
        """Return the surface's summary with one of each path, JSON-able."""
        return {
            **self.surface.summary(),
            "path_points_computed": self.computed,
            "components": components(self.data),
            "trajectories": {
                name: summarise_path(path) for name, path in self.data.trajectories.items()
            },
        }


def components(data: SurfaceData) -> dict[str, dict[str, Any]]:
    """Return of each axis that is a principal component what it explains, and a random walk."""
    named = ("component", "points", "explained_variance_ratio", "random_walk")
    return {
        axis: {name: recipe[name] for name in named}
        for axis, recipe in data.settings["directions"].items()
        if recipe["kind"] == "pca"
    }


def summarise_path(path: Trajectory) -> dict[str, Any]:
    """Return how far a path is from the plane at most, and how far its losses from the plane's."""
    furthest = int(path.distance.argmax())
    apart = np.abs(path.loss - path.plane_loss)
    worst = int(np.nan_to_num(apart, nan=np.inf).argmax())
    return {
        "label": path.about["label"],
        "points": len(path.epoch),
        "largest_distance": float(path.distance[furthest]),
        "relative_to_origin": float(path.relative_distance[furthest]),
        "at_epoch": int(path.epoch[furthest]),
        "largest_loss_difference": float(apart[worst]),
        "loss_there": float(path.loss[worst]),
        "plane_loss_there": float(path.plane_loss[worst]),
        "loss_difference_at_epoch": int(path.epoch[worst]),
    }


class TrajectoryExperiment:
    """The surface of a plane, and the paths of trainings on it.

    Args:
        subject: The network that the plane goes through.
        paths: The paths.
        settings: Of the plane. An axis may be `auto:COUNT`, which holds all paths; principal
            components are of the epochs of all of them where `TrajectorySettings` do not say of
            which, and of the subject's where other settings do not.
        path: An .h5 file; in the subject's run where None.
        fresh: Whether to start over where one is there already.
        spreading: Who evaluates the plane; this process where None.

    Raises:
        UsageError: For settings that describe no plane.
        ExperimentError: For paths of another network or loss.
    """

    def __init__(
        self,
        subject: Trained,
        paths: Sequence[EpochPath],
        settings: SurfaceSettings,
        path: Path | str | None = None,
        *,
        fresh: bool = False,
        spreading: Spreading | None = None,
    ) -> None:
        run = subject.run
        assert run is not None
        if settings.y is None:
            raise OptionError("y", "expected two axes for paths to be drawn on, got one")
        if settings.repeat > 1:
            raise OptionError(
                "repeat", f"expected 1: paths are on one plane, got {settings.repeat}"
            )
        refuse_other_networks(subject.model, run.name, paths)
        refuse_other_functions(run, [one.run for one in paths])
        self.subject, self.paths, self.fresh = subject, paths, fresh
        self.spreading = spreading
        names = [one.run.name for one in paths]
        self.path = run.path / default_name(run, names) if path is None else Path(path)
        self.settings = settings
        if isinstance(settings, TrajectorySettings):
            self.settings = _of_all(settings, run, names)

    def placed(self) -> SurfaceSettings:
        """Return the settings with ends of both axes: those stored, else what holds the paths."""
        settings = self.settings
        counts = {axis: _automatic(axis, getattr(settings, axis)) for axis in "xy"}
        counts = {axis: count for axis, count in counts.items() if count}
        stored = None if self.fresh else stored_settings(self.path)
        if counts and stored is not None:
            grid: dict[str, Any] = {axis: str(stored["grid"][axis]) for axis in counts}
            if all(grid[axis].endswith(f":{count}") for axis, count in counts.items()):
                return replace(settings, **grid)
        if counts:
            provisional = replace(settings, x="0:0:1", y="0:0:1")
            task = SurfaceExperiment(self.subject, provisional, self.path, fresh=True).build()
            plane = Plane(task.origin, task.directions)
            files = [file for one in self.paths for file in one.files]
            points = [plane.project(load_weights(file)).coordinates for file in files]
            ends = dict(zip("xy", enclosing_axes(np.array(points)), strict=True))
            grid = {a: f"{ends[a][0]!r}:{ends[a][1]!r}:{n}" for a, n in counts.items()}
            settings = replace(settings, **grid)
        return settings

    def run(self, reporter: Reporter | None = None, *, progress: bool = False) -> TrajectoryResult:
        """Evaluate the surface, then every point of the paths, as far as that is not done.

        Args:
            reporter: Told what happens.
            progress: Whether to show a bar where there is no reporter.
        """
        reporter = heard_by(reporter, progress)
        placed = self.placed()
        experiment = SurfaceExperiment(
            self.subject, placed, self.path, fresh=self.fresh, spreading=self.spreading
        )
        surface = experiment.run(reporter)
        computed = self._follow(experiment.task, reporter)
        store = experiment.task.store(self.path)
        store.load()
        result = TrajectoryResult(replace(surface, data=store.data()), computed)
        if computed or surface.computed or not self.path.with_suffix(".json").exists():
            write_json(self.path.with_suffix(".json"), result.summary())
        return result

    def cost(self) -> Cost:
        """Time a few points and scale up; a point of a path takes two evaluations."""
        experiment = SurfaceExperiment(self.subject, self.placed(), self.path, fresh=True)
        cost = experiment.cost()
        units = cost.units + 2 * sum(len(one.files) for one in self.paths)
        return replace(cost, seconds=cost.seconds / cost.units * units, units=units)

    def _follow(self, task: Surface, reporter: Reporter) -> int:
        """Put those paths into the file that it lacks; return how many points were evaluated."""
        store = task.store(self.path)
        store.load()
        abouts = {one.run.name: self._about(one) for one in self.paths}
        missing = [
            one
            for one in self.paths
            if (there := store.trajectories.get(one.run.name)) is None
            or there.about != abouts[one.run.name]
        ]
        if not missing:
            reporter.say(f"{self.path} has all paths: {', '.join(abouts)}")
            return 0
        header = {
            "paths": {one.run.name: abouts[one.run.name] for one in missing},
            "settings": {k: v for k, v in task.settings.items() if k not in FREE_SETTINGS},
        }
        points = [(one, i) for one in missing for i in range(len(one.files))]
        store.start()
        try:
            with contextlib.closing(self._journal(header)) as journal:
                records = journal.start()
                computed = len(points) - len(records)
                self._evaluate(task, points, records, journal, reporter)
            values = np.array([records[index] for index in range(len(points))])
            for one in missing:
                mine = values[[k for k, (other, _) in enumerate(points) if other is one]]
                columns = dict(zip(KEPT, mine.T, strict=True))
                about = abouts[one.run.name]
                store.trajectories[one.run.name] = Trajectory(
                    epoch=np.array(one.epochs), about=about, **columns
                )
        except KeyboardInterrupt:
            raise ExperimentError(
                f"interrupted among {len(points)} points of paths, the surface is kept in "
                f"{self.path}\nthe same command{' without `force`' * self.fresh} goes on from there"
            ) from None
        finally:
            store.finish()
        journal.remove()
        return computed

    def _evaluate(
        self,
        task: Surface,
        points: Sequence[tuple[EpochPath, int]],
        records: dict[int, tuple[float, ...]],
        journal: Journal,
        reporter: Reporter,
    ) -> None:
        plane, split = Plane(task.origin, task.directions), SPLITS[self.settings.split][0]
        with reporter.progress("paths") as shown:
            report = announcing(reporter, shown, "points of paths", "fewer with `samples`")
            for index, (one, i) in enumerate(points):
                if index in records:
                    continue
                found = path_point(task, plane, load_weights(one.files[i]), split)
                x, y = found.projection.coordinates
                distances = (found.projection.distance, found.projection.from_origin)
                records[index] = (x, y, found.loss, found.plane_loss, *distances)
                journal.append(index, records[index])
                report(len(records), len(points))

    def _journal(self, header: dict[str, Any]) -> Journal:
        """Return the journal of pending paths; one of other paths, minutes of work, is dropped."""
        path = self.path.with_name(f"{self.path.name}.paths.journal")
        if read_header(path) not in (None, json.loads(json.dumps(header))):
            path.unlink()
        return Journal(path, header, len(KEPT))

    def _about(self, one: EpochPath) -> dict[str, Any]:
        statistics = any(buffer.is_floating_point() for buffer in self.subject.model.buffers())
        return {
            "label": one.run.label,
            "optimizer": str(one.run.config().get("optimizer") or ""),
            "split": SPLITS[self.settings.split][0],
            "checkpoints": list(one.digests),
            "buffers": STATISTICS[self.settings.bn] if statistics else "",
        }


def default_name(run: Run, names: Sequence[str]) -> str:
    """Return the name of the file of some runs' paths on a plane through a run's weights."""
    if list(names) == [run.name]:
        return "trajectory.h5"
    few = names if len(names) <= 4 else [names[0], f"{len(names) - 2}-more", names[-1]]
    return f"trajectory-{'-'.join(few)}.h5"


def stored_surface(
    file: Path, folders: Folders, reporter: Reporter | None = None
) -> tuple[Trained, SurfaceSettings]:
    """Return the network and the settings that a surface file was made with.

    Args:
        file: The file.
        folders: Where its run and the data are.
        reporter: Told what happens.

    Raises:
        FileError: If it is no surface of ours, or does not say what was asked for.
    """
    with open_hdf5(file, "surface") as content:
        settings = content.json("settings")
    if not isinstance(settings.get("asked"), dict) or not settings.get("run"):
        raise FileError(
            f"expected a surface of a run of Isoloss, got {file}, which does not say what was "
            "asked for\nmake it again with the command surface"
        )
    loss = settings["loss"]
    selection = Selection(
        run=settings["run"],
        checkpoint=Path(settings["checkpoint"]).stem,
        **{"closure" if loss.get("closure") else "loss": loss["spec"]},
        loss_arg=loss["arguments"],
        results=folders.results,
        data_dir=folders.data_dir,
        download=folders.download,
    )
    asked = {key: value for key, value in settings["asked"].items() if value is not None}
    asked["device"] = settings["device"]
    return select(selection, reporter), make(SurfaceSettings, asked)


def _automatic(axis: str, text: str) -> int | None:
    """Return the count of an axis that is to hold the paths; None for one with ends."""
    if not text.startswith("auto"):
        return None
    words = re.fullmatch(r"auto:(\d{1,9})", text)
    if words is None or int(words[1]) < 2:
        raise OptionError(axis, f"expected auto:COUNT with a count of 2 or more, got {text!r}")
    return int(words[1])


def _of_all(settings: TrajectorySettings, run: Run, names: Sequence[str]) -> SurfaceSettings:
    """Return settings whose principal components are of all paths, unless they say of which."""
    several = "" if list(names) == [run.name] else ":" + ",".join(names)
    directions: dict[str, Any] = {
        name: re.sub(r"^(pca:\d+)$", rf"\g<1>{several}", getattr(settings, name))
        for name in ("xdir", "ydir")
    }
    return replace(part(settings, SurfaceSettings), **directions)
