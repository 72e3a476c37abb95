"""The demonstration: three optimizers on the embedded digits, surfaces, spectra, what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isoloss.experiments.comparison import measure
from isoloss.experiments.drawing import draw_hessian, draw_surface
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.selection import select
from isoloss.experiments.settings import Selection, SpectrumSettings, SurfaceSettings
from isoloss.experiments.spectra import SpectrumExperiment
from isoloss.experiments.surfaces import SurfaceExperiment
from isoloss.experiments.train_options import TrainOptions
from isoloss.experiments.training import train
from isoloss.records.runs import Run, RunError, find_run

DEMO_RUNS = {
    "sgd": TrainOptions(run="demo-sgd", label="SGD", optimizer="sgd", epochs=10, batch_size=32),
    "adam": TrainOptions(run="demo-adam", label="Adam", optimizer="adam", epochs=10, batch_size=32),
    "sam": TrainOptions(
        run="demo-sam", label="SAM", optimizer="sam", rho=0.1, epochs=10, batch_size=32
    ),
}
# A fixed part of the 1,293 training digits keeps the whole under three minutes.
SURFACE = SurfaceSettings(x="-1:1:21", y="-1:1:21", samples=500)
SPECTRUM = SpectrumSettings(samples=500, probes=3, steps=30)


def measure_demo_run(
    options: TrainOptions, results: Path, reporter: Reporter, force: bool = False
) -> Run:
    """Train one of the demo's runs and measure surface and curvature, as far as not yet done."""
    assert options.run is not None
    try:
        run = find_run(results, options.run)
        finished = run.status == "finished"
    except RunError:
        finished = False
    if force or not finished:
        run = train(options, reporter, results=results, force=True)
    subject = select(Selection(run=run.name, results=results), reporter)
    surface = SurfaceExperiment(subject, SURFACE, fresh=force).run(reporter)
    spectrum = SpectrumExperiment(subject, SPECTRUM, fresh=force).run(reporter)
    for path, draw in ((surface.path, draw_surface), (spectrum.path, draw_hessian)):
        if path is not None:
            draw(path)
    return run


def findings(runs: Sequence[Run]) -> list[str]:
    """Say what the numbers are, and no more than one run of each optimizer carries."""
    values = []
    for run in runs:
        data = measure(run).hessian
        if data is not None and data.eigenpairs is not None:
            values.append(f"{run.label} {data.eigenpairs.eigenvalues[0]:.3g}")
    if len(values) < 2:
        return []
    return [
        f"Largest eigenvalues of the Hessian: {', '.join(values)}.",
        "One run of each ranks no optimizers: another seed may order them otherwise.",
    ]
