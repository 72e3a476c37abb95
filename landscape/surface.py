"""Surfaces: problems evaluated on a grid of directions, point by point, kept as they come."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.landscape.columns import LossAndAccuracy, Measure, names_of
from isoloss.landscape.directions import Direction, cosine, random_directions
from isoloss.landscape.grid import Grid
from isoloss.landscape.memory import require_for_evaluation
from isoloss.landscape.problem import Problem
from isoloss.landscape.repeats import bytes_of
from isoloss.landscape.variances import refuse_negative_variances
from isoloss.parallel import Executor, InProcess
from isoloss.records.identity import differing, refuse_other_function
from isoloss.records.progress import Progress, shown
from isoloss.records.surfaces import (
    LARGEST_STORED_DIRECTION,
    StoredDirection,
    StoredRepeat,
    SurfaceData,
    SurfaceStore,
)

# Entries of an identity that differ between the splits of one surface.
OF_A_SPLIT = ("samples", "digest", "population", "sample")


class SurfaceError(IsolossError, ValueError):
    """Problems, grid and directions that do not fit together."""


class Surface:
    r"""L(theta0 + x d_x + y d_y) for each split, over a grid.

    Each point is formed from theta0 anew, so that no rounding builds up and the order of the
    points does not matter.

    Args:
        problems: One problem, or several by split (`{"train": .., "test": ..}`) that share one
            network. A single problem counts as `train`.
        grid: One axis or two.
        directions: As many as the grid has axes; where None, random ones with the defaults of
            `random_directions` are drawn.
        seed: Of the directions that are drawn, 0 where None.
        repeats: Further sets of as many, drawn in the same way with other seeds: the grid is
            evaluated along each, after the first. Indexed whenever one is needed, so that it may
            make them anew (`landscape.repeats.Draws`).
        measures: What is computed at each point; loss and accuracy where None.
        about: What else to store with the surface, JSON-able; compared when it is resumed.

    Attributes:
        columns: Names of a point's values, in order.

    Raises:
        ColumnError: If two columns have one name.
        SurfaceError: If the numbers of axes and directions differ, shapes do not fit, a seed is
            given with directions, or repeats are not made as the first directions are.
        DirectionError: If running variances that move become negative within the grid.
    """

    def __init__(
        self,
        problems: Problem | Mapping[str, Problem],
        grid: Grid,
        directions: Sequence[Direction] | None = None,
        *,
        seed: int | None = None,
        repeats: Sequence[Sequence[Direction]] = (),
        measures: Sequence[Measure] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.problems = {"train": problems} if isinstance(problems, Problem) else dict(problems)
        first = next(iter(self.problems.values()))
        if directions is None:
            directions = random_directions(first.parameters, len(grid.shape), seed=seed or 0)
        elif seed is not None:
            raise SurfaceError(
                f"expected directions or a seed to draw them with, got both (seed {seed})"
            )
        self.grid, self.directions, self.repeats = grid, list(directions), repeats
        shapes = _shapes(first.parameters)
        for split, problem in self.problems.items():
            if _shapes(problem.parameters) != shapes:
                raise SurfaceError(
                    f"expected problems over the same parameters, those of {split!r} are others"
                )
        # theta0, and the buffers that a direction moves.
        moved = {name for direction in self.directions for name in direction.like}
        self.origin = first.parameters | {n: t for n, t in first.buffers.items() if n in moved}
        self._check(self.directions, shapes)
        self._point: dict[str, Tensor] = {}
        self.cosine = _cosine(self.directions)
        self._recipes = [[direction.recipe() for direction in self.directions]]
        self._cosines: list[float | None] = []
        for number, again in enumerate(repeats, start=1):
            self._check(again, shapes)
            self._recipes.append([direction.recipe() for direction in again])
            self._cosines.append(_cosine(again))
            _refuse_other_making(number, self._recipes[0], self._recipes[-1])
        self.measures = [LossAndAccuracy()] if measures is None else list(measures)
        self.columns = names_of(self.measures, self.problems)
        self.settings = {**(about or {}), **self._own_settings()}

    def _check(
        self, directions: Sequence[Direction], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        movable = {**shapes, **_shapes(next(iter(self.problems.values())).buffers)}
        if len(directions) != len(self.grid.shape):
            raise SurfaceError(
                f"expected a direction for each of the {len(self.grid.shape)} axes, "
                f"got {len(directions)}"
            )
        for direction in directions:
            found = _shapes(direction.like)
            if not shapes.keys() <= found.keys() or found != {n: movable.get(n) for n in found}:
                raise SurfaceError(
                    "expected directions with the names and shapes of the network's parameters, "
                    f"got a {direction.kind} direction made for other ones"
                )
        refuse_negative_variances(self.origin, directions, self.grid)

    @property
    def points(self) -> int:
        """Points of the grid along all directions, theta0 not counted."""
        return self.grid.size * (1 + len(self.repeats))

    @property
    def stored_bytes(self) -> int:
        """About the size of the file: directions and values."""
        sizes = [bytes_of([direction]) for direction in self.directions]
        arrays = sum(size for size in sizes if size <= LARGEST_STORED_DIRECTION)
        copies = self.points + (self.grid.size if self.repeats else 0)
        if self._repeats_are_small:
            arrays += len(self.repeats) * bytes_of(self.directions)
        return arrays + 8 * len(self.columns) * copies

    @property
    def _repeats_are_small(self) -> bool:
        return len(self.repeats) * bytes_of(self.directions) <= LARGEST_STORED_DIRECTION

    def point_at(self, *coordinates: float, repeat: int = 0) -> dict[str, Tensor]:
        """Return theta0 + sum_k c_k d_k, with the directions of a repeat (0 is the first).

        Buffers that directions move are among it (see `Problem`).
        """
        return self._write({}, coordinates, repeat)

    def _write(
        self, point: dict[str, Tensor], coordinates: Sequence[float], repeat: int
    ) -> dict[str, Tensor]:
        """Form a point in the tensors that are there, and in new ones where there are none."""
        directions = self.directions if repeat == 0 else self.repeats[repeat - 1]
        steps = list(zip(coordinates, directions, strict=True))
        for name, origin in self.origin.items():
            if name not in point:
                point[name] = torch.empty_like(origin)
            here = origin
            for c, direction in steps:
                if name in direction.like:
                    here = torch.add(here, direction.tensors[name], alpha=c, out=point[name])
            if here is origin:
                point[name].copy_(origin)
        return point

    def evaluate_at(self, *coordinates: float, repeat: int = 0) -> tuple[float, ...]:
        """Return the values of `columns` at a point of a repeat; accuracies in percent.

        All points are formed in the same tensors.
        """
        point = self._write(self._point, coordinates, repeat)
        return tuple(v for measure in self.measures for v in measure.values(self.problems, point))

    def evaluate_number(self, number: int) -> tuple[float, ...]:
        """Return the values of `columns` at a point by its number, as of `place_of`."""
        at, repeat = self.place_of(number)
        return self.evaluate_at(*at, repeat=repeat)

    def place_of(self, number: int) -> tuple[tuple[float, ...], int]:
        """Return coordinates and repeat of a point by its number.

        Points are numbered row-major, repeat after repeat; the number `points` is theta0.
        """
        if number == self.points:
            return (0.0,) * len(self.directions), 0
        repeat, place = divmod(number, self.grid.size)
        return self.grid.coordinates(place), repeat

    def store(self, path: Path | str | None, *, fresh: bool = False) -> SurfaceStore:
        """Return the store of this surface at a path; `load` it to see what is done already."""
        x, y = self.grid.x.points, None if self.grid.y is None else self.grid.y.points
        return SurfaceStore(
            path,
            x,
            y,
            self.columns,
            self.settings,
            [direction.stored() for direction in self.directions],
            self.cosine,
            self._stored_repeats(),
            fresh=fresh,
        )

    def _stored_repeats(self) -> list[StoredRepeat]:
        found = []
        for index, found_cosine in enumerate(self._cosines):
            if self._repeats_are_small:
                stored = [direction.stored() for direction in self.repeats[index]]
            else:
                stored = [StoredDirection(recipe, []) for recipe in self._recipes[index + 1]]
            found.append(StoredRepeat(stored, found_cosine))
        return found

    def run(
        self,
        path: Path | str | None = None,
        progress: Progress | bool | None = None,
        *,
        fresh: bool = False,
        known: Mapping[int, Sequence[float]] | None = None,
        executor: Executor | None = None,
        build: Callable[[], Surface] | None = None,
    ) -> SurfaceData:
        """Evaluate every point that is not finished yet.

        With several workers (`executor=Processes(4), build=f`) each makes the surface once by `f`,
        a function of a module without arguments; this process alone writes the file, whose bytes
        are those of one process with the same plan.

        Args:
            path: An .h5 file to stream to and to resume from; kept in memory only where None.
            progress: Called as `progress(done, total)` after each point; True for a bar.
            fresh: Whether to start over. A surface that is there is replaced once points of this
                one are written, and is as it was until then.
            known: Values of `columns` that were computed elsewhere, by the point's number
                iy nx + ix: they are kept as they are.
            executor: What evaluates the points; this process where None.
            build: Makes this surface in another process, of the same weights, data and settings.

        Returns:
            The surface. What was finished when an exception (Ctrl-C too) ended the work is on
            disk, and the same call goes on from there.

        Raises:
            SettingsDifferError: If the file holds another computation.
            LockedError: If another process writes the file.
            FileError: If the file is no surface of ours.
            SurfaceError: If there is an executor and no `build`, or it makes another surface.
            WorkError: As `Executor.map`, of workers.
        """
        if (executor is None) != (build is None):
            raise SurfaceError(
                "expected an executor together with `build`, a function of a module that makes "
                "this surface in each worker, got one of them"
            )
        store = self.store(path, fresh=fresh)
        store.load()
        origin = self.points
        if origin in store.records:
            # The cheapest columns, as a rule: what is changed shows in the loss.
            plain = {split: problem.uncompiled() for split, problem in self.problems.items()}
            found = self.measures[0].values(plain, self.point_at(*self.place_of(origin)[0]))
            stored = store.records[origin][: len(found)]
            refuse_other_function(store.path, self.columns[0], stored, found)
        if store.complete:
            store.settle()
            return store.data()
        next(iter(self.problems.values())).plan.apply()
        for problem in self.problems.values():
            require_for_evaluation(problem)
        store.start()
        for index, elsewhere in (known or {}).items():
            if index not in store.records:
                store.append(index, tuple(elsewhere))
        # theta0 first: it is stored also where the grid misses 0.
        pending = [i for i in (origin, *range(origin)) if i not in store.records]
        executor = executor or InProcess()
        recipe = (lambda: self.evaluate_number) if build is None else PointsOf(build, self.settings)
        try:
            with (
                shown(progress, "surface") as report,
                closing(executor.map(recipe, pending, self._named)) as values,
            ):
                for index, found in values:
                    store.append(index, found)
                    if report is not None:
                        report(len(store.records), origin + 1)
        finally:
            store.finish()
        return store.data()

    def _named(self, number: int) -> str:
        at, repeat = self.place_of(number)
        place = ", ".join(f"{axis} = {c:g}" for axis, c in zip("xy", at, strict=False))
        return f"the point {place}" + (f" of repeat {repeat}" if self.repeats else "")

    def _own_settings(self) -> dict[str, Any]:
        first = next(iter(self.problems.values()))
        identities = {split: problem.identity() for split, problem in self.problems.items()}
        extra = {k: v for measure in self.measures for k, v in measure.settings().items()}
        return {
            **identities[next(iter(identities))],
            **{
                key: {split: own[key] for split, own in identities.items() if key in own}
                for key in OF_A_SPLIT
                if any(key in own for own in identities.values())
            },
            "grid": {
                "x": self.grid.x.text,
                "y": None if self.grid.y is None else self.grid.y.text,
            },
            "directions": dict(zip("xy", self._recipes[0], strict=False)),
            **self._repeat_settings(),
            **({"columns": extra} if extra else {}),
            "device": first.device.type,
            "plan": first.plan.to_json(),
        }

    def _repeat_settings(self) -> dict[str, Any]:
        """Say how many repeats there are and which; what made them is that of the first."""
        if not self.repeats:
            return {}
        return {
            "repeat": 1 + len(self.repeats),
            "repeats": {
                "seeds": [_seed(recipes) for recipes in self._recipes],
                "digests": [[recipe["digest"] for recipe in recipes] for recipes in self._recipes],
            },
        }


@dataclass(frozen=True)
class PointsOf:
    """What a worker evaluates points of a surface with, and is sent.

    Attributes:
        build: Makes the surface.
        settings: Of the surface that it has to be.
    """

    build: Callable[[], Surface]
    settings: Mapping[str, Any]

    def __call__(self) -> Callable[[int], tuple[float, ...]]:
        """Make the surface and return its `evaluate_number`.

        Raises:
            SurfaceError: If it is another one than was asked for.
        """
        torch.set_num_threads(self.settings["plan"]["threads"])
        surface = self.build()
        if others := differing(self.settings, surface.settings):
            raise SurfaceError(
                "expected workers to make the surface that they are to evaluate, theirs differs in "
                f"{'; '.join(others[:4])}\n`build` has to make the same one wherever it is called"
            )
        next(iter(surface.problems.values())).plan.apply()
        plans = {split: problem.plan for split, problem in surface.problems.items()}
        for problem in surface.problems.values():
            require_for_evaluation(problem)

        def evaluate(number: int) -> tuple[float, ...]:
            found = surface.evaluate_number(number)
            for split, problem in surface.problems.items():
                if problem.plan is not plans[split]:
                    size, plans[split] = problem.plan.micro_batch, problem.plan
                    text = f"memory ran out: a worker went on with {size} samples of {split}"
                    warnings.warn(f"{text} at a time", stacklevel=2)
            return found

        return evaluate


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _cosine(directions: Sequence[Direction]) -> float | None:
    return cosine(*directions) if len(directions) == 2 else None


def _seed(recipes: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the seed of the directions of a repeat that are random."""
    return next((recipe["seed"] for recipe in recipes if "seed" in recipe), None)


def _refuse_other_making(
    number: int, first: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse a repeat that differs from the first directions in more than its seed."""
    for axis, one, other in zip("xy", first, again, strict=False):
        for key in sorted(one.keys() - {"seed", "digest"}):
            if one[key] != other[key]:
                raise SurfaceError(
                    f"expected {axis} of repeat {number} with {key} {one[key]!r}, "
                    f"as of the first direction, got {other[key]!r}"
                )
