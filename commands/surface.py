"""`surface`: the loss on a line or plane through a run's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Output, check_out
from isoloss.experiments.options import Options, option
from isoloss.experiments.settings import Selection, SurfaceSettings
from isoloss.experiments.spreading_settings import Spreading
from isoloss.records.surfaces import SurfaceData


@dataclass(frozen=True, kw_only=True)
class Continuing(Options):
    """What to go on from."""

    continue_from: Path | None = option(
        None,
        "A surface file of the loss-landscape code (Li et al. 2018) of the same axes, half-done "
        "perhaps: its finished points are taken over, the others evaluated along its directions, "
        "which are looked for beside it.",
        metavar="FILE",
    )


@command(SurfaceSettings, Selection, Continuing, Spreading, Output)
def surface(
    settings: SurfaceSettings,
    selection: Selection,
    continuing: Continuing,
    spreading: Spreading,
    output: Output,
) -> None:
    """Evaluate the loss on a line or plane through the weights, and draw it.

    Along random directions, filter-normalised, unless others are named. Finished points are kept as
    they come: after an interruption the same command goes on. For example: surface mnist-sam
    --x=-1:1:51 --y=-1:1:51, or towards another run: surface a --xdir to:b --x=-0.5:1.5:41

    With the extreme eigenvalues of the Hessian at each point: surface mnist-sam --x=-1:1:11
    --y=-1:1:11 --samples 500 --also eigenvalues

    On all processors: surface mnist-sam --x=-1:1:101 --y=-1:1:101 --workers auto
    """
    from isoloss.experiments.drawing import draw_surface, png_files
    from isoloss.experiments.selection import select
    from isoloss.experiments.surfaces import SurfaceExperiment, check_surface

    console = Console(output.as_json)
    check_surface(settings)
    check_out(output.out)
    subject = select(selection, console)
    experiment = SurfaceExperiment(
        subject,
        settings,
        output.out,
        fresh=output.force or output.estimate,
        continue_from=continuing.continue_from,
        spreading=spreading,
    )
    if output.estimate:
        console.cost(experiment.cost())
        return
    result = experiment.run(console)
    summary = result.summary()
    _say(summary, result.data, console)
    written = []
    if output.figures and result.path is not None:
        written = draw_surface(result.path)
        console.say(f"wrote {result.path} and {', '.join(p.name for p in png_files(written))}")
    console.result({**summary, "figures": written})


def _say(summary: Mapping[str, Any], data: SurfaceData, console: Console) -> None:
    for name, column in summary["columns"].items():
        if name.endswith(("_acc", "_se", "_residual")):
            continue
        spread = ""
        for part, of in (("se", "s.e. of the sample"), ("residual", "residual")):
            if (error := data.origin.get(f"{name}_{part}")) is not None:
                spread = f" ± {error:.2g} ({of})"
        bounds = "no finite value"
        if column["min"] is not None:
            bounds = f"from {column['min']:.5g} to {column['max']:.5g}"
        lost = f", {column['not_finite']} points not finite" if column["not_finite"] else ""
        console.say(f"{name}: {column['origin']:.6g}{spread} at the origin, {bounds}{lost}")
        if (widest := data.widest(name)) is not None:
            at = ", ".join(f"{axis} = {c:.3g}" for axis, c in zip("xy", widest.at, strict=False))
            planes = "directions" if data.y is None else "planes"
            console.say(
                f"{name}: {data.directions_done} {planes} differ most at {at}: median "
                f"{widest.median:.5g}, from {widest.low:.5g} to {widest.high:.5g}"
            )
    if data.cosine is not None:
        each = None if data.repeats is None else data.repeats.cosines
        cosine = data.cosine if each is None else max(each, key=abs)
        if abs(cosine) > 0.01:
            console.say(f"the directions are not orthogonal: their cosine is {cosine:.3f}")
