"""The demonstration: three seeds of three optimizers on the embedded digits, side by side."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isoloss.experiments.drawing import draw_hessian, draw_surface, draw_training
from isoloss.experiments.reporting import Forwarding, Reporter
from isoloss.experiments.selection import select
from isoloss.experiments.settings import Selection, SpectrumSettings, SurfaceSettings
from isoloss.experiments.spectra import SpectrumExperiment
from isoloss.experiments.surfaces import SurfaceExperiment
from isoloss.experiments.train_options import TrainOptions
from isoloss.experiments.training import train
from isoloss.records.progress import Progress
from isoloss.records.runs import Run, RunError, find_run
from isoloss.records.spectra import SpectrumData

SEEDS = 3
# The digits as they are, 8x8, and a network to fit, keep nine runs under three minutes.
_COMMON = TrainOptions(dataset="digits", dataset_arg={"size": 8}, epochs=20, batch_size=32)
_OPTIMIZERS = {
    "SGD": dataclasses.replace(_COMMON, optimizer="sgd"),
    "Adam": dataclasses.replace(_COMMON, optimizer="adam"),
    "SAM": dataclasses.replace(_COMMON, optimizer="sam", rho=0.1),
}
DEMO_RUNS = [
    dataclasses.replace(options, run=f"demo-{label.lower()}-{seed}", label=label, seed=seed)
    for label, options in _OPTIMIZERS.items()
    for seed in range(SEEDS)
]
CURVE = SurfaceSettings(x="-1:1:21", repeat=8)
SURFACE = SurfaceSettings(x="-1:1:21", y="-1:1:21")
SPECTRUM = SpectrumSettings(probes=2, steps=40)


class _Short(Forwarding):
    """Passes progress and warnings on, but none of the many lines of nine trainings."""

    def __init__(self, reporter: Reporter, run: str) -> None:
        super().__init__(reporter)
        self._run = run

    def say(self, text: str) -> None:
        pass

    def expect(self, unit: str, text: str) -> None:
        pass

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        with super().progress(f"{self._run}: {description}") as progress:
            yield progress


def measure_demo_run(
    options: TrainOptions, results: Path, reporter: Reporter, force: bool = False
) -> Run:
    """Train one of the demo's runs and measure it, as far as that is not yet done.

    Every run gets a curve along several directions and its curvature, the first seed a surface
    and all figures, too.
    """
    assert options.run is not None
    began, quiet, first = time.monotonic(), _Short(reporter, options.run), options.seed == 0
    try:
        run = find_run(results, options.run)
        finished = run.status == "finished"
    except RunError:
        finished = False
    if force or not finished:
        run = train(options, quiet, results=results, figures=first, force=True)
    elif first and not (run.path / "training.png").is_file():
        draw_training(run)  # which a kill came before
    subject = select(Selection(run=run.name, results=results), quiet)
    drawn = [(SurfaceExperiment(subject, CURVE, fresh=force).run(quiet).path, draw_surface)]
    if first:
        drawn += [(SurfaceExperiment(subject, SURFACE, fresh=force).run(quiet).path, draw_surface)]
    spectrum = SpectrumExperiment(subject, SPECTRUM, fresh=force).run(quiet)
    drawn += [(spectrum.path, draw_hessian)]
    for path, draw in drawn:
        if path is not None and first:
            draw(path)
    reporter.say(_line(run, spectrum.data, time.monotonic() - began))
    return run


def _line(run: Run, data: SpectrumData, seconds: float) -> str:
    """Say what was found of a run."""
    assert data.eigenpairs is not None
    assert data.trace is not None
    return (
        f"{run.name}: test accuracy {100 * run.evaluation()['splits']['test']['accuracy']:.1f} %, "
        f"largest eigenvalue {data.eigenpairs.eigenvalues[0]:.3g}, "
        f"trace {data.trace.estimate:.3g}; {seconds:.0f} s"
    )
