"""What `plot` draws: any stored file by itself, or several that go together in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isoloss.experiments.drawing import (
    Wanted,
    check_column,
    check_log,
    draw_hessian,
    draw_surface,
    refuse,
    title_of,
)
from isoloss.experiments.options import OptionError
from isoloss.experiments.reporting import Reporter
from isoloss.figures.curve import curves_figure
from isoloss.figures.density import density_figure, has_density
from isoloss.figures.density_panels import density_panels
from isoloss.figures.fields import common_key, field
from isoloss.figures.over_training import over_training_figure
from isoloss.figures.ratio import with_ratio
from isoloss.figures.scale import Look
from isoloss.figures.style import save_figure
from isoloss.figures.training import training_figure
from isoloss.records.density_pair import read_density_pair
from isoloss.records.files import FileError
from isoloss.records.history_lines import LoggedRun, read_history_lines
from isoloss.records.identity import unlike
from isoloss.records.ll import described, kind_of
from isoloss.records.over_training import KIND, read_over_training
from isoloss.records.spectra import SpectrumData, read_spectrum
from isoloss.records.surfaces import read_surface

HISTORIES = (".dat", ".jsonl")
SURFACE, DENSITY, HISTORY = "surfaces", "spectra", "histories"
OVER_TRAINING = "curvatures over trainings"


def draw_files(
    paths: Sequence[Path], wanted: Wanted | None = None, reporter: Reporter | None = None
) -> list[Path]:
    """Draw everything that a file holds, or one figure of several files.

    Args:
        paths: Surfaces, ours or of the loss-landscape code; curvature files; densities of two
            arrays (`records.density_pair`); histories of lines of JSON (`records.history_lines`).
            Several curves, spectra, histories or curvatures over trainings are drawn together.
        wanted: What is asked of the figures.
        reporter: Told what a reader must know of the files.

    Raises:
        FileError: If a file is none of them.
        OptionError: For a column that is not there, or what cannot be drawn together.
    """
    wanted, reporter = wanted or Wanted(), reporter or Reporter()
    kinds = {path: _kind(path) for path in paths}
    kind = kinds[paths[0]]
    if other := [path for path in paths if kinds[path] != kind]:
        raise OptionError(
            "files",
            f"expected several {kind} like {paths[0]} in one figure, got {other[0]} of "
            f"{kinds[other[0]]}\ndraw each by itself; `compare` sets runs side by side",
        )
    if wanted.panels and (kind != DENSITY or len(paths) == 1):
        raise OptionError("panels", "is for several spectra")
    if len(paths) == 1:
        return _draw_file(paths[0], kind, wanted, reporter)
    stem = wanted.stem(_named_by(paths[0]))
    stem = stem if wanted.out is not None else stem.with_name(f"{stem.name}-several")
    if kind == HISTORY:
        _refuse_look(wanted)
        runs = [_logged(path, reporter) for path in paths]
        return save_figure(training_figure(runs, title=wanted.title), stem)
    if kind == OVER_TRAINING:
        return draw_over_training(paths, wanted, stem)
    if kind == DENSITY:
        return _draw_spectra(paths, stem, wanted, reporter)
    return _draw_several_curves(paths, stem, wanted)


def _kind(path: Path) -> str:
    if path.suffix in HISTORIES:
        return HISTORY
    if path.suffix == ".npy":
        return DENSITY
    kind = kind_of(path)
    if kind in ("surface", "LL surface"):
        return SURFACE
    if kind == "hessian":
        return DENSITY
    if kind == KIND:
        return OVER_TRAINING
    raise FileError(
        f"expected something to draw, got {described(path)}\n"
        "draw a surface (ours, or one with `xcoordinates`) or a curvature file"
    )


def _draw_file(path: Path, kind: str, wanted: Wanted, reporter: Reporter) -> list[Path]:
    if kind == SURFACE:
        return draw_surface(path, wanted)
    if kind == HISTORY:
        _refuse_look(wanted)
        run = _logged(path, reporter)
        figure = training_figure([run], title=wanted.title or run.label)
        return save_figure(figure, wanted.stem(path))
    if kind == OVER_TRAINING:
        return draw_over_training([path], wanted)
    if path.suffix != ".npy":
        return draw_hessian(path, wanted)
    refuse(wanted, "a spectrum", "column", "log", "levels")
    data = _spectrum(path, reporter)
    runs = [(title_of(data.settings), "", data)]
    stem = wanted.stem(_named_by(path))
    stem = stem if wanted.out is not None else stem.with_name(f"{stem.name}-density")
    return save_figure(density_figure(runs, look=wanted.look, title=wanted.title), stem)


def _draw_spectra(
    paths: Sequence[Path], stem: Path, wanted: Wanted, reporter: Reporter
) -> list[Path]:
    refuse(wanted, "a spectrum", "column", "log", "levels")
    spectra = [(path, _spectrum(path, reporter)) for path in paths]
    for path, data in spectra:
        if not has_density(data):
            raise FileError(f"expected a spectral density in {path}, got none")
    named = _named([(path, data.settings) for path, data in spectra])
    runs = [(*label, data) for label, (_, data) in zip(named, spectra, strict=True)]
    draw = density_panels if wanted.panels else density_figure
    return save_figure(draw(runs, look=wanted.look, title=wanted.title), stem)


def draw_over_training(
    paths: Sequence[Path], wanted: Wanted | None = None, stem: Path | None = None
) -> list[Path]:
    """Draw the curvature over one or several trainings in one figure.

    Args:
        paths: Their files.
        wanted: What is asked of the figure.
        stem: Its path without suffix; that of the first file where None.
    """
    wanted = wanted or Wanted()
    refuse(wanted, "a curvature over a training", "column", "levels")
    held = [(path, read_over_training(path)) for path in paths]
    named = _named([(path, data.settings) for path, data in held])
    runs = [(*label, data) for label, (_, data) in zip(named, held, strict=True)]
    title = wanted.title or (runs[0][0] if len(runs) == 1 else "")
    figure = over_training_figure(runs, look=wanted.look, title=title)
    return save_figure(figure, stem or wanted.stem(paths[0]))


def _draw_several_curves(paths: Sequence[Path], stem: Path, wanted: Wanted) -> list[Path]:
    surfaces = [(path, with_ratio(read_surface(path))) for path in paths]
    for path, data in surfaces:
        if data.y is not None:
            raise OptionError(
                "files",
                f"expected curves to draw in one figure, got the 2-D surface {path}\n"
                "draw it by itself, or set runs side by side with `compare`",
            )
        check_column(path, data, wanted.column)
    refuse(wanted, "a curve", "levels")
    named = _named([(path, data.settings) for path, data in surfaces])
    curves = [(*label, data) for label, (_, data) in zip(named, surfaces, strict=True)]
    other = unlike({label: data.settings for label, _, data in curves})
    notes = [f"measured differently: {', '.join(other)}"] if other else []
    key = wanted.column or common_key(*(data for _, data in surfaces))
    check_log([field(data, key) for _, data in surfaces], wanted.look)
    figure = curves_figure(curves, key, look=wanted.look, title=wanted.title, notes=notes)
    return save_figure(figure, stem)


def _spectrum(path: Path, reporter: Reporter) -> SpectrumData:
    if path.suffix != ".npy":
        return read_spectrum(path)
    data = read_density_pair(path)
    if data.density is not None and (note := data.density.account["note"]):
        reporter.say(f"{path}: {note}")
    return data


def _logged(path: Path, reporter: Reporter) -> LoggedRun:
    runs = read_history_lines(path)
    if len(runs) > 1:
        reporter.say(f"{path} holds {len(runs)} runs, one after the other: the last is drawn")
    return runs[-1]


def _refuse_look(wanted: Wanted) -> None:
    refuse(wanted, "a history", "column", "log", "levels")
    if wanted.look != Look():
        raise OptionError("vmin", "is for surfaces and spectra: a history has its own scales")


def _named_by(path: Path) -> Path:
    """Return a path without what names one of two arrays that belong together."""
    stem = path.stem.removesuffix("_eigen").removesuffix("_weight")
    return path.with_name(f"{stem}{path.suffix}")


def _named(files: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[tuple[str, str]]:
    """Return label and optimizer of each file; the path stands beside labels that are no name."""
    labels = [title_of(settings) or path.stem for path, settings in files]
    return [
        (f"{label} ({path})" if labels.count(label) > 1 else label, str(s.get("optimizer", "")))
        for label, (path, s) in zip(labels, files, strict=True)
    ]
