"""Several networks measured alike, runs or files of weights: what `compare` sets side by side."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from isoloss.errors import UsageError
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import Options
from isoloss.experiments.reporting import Forwarding, Reporter
from isoloss.experiments.settings import (
    SUFFIXES,
    Around,
    ComparisonSettings,
    Selection,
    SpectrumSettings,
    SurfaceSettings,
)
from isoloss.records.identity import SettingsDifferError
from isoloss.records.runs import Run, RunError, find_run

T = TypeVar("T", bound=Options)


class Experiment(Protocol):
    """A measurement that goes on where it was interrupted."""

    def run(self, reporter: Reporter | None = None) -> object: ...  # noqa: D102


@dataclass(frozen=True)
class Named:
    """A run, or a file of weights that is imported as one.

    Attributes:
        run: Name of the run.
        file: The file; None for a run that is there.
    """

    run: str
    file: Path | None = None


def name_all(texts: Sequence[str]) -> list[Named]:
    """Tell runs from files of weights: a run's name, a file, or NAME=FILE.

    A file becomes a run of the file's name without its ending, after that of its folder where
    several files have the same.

    Raises:
        UsageError: For a file that is not there, or two of one name.
    """
    found = [_named(text) for text in texts]
    often = Counter(_stem(file) for name, file in found if file is not None and name is None)
    named = []
    for name, file in found:
        if file is not None and name is None:
            name = _stem(file)
            if often[name] > 1:
                name = f"{_clean(file.resolve().parent.name)}-{name}"
        assert name is not None
        named.append(Named(name, file))
    if len({one.run for one in named}) < len(named):
        raise UsageError(
            f"expected each run once, got {' '.join(one.run for one in named)}\n"
            "name files of weights apart: NAME=FILE"
        )
    return named


def _named(text: str) -> tuple[str | None, Path | None]:
    """Return the name and the file that a text gives."""
    name, _, rest = text.partition("=")
    # Names of files may hold the sign themselves: epoch=3-step=1000.ckpt.
    for given, path in ((None, Path(text)), (name, Path(rest))):
        if path.suffix in SUFFIXES and path.is_file():
            return given, path
    if Path(text).suffix in SUFFIXES and ("/" in text or "=" in text):
        raise UsageError(f"expected a run or a file of weights, found no {rest or text}")
    return text, None


def _stem(file: Path) -> str:
    return _clean(file.stem)


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "weights"


def measure_all(
    networks: Sequence[Named],
    settings: ComparisonSettings,
    around: Around,
    reporter: Reporter | None = None,
    *,
    again: bool = False,
) -> list[Run]:
    """Import, evaluate and measure networks with one set of options, as far as that is not done.

    Args:
        networks: Runs and files.
        settings: What is measured of each.
        around: Network and data of the files, the loss of all where one is given, and where
            results and data are.
        reporter: Told what happens.
        again: Whether to start over where something was measured with other options.

    Returns:
        The runs.

    Raises:
        UsageError: For options that do not go together.
        ExperimentError: If something is there that was measured with other options.
        RunError: For a run that is missing.
        CheckpointError: For weights that cannot be read or do not fit the network.
    """
    from isoloss.experiments.selection import select
    from isoloss.experiments.spectra import check_spectrum
    from isoloss.experiments.surfaces import check_surface

    check_surface(part(settings, SurfaceSettings))
    check_spectrum(part(settings, SpectrumSettings))
    reporter = _ForEach(reporter or Reporter(), len(networks))
    for network in networks:
        if network.file is None:
            find_run(around.results, network.run)
    selections = [_selection(network, around) for network in networks]
    for network, selection in zip(networks, selections, strict=True):
        if network.file is not None:  # all of them, before anything long is done
            select(selection, reporter)
    return [_measure(selection, settings, reporter, again) for selection in selections]


def part(settings: Options, cls: type[T]) -> T:
    """Return the options of one of the classes that some settings inherit from."""
    return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})  # type: ignore[arg-type]


def _selection(network: Named, around: Around) -> Selection:
    shared = {field.name: getattr(around, field.name) for field in fields(Around)}
    if network.file is None:  # a run has a network and data of its own
        own = ("model", "model_arg", "dataset", "dataset_arg")
        shared = {name: value for name, value in shared.items() if name not in own}
        return Selection(run=network.run, **shared)
    return Selection(run=network.run, checkpoint=str(network.file), **shared)


def _measure(
    selection: Selection, settings: ComparisonSettings, reporter: Reporter, again: bool
) -> Run:
    from isoloss.experiments.scoring import evaluate
    from isoloss.experiments.selection import select
    from isoloss.experiments.spectra import SpectrumExperiment
    from isoloss.experiments.surfaces import SurfaceExperiment

    trained = select(selection, reporter)
    run = trained.run
    assert run is not None
    if not _evaluated(run, trained.about):
        evaluate(trained, reporter, device=settings.device, figures=False)
    surface, spectrum = part(settings, SurfaceSettings), part(settings, SpectrumSettings)
    # Where comparisons look for it, whatever the directions.
    path = run.path / f"surface-{'1d' if surface.y is None else '2d'}.h5"
    _complete(lambda fresh: SurfaceExperiment(trained, surface, path, fresh=fresh), reporter, again)
    _complete(lambda fresh: SpectrumExperiment(trained, spectrum, fresh=fresh), reporter, again)
    return run


def _complete(experiment: Callable[[bool], Experiment], reporter: Reporter, again: bool) -> None:
    """Make a measurement, or go on with one that is there; start over only if asked to."""
    try:
        experiment(False).run(reporter)
    except SettingsDifferError as error:
        if not again:
            raise ExperimentError(
                f"{str(error).splitlines()[0]}\n"
                "measure with the options that it was made with, or in place of it with `again`"
            ) from error
        experiment(True).run(reporter)


def _evaluated(run: Run, about: Mapping[str, Any]) -> bool:
    """Return whether scores of these weights by this loss are there."""
    keys = ("checkpoint_sha256", "loss")
    with suppress(RunError):
        stored = run.evaluation()
        there, wanted = ([known.get(key) for key in keys] for known in (stored, about))
        return json.dumps(there, sort_keys=True) == json.dumps(wanted, sort_keys=True)
    return False


class _ForEach(Forwarding):
    """Passes on what is said, but of what several like measurements will take, the first."""

    def __init__(self, reporter: Reporter, count: int) -> None:
        super().__init__(reporter)
        self._count = count
        self._expected: set[str] = set()

    def expect(self, unit: str, text: str) -> None:
        if unit not in self._expected:
            self._expected.add(unit)
            super().expect(unit, f"{text}; as much for each of {self._count} networks")
