"""`demo`: everything once, on the digits: three optimizers, surfaces, spectra, the comparison."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isoloss.commands.compare import compare_runs
from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.hessian import hessian_of
from isoloss.commands.options import Forced, Printed
from isoloss.commands.surface import surface_of
from isoloss.commands.training import train_run
from isoloss.experiments.settings import Results, Selection, SpectrumSettings, SurfaceSettings
from isoloss.experiments.train_options import TrainOptions

if TYPE_CHECKING:
    from isoloss.records.runs import Run

DEMO_RUNS = {
    "sgd": TrainOptions(run="demo-sgd", label="SGD", optimizer="sgd", epochs=10, batch_size=32),
    "adam": TrainOptions(run="demo-adam", label="Adam", optimizer="adam", epochs=10, batch_size=32),
    "sam": TrainOptions(
        run="demo-sam", label="SAM", optimizer="sam", rho=0.1, epochs=10, batch_size=32
    ),
}
# A fixed, class-balanced part of the 1,293 training digits keeps the whole under three minutes.
SURFACE = SurfaceSettings(x="-1:1:21", y="-1:1:21", samples=500)
HESSIAN = SpectrumSettings(samples=500, probes=4, steps=40)


@dataclass(frozen=True, kw_only=True)
class Demonstration(Forced, Printed):
    """How the demo is run."""


@command(Demonstration, Results)
def demo(asked: Demonstration, folders: Results) -> None:
    """Train SGD, Adam and SAM on the embedded digits and compare the places they found.

    Takes about two minutes on two cores; what is finished is kept, so it can be interrupted.
    """
    console, results = Console(asked.as_json), folders.results
    began = time.monotonic()
    runs = [
        measure_demo_run(options, results, console.of_part(), asked.force)
        for options in DEMO_RUNS.values()
    ]
    folder = compare_runs(runs, results, console)
    console.say("")
    console.say(
        f"{folder / 'comparison.png'} shows, top to bottom: the training loss around each of the "
        "three networks\non the same pair of random, filter-normalised directions at one scale; "
        "the loss along the first of them;\nhow the eigenvalues of the Hessian are spread; and "
        "test accuracy, largest eigenvalue and trace."
    )
    for line in _findings(runs):
        console.say(line)
    console.say(f"{time.monotonic() - began:.0f} s in all")


def measure_demo_run(
    options: TrainOptions, results: Path, console: Console, force: bool = False
) -> Run:
    """Train one of the demo's runs and measure surface and curvature, as far as not yet done."""
    from isoloss.commands.subject import load_subject
    from isoloss.records.runs import RunError, find_run

    assert options.run is not None
    try:
        run = find_run(results, options.run)
        finished = run.status == "finished"
    except RunError:
        finished = False
    if force or not finished:
        run = train_run(options, console, results=results, force=True)
    subject = load_subject(Selection(run=run.name, results=results), console)
    surface_of(subject, SURFACE, console, force=force)
    hessian_of(subject, HESSIAN, console, force=force)
    return run


def _findings(runs: list[Run]) -> list[str]:
    """Say what the numbers are, with their uncertainty, and no more than they carry."""
    from isoloss.commands.compare import measure

    values = {}
    for run in runs:
        data = measure(run).hessian
        if data is not None and data.eigenpairs is not None and data.trace is not None:
            values[run.label] = (data.eigenpairs.eigenvalues[0], data.trace)
    if len(values) < 2:
        return []
    flattest = min(values, key=lambda label: values[label][0])
    ratios = [
        f"{label}'s is {values[label][0] / values[flattest][0]:.1f} times that"
        for label in values
        if label != flattest
    ]
    return [
        f"{flattest} ended where the largest eigenvalue is smallest, {values[flattest][0]:.3g}; "
        f"{', '.join(ratios)}.",
        "This is one run of each: another seed may rank them otherwise.",
    ]
