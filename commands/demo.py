"""`demo`: everything once, on the digits: three optimizers, surfaces, spectra, the comparison."""

from __future__ import annotations

import time
from dataclasses import dataclass

from isoloss.commands.compare import say_comparison
from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Forced, Printed
from isoloss.experiments.settings import Results


@dataclass(frozen=True, kw_only=True)
class Demonstration(Forced, Printed):
    """How the demo is run."""


@command(Demonstration, Results)
def demo(asked: Demonstration, folders: Results) -> None:
    """Train three seeds each of SGD, Adam and SAM on the embedded digits and compare them.

    Takes two to three minutes on two cores; what is finished is kept, so it can be interrupted.
    """
    from isoloss.experiments.demo import DEMO_RUNS, SEEDS, measure_demo_run

    console, results = Console(asked.as_json), folders.results
    began = time.monotonic()
    runs = [measure_demo_run(options, results, console, asked.force) for options in DEMO_RUNS]
    console.say("")
    folder = say_comparison(
        runs, results, console, results / "comparisons" / "demo", by="optimizer"
    )
    console.say("")
    console.say(
        f"{folder / 'comparison.png'} shows, top to bottom: the training loss around the first of "
        f"{SEEDS} runs of each\noptimizer, on the same pair of random, filter-normalised "
        "directions at one scale; the loss along several\nsuch directions, of every run; how the "
        "eigenvalues of the Hessian are spread; and medians and ranges\nover the runs."
    )
    console.say(f"{time.monotonic() - began:.0f} s in all")
