"""The directions of a surface from the words that ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from isoloss.experiments.direction_kinds import Start, of_gradient, to_checkpoint
from isoloss.experiments.direction_specs import Spec, parse_direction
from isoloss.experiments.epoch_paths import principal_component
from isoloss.experiments.options import OptionError
from isoloss.experiments.settings import SurfaceSettings
from isoloss.experiments.stored_directions import of_eigenvector, of_file, of_update
from isoloss.landscape import Direction
from isoloss.landscape.directions import RawDirection, finish, gaussian

# What makes the direction that a spec asks for, by its kind. Random ones are drawn, seed by seed.
MAKERS: dict[str, Callable[[Spec, Start], RawDirection]] = {
    "to": to_checkpoint,
    "eigen": of_eigenvector,
    "gradient": of_gradient,
    "pca": principal_component,
    "update": of_update,
    "file": of_file,
}


@dataclass(frozen=True)
class Axes:
    """The directions of a surface's axes, for one seed or several.

    Attributes:
        specs: What was asked for, an axis each.
        start: Where they start.
    """

    specs: Sequence[Spec]
    start: Start

    @cached_property
    def _given(self) -> dict[int, RawDirection]:
        """The directions that are the same for every seed, by axis."""
        return {
            axis: self._said(MAKERS[spec.kind](spec, self.start))
            for axis, spec in enumerate(self.specs)
            if spec.kind != "random"
        }

    def draw(self, seed: int) -> list[Direction]:
        """Return the directions, random ones drawn with a seed.

        Raises:
            UsageError: For a direction that cannot be made, or that is none.
        """
        settings, problem = self.start.settings, self.start.problem
        like = self.start.moved(states=False)
        raw = [
            self._given[axis] if axis in self._given else self._said(gaussian(like, seed, axis))
            for axis in range(len(self.specs))
        ]
        return finish(
            raw,
            {**problem.parameters, **problem.buffers},
            normalisation=settings.normalisation,
            ignore=settings.ignored,
            orthogonal=settings.orthogonal,
        )

    def _said(self, raw: RawDirection) -> RawDirection:
        """Say of a direction that buffers move, where they do."""
        if raw.tensors.keys() <= self.start.problem.parameters.keys():
            return raw
        return replace(raw, source={**raw.source, "dir_type": "states"})


def specs_of(settings: SurfaceSettings) -> list[Spec]:
    """Return what the settings ask for, an axis each.

    Raises:
        OptionError: For words that are no direction, a direction of an axis that is not there, or
            repeats without anything random.
    """
    specs = [parse_direction(settings.xdir, "xdir"), parse_direction(settings.ydir, "ydir")]
    if settings.y is None:
        if specs[1].kind != "random":
            raise specs[1].wrong("a second axis to go along it", f"{settings.ydir} without `y`")
        specs = specs[:1]
    if settings.repeat > 1 and all(spec.kind != "random" for spec in specs):
        named = " and ".join(spec.kind for spec in specs)
        raise OptionError(
            "repeat",
            f"expected a random direction to draw {settings.repeat} times, got {named}\n"
            "leave it out: the direction is the same every time",
        )
    return specs
