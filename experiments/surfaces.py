"""A surface of a subject: from settings to the file, resumed, and the numbers people ask of it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.experiments import continuing
from isoloss.experiments.columns import check_columns, measures_of
from isoloss.experiments.devices import peak_memory, resolve_device
from isoloss.experiments.direction_kinds import Start
from isoloss.experiments.direction_specs import slug
from isoloss.experiments.directions import Axes, specs_of
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.reporting import Cost, Reporter, announcing, heard_by
from isoloss.experiments.selection import again
from isoloss.experiments.settings import SPLITS, Selection, SurfaceSettings
from isoloss.experiments.spreading import Spread, computing_with, spread
from isoloss.experiments.spreading_settings import Spreading
from isoloss.experiments.trained import Trained, parameter_counts
from isoloss.landscape import Grid, Plan, Problem, Surface
from isoloss.landscape.autotune import autotune
from isoloss.landscape.batch_norm import check_policy
from isoloss.landscape.compiling import compile_networks, compile_seconds
from isoloss.landscape.grid import LARGEST_GRID, GridError
from isoloss.landscape.normalisation import check_rules
from isoloss.landscape.repeats import Draws, repeat_seeds
from isoloss.records.identity import SettingsDifferError
from isoloss.records.runs import write_json
from isoloss.records.surfaces import SurfaceData, stored_settings

# What the settings of a surface that was begun lend to whoever goes on with it.
LENT = ("plan", "half_error")


@dataclass(frozen=True)
class SurfaceResult:
    """A finished surface.

    Attributes:
        data: The surface.
        path: Its file; None where it is in memory only.
        computed: Points that this call evaluated, theta0 included.
        seconds: How long that took, compiling left out.
        plans: By split, how the work was done in the end where memory ran out.
        compile_seconds: How long compiling the networks took; 0 where they were not.
    """

    data: SurfaceData
    path: Path | None
    computed: int
    seconds: float
    plans: dict[str, Any] = field(default_factory=dict)
    compile_seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return origin, extremes, and what is not finite, JSON-able."""
        summary = summarise(self.data) | {"file": self.path, "points_computed": self.computed}
        changed = {"plan_after_running_out_of_memory": self.plans} if self.plans else {}
        times = {"seconds": self.seconds} if self.computed else {}
        if self.compile_seconds:
            times["compile_seconds"] = self.compile_seconds
        return summary | changed | times


class SurfaceExperiment:
    """A surface of a subject.

    Args:
        subject: The network with its data and loss.
        settings: What to evaluate.
        path: An .h5 file; in the run's folder where None.
        fresh: Whether to start over where a surface is there already.
        continue_from: A surface file of the loss-landscape code, half-done perhaps: what is
            finished there is taken over, along its directions.
        spreading: Who evaluates the points; this process where None.

    Raises:
        UsageError: For settings that describe no surface.
    """

    def __init__(
        self,
        subject: Trained,
        settings: SurfaceSettings,
        path: Path | str | None = None,
        *,
        fresh: bool = False,
        continue_from: Path | None = None,
        spreading: Spreading | None = None,
    ) -> None:
        if continue_from is not None:
            settings = continuing.with_its_directions(settings, continue_from)
        check_surface(settings)
        self.not_compiled: str | None = None
        self.subject, self.settings, self.continue_from = subject, settings, continue_from
        self.path = subject.file(default_name(settings)) if path is None else Path(path)
        self.fresh, self.spreading = fresh, spreading or Spreading()

    @cached_property
    def task(self) -> Surface:
        """The surface with its problems, built once."""
        return self.build()

    @cached_property
    def spread(self) -> Spread:
        """Who evaluates the points, with how many threads each."""
        stored, device = self._stored(), resolve_device(self.settings.device)
        threads = None if stored is None else Plan.from_json(stored["plan"]).threads
        return spread(self.spreading, device, threads)

    def _stored(self) -> dict[str, Any] | None:
        return None if self.path is None or self.fresh else stored_settings(self.path)

    def build(self) -> Surface:
        """Assemble problems, directions and grid; a surface that was begun lends its plan."""
        with computing_with(self.spread.threads):
            task, self.not_compiled = surface_of(
                self.subject, self.settings, self._stored(), self.continue_from
            )
        return task

    def run(self, reporter: Reporter | None = None, *, progress: bool = False) -> SurfaceResult:
        """Evaluate every point that is not finished yet.

        Finished points are kept as they come: after an interruption the same call goes on.

        Args:
            reporter: Told what happens.
            progress: Whether to show a bar where there is no reporter.
        """
        reporter = heard_by(reporter, progress)
        task = self.task
        parameters = next(iter(task.problems.values())).parameters
        moved = sum(tensor.numel() for tensor in parameters.values())
        samples = " and ".join(f"{p.count:,} {name}" for name, p in task.problems.items())
        reporter.say(
            f"surface of {self.subject.label}: {parameter_counts(self.subject.model, moved)}, "
            f"{samples} samples, {task.points:,} points"
            + (f", {self.spread.text}" if self.spread.text else "")
        )
        if self.not_compiled is not None:
            reporter.warn(f"went on without compiling: {self.not_compiled}")
        store = task.store(self.path, fresh=self.fresh)
        finished, total = len(store.load()), task.points + 1
        if store.complete:
            reporter.say(f"{self.path} is complete: all {task.points} points are done")
        elif finished:
            reporter.say(f"{self.path}: going on after {finished} of {total} points")
        known = {}
        if self.continue_from is not None and not finished:
            known = continuing.taken_over(task, self.continue_from)
            reporter.say(f"{self.continue_from}: {len(known)} of {task.points} points taken over")
        began, compiled_before = time.monotonic(), self._compile_seconds()
        try:
            with reporter.progress(f"surface of {self.subject.label}") as shown:
                advice = "fewer with `samples` or a coarser grid"
                report = announcing(reporter, shown, "points", advice)
                with computing_with(self.spread.threads):
                    data = task.run(
                        self.path,
                        report,
                        fresh=self.fresh,
                        known=known,
                        executor=self.spread.executor,
                        build=None if self.spread.executor is None else self._recipe(),
                    )
        except KeyboardInterrupt:
            with contextlib.suppress(SettingsDifferError):  # before a point replaced an old file
                finished = len(task.store(self.path).load())
            again = "the same without `force`" if self.fresh else "the same command"
            raise ExperimentError(
                f"interrupted after {finished} of {total} points, which are kept in {self.path}\n"
                f"{again} goes on from there"
            ) from None
        compile_seconds = self._compile_seconds()
        seconds = time.monotonic() - began - (compile_seconds - compiled_before)
        plans = {name: p.plan.to_json() for name, p in task.problems.items()}
        plans = {name: plan for name, plan in plans.items() if plan != task.settings["plan"]}
        for name, plan in plans.items():
            size = plan["micro_batch"]
            reporter.warn(f"memory ran out: went on with {size} samples of {name} at a time")
        computed = total - finished - len(known)
        result = SurfaceResult(data, self.path, computed, seconds, plans, compile_seconds)
        if self.path is not None:
            beside = self.path.with_suffix(".json")
            if result.computed or not beside.exists():
                write_json(beside, result.summary())
        return result

    def _compile_seconds(self) -> float:
        return sum(map(compile_seconds, self.task.problems.values()))

    def _recipe(self) -> SurfaceRecipe:
        """Return what makes the surface in a worker: on the same kind of device, by its plan."""
        problem = next(iter(self.task.problems.values()))
        return SurfaceRecipe(
            self.subject.selection or self.subject,
            replace(self.settings, device=str(problem.device)),
            {name: self.task.settings[name] for name in LENT if name in self.task.settings},
            self.continue_from,
        )

    def cost(self) -> Cost:
        """Time a few points and scale up, for this process alone."""
        task = self.task
        zero = (0.0,) * len(task.directions)
        task.evaluate_at(*zero)  # the first pass sets buffers up
        began, repeats = time.perf_counter(), 3
        for _ in range(repeats):
            task.evaluate_at(*zero)
        point = (time.perf_counter() - began) / repeats
        units = task.points + 1
        cost = Cost(point * units, units, "points", task.stored_bytes, peak_memory())
        return replace(cost, compile_seconds=self._compile_seconds())


@dataclass(frozen=True)
class SurfaceRecipe:
    """What a worker makes the surface from.

    Attributes:
        subject: What selects it, or the subject itself.
        settings: What to evaluate, on which device.
        stored: How: `LENT` of the surface's settings.
        continue_from: As of `SurfaceExperiment`.
    """

    subject: Selection | Trained
    settings: SurfaceSettings
    stored: Mapping[str, Any]
    continue_from: Path | None = None

    def __call__(self) -> Surface:
        """Make it."""
        subject = self.subject
        subject = again(subject) if isinstance(subject, Selection) else subject
        return surface_of(subject, self.settings, self.stored, self.continue_from)[0]


def surface_of(
    subject: Trained,
    settings: SurfaceSettings,
    stored: Mapping[str, Any] | None = None,
    continue_from: Path | None = None,
) -> tuple[Surface, str | None]:
    """Assemble problems, directions and grid of a surface.

    Args:
        subject: The network with its data and loss.
        settings: What to evaluate.
        stored: Settings of one that was begun, which lends `LENT`; None for a new one.
        continue_from: As of `SurfaceExperiment`.

    Returns:
        The surface, and why its networks are not compiled where that was meant to be.
    """
    plan = None if stored is None else Plan.from_json(stored["plan"])
    problems: dict[str, Problem] = {}
    for split in SPLITS[settings.split]:
        problem = subject.problem(split, settings, settings, plan)
        problems[split], plan = problem, problem.plan
    grid, not_compiled = Grid.parse(settings.x, settings.y), None
    every, points = list(problems.values()), grid.size * settings.repeat + 1
    if stored is None:
        choose = autotune if settings.autotune else compile_networks
        not_compiled = choose(every, points, settings.compile)
    elif settings.compile is False:  # one that was begun compiled is refused
        for problem in every:
            problem.plan = replace(problem.plan, compile=False)
    start = Start(subject, every[0], settings)
    draw = Axes(specs_of(settings), start).draw
    first, *others = repeat_seeds(settings.seed, settings.repeat)
    about = {
        **subject.notes_of_result(),
        "split": settings.split,
        "asked": asdict(settings),
        **half_error(subject, settings, problems, stored),
        **({} if continue_from is None else continuing.about(continue_from)),
    }
    surface = Surface(
        problems,
        grid,
        draw(first),
        repeats=Draws(draw, others),
        measures=measures_of(settings),
        about=about,
    )
    return surface, not_compiled


def half_error(
    subject: Trained,
    settings: SurfaceSettings,
    problems: Mapping[str, Problem],
    stored: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return by split how far bfloat16 is off float64 at theta0, |L - L64| / |L64|."""
    if settings.dtype != "bfloat16" or resolve_device(settings.device).type == "mps":
        return {}  # Apple's GPUs have no float64
    if stored is not None and "half_error" in stored:
        return {"half_error": stored["half_error"]}
    found = {}
    for split, problem in problems.items():
        double = subject.problem(split, settings, replace(settings, dtype="float64"))
        exact = double.evaluate().loss
        error = abs(problem.evaluate().loss - exact) / max(abs(exact), 1e-300)
        if math.isfinite(error):
            found[split] = error
    return {"half_error": found}


def default_name(settings: SurfaceSettings) -> str:
    """Return the name of a surface's file: surface-1d.h5, and surface-1d-to-b.h5 towards b."""
    directions = [settings.xdir] if settings.y is None else [settings.xdir, settings.ydir]
    parts = ["1d" if settings.y is None else "2d"]
    if any(text != "random" for text in directions):
        parts += map(slug, directions)
    return f"surface-{'-'.join(parts)}.h5"


def check_surface(settings: SurfaceSettings) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    grid = Grid.parse(settings.x, settings.y)
    if grid.size * settings.repeat > LARGEST_GRID:
        raise GridError(
            f"expected {LARGEST_GRID:,} points at most along all directions, got `repeat` "
            f"{settings.repeat} of {grid.size:,}"
        )
    specs_of(settings)
    for rule, skip in zip(settings.normalisation, settings.ignored, strict=True):
        check_rules(rule or "none", skip or "none")
    check_policy(settings.bn, settings.bn_batch)
    check_columns(settings)


def summarise(data: SurfaceData) -> dict[str, Any]:
    """Return the numbers people ask of a surface: origin, extremes, and what is not finite."""
    columns: dict[str, Any] = {}
    every = data if data.repeats is None else data.repeats
    for name, values in every.values.items():
        finite = values[np.isfinite(values)]
        columns[name] = {
            "origin": data.origin.get(name),
            "min": float(finite.min()) if finite.size else None,
            "max": float(finite.max()) if finite.size else None,
            # An accuracy that has no meaning, of a regression, is NaN throughout.
            "not_finite": int(np.sum(every.done & ~np.isfinite(values))) if finite.size else None,
        }
        if name.endswith("_loss") and (widest := data.widest(name)):
            columns[name]["widest"] = asdict(widest)
    several = {} if data.repeat == 1 else {"repeat": data.repeat}
    return {
        "shape": list(data.done.shape),
        **several,
        "points": int(every.done.size),
        "done": int(every.done.sum()),
        "cosine": data.cosine,
        "columns": columns,
    }
