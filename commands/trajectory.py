"""`trajectory`: the paths of trainings on one plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.commands.console import Console
from isoloss.commands.flags import Given, command
from isoloss.commands.options import Output, check_out
from isoloss.experiments.options import OptionError, make, option
from isoloss.experiments.settings import (
    Folders,
    Selection,
    SurfaceSettings,
    TrajectorySettings,
)
from isoloss.experiments.spreading_settings import Spreading
from isoloss.records.runs import find_run, newest_run


@dataclass(frozen=True, kw_only=True)
class Paths(Output):
    """Whose paths, and on which plane."""

    runs: tuple[str, ...] = option(
        (),
        "Runs trained with --checkpoint-every N, of one network, data and loss.",
        positional=True,
        metavar="RUN..",
        otherwise="the newest",
    )
    around: str | None = option(
        None, "Run whose last weights the plane goes through.", otherwise="the first"
    )
    on: Path | None = option(
        None,
        "Put the paths on the plane of a surface that is there, an .h5 of any directions, in place "
        "of a plane of their own.",
        metavar="FILE",
    )


@command(Given(TrajectorySettings), Paths, Folders, Spreading)
def trajectory(given: dict[str, Any], paths: Paths, folders: Folders, spreading: Spreading) -> None:
    """Draw the paths of trainings on one plane: the principal components of their epochs.

    The surface of the plane, and each run's path in its file: where its epochs are projected to,
    their losses beside those of the plane there, and their distances from it. For example:
    trajectory mnist-sgd mnist-adam mnist-sam, each trained with --checkpoint-every 1 --seed 0
    """
    from isoloss.experiments.drawing import draw_surface, png_files
    from isoloss.experiments.epoch_paths import epoch_path
    from isoloss.experiments.selection import select
    from isoloss.experiments.trajectories import TrajectoryExperiment, stored_surface

    console = Console(paths.as_json)
    check_out(paths.out)
    runs = [find_run(folders.results, name) for name in _names(paths, folders, console)]
    epochs = [epoch_path(run) for run in runs]
    if paths.on is None:
        settings: SurfaceSettings = make(TrajectorySettings, given)
        around = paths.around or runs[0].name
        shared = {name: getattr(folders, name) for name in ("results", "data_dir", "download")}
        subject, out = select(Selection(run=around, **shared), console), paths.out
    else:
        _refuse_with_file(given, paths)
        out = paths.on
        subject, settings = stored_surface(out, folders, console)
    fresh = paths.force or paths.estimate
    experiment = TrajectoryExperiment(
        subject, epochs, settings, out, fresh=fresh, spreading=spreading
    )
    if paths.estimate:
        console.cost(experiment.cost())
        return
    result = experiment.run(console)
    summary = result.summary()
    _say(summary, console)
    written = []
    if paths.figures:
        written = draw_surface(experiment.path)
        names = ", ".join(path.name for path in png_files(written))
        console.say(f"wrote {experiment.path} and {names}")
    console.result({**summary, "figures": written})


def _names(paths: Paths, folders: Folders, console: Console) -> list[str]:
    if paths.runs:
        if len(set(paths.runs)) < len(paths.runs):
            raise OptionError("runs", f"expected each run once, got {' '.join(paths.runs)}")
        return list(paths.runs)
    newest = newest_run(folders.results)
    if newest is None:
        raise OptionError("runs", f"expected a run, there is none in {folders.results}")
    console.say(f"newest run: {newest.name}")
    return [newest.name]


def _refuse_with_file(given: Mapping[str, Any], paths: Paths) -> None:
    for name in [*given, *(n for n in ("around", "out", "force") if getattr(paths, n))]:
        raise OptionError(
            name, f"{paths.on} has its own plane and settings, leave it out with `on`"
        )


def _say(summary: Mapping[str, Any], console: Console) -> None:
    for axis, part in summary["components"].items():
        console.say(
            f"{axis}: principal component {part['component'] + 1} of {part['points']} checkpoints "
            f"has {100 * part['explained_variance_ratio']:.1f} % of their variance; of random "
            f"walks of as many equal steps {100 * part['random_walk']:.1f} %"
        )
    for name, path in summary["trajectories"].items():
        share = f"{100 * path['relative_to_origin']:.0f} %"
        console.say(
            f"{name}: furthest from the plane at epoch {path['at_epoch']}, "
            f"{path['largest_distance']:.3g} or {share} of its distance from the weights at 0, 0; "
            f"losses differ most at epoch {path['loss_difference_at_epoch']}: "
            f"{path['loss_there']:.4g} on the path, {path['plane_loss_there']:.4g} on the plane"
        )
