"""Which figures belong to which stored results, and where they are written."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.evaluation.roc import read_roc
from isoloss.experiments.options import OptionError
from isoloss.figures.classes import classes_figure
from isoloss.figures.confusion import confusion_figure
from isoloss.figures.curve import curve_figure
from isoloss.figures.density import density_figure, has_density
from isoloss.figures.fields import Field, field, scale_of
from isoloss.figures.layers import layers_figure
from isoloss.figures.ratio import RATIO, with_ratio
from isoloss.figures.repeats import range_figure
from isoloss.figures.roc import RocSeries, roc_figure
from isoloss.figures.scale import Look
from isoloss.figures.style import save_figure
from isoloss.figures.surface import KINDS, surface_figure
from isoloss.figures.training import training_figure
from isoloss.figures.trajectory import trajectory_figure
from isoloss.records.runs import Run
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import SurfaceData, read_surface


def draw_training(run: Run) -> list[Path]:
    """Draw the training curves of a run; none for imported weights."""
    if not (run.path / "history.json").is_file() or not run.history():
        return []
    return save_figure(training_figure([run], title=run.label), run.path / "training")


def draw_evaluation(run: Run) -> list[Path]:
    """Draw confusion matrix and ROC curves of the test split; none for a regression."""
    test = run.evaluation()["splits"].get("test")
    if test is None or not test["classes"]:
        return []
    names = [scores["name"] for scores in test["classes"]]
    figure = confusion_figure(np.array(test["confusion"]), names, title=f"{run.label}, test split")
    return save_figure(figure, run.path / "confusion") + _draw_roc(run, test["classes"])


def _draw_roc(run: Run, classes: Sequence[Mapping[str, Any]]) -> list[Path]:
    path = run.path / "roc.csv"
    curves = read_roc(path) if path.is_file() else []
    if not curves:
        return []
    scores = {c["name"]: c for c in classes}
    series = [
        RocSeries(
            curve.name,
            curve.false_positive_rate,
            curve.true_positive_rate,
            scores[curve.name]["auc"],
            scores[curve.name]["auc_standard_error"],
        )
        for curve in curves
    ]
    absent = [name for name in scores if all(curve.name != name for curve in curves)]
    notes = [f"no curve for {', '.join(absent)}: no sample of it in the split"] if absent else []
    figure = roc_figure(series, title=f"{run.label}, test split", notes=notes)
    return save_figure(figure, run.path / "roc")


@dataclass(frozen=True)
class Wanted:
    """What to draw of stored files, and where to.

    Attributes:
        title: Title of the figures; that of the run where empty.
        column: Stored name, or `eig_ratio`; None for what a file is drawn by.
        look: What is asked of scales and axes.
        out: Path of the figures, to which their kind is added where there are several; beside the
            file where None. An ending .png or .pdf is left out: both are written.
        panels: Whether each of several spectra has a panel of its own.
    """

    title: str = ""
    column: str | None = None
    look: Look = dataclasses.field(default_factory=Look)
    out: Path | None = None
    panels: bool = False

    def stem(self, path: Path) -> Path:
        """Return the path of a file's figures, without suffix and kind."""
        if self.out is None:
            return path.with_suffix("")
        return self.out.with_suffix("") if self.out.suffix in (".png", ".pdf") else self.out


def draw_surface(path: Path, wanted: Wanted | None = None) -> list[Path]:
    """Draw a stored surface: contours, filled contours, heat map and 3-D, or the curve.

    Of several planes these show the median, and one figure more what the planes span. Every other
    column, and paths of trainings, have a figure of their own, unless one column or scale is asked
    for.
    """
    wanted = wanted or Wanted()
    data = with_ratio(read_surface(path))
    check_column(path, data, wanted.column)
    title = wanted.title or title_of(data.settings)
    if data.y is None:
        refuse(wanted, "a curve", "levels")
        return _draw_curves(path, data, wanted, title)
    if wanted.look.xlim is not None:
        raise OptionError("xlim", f"is for curves and spectra, got the 2-D surface {path}")
    stem, key = wanted.stem(path), wanted.column
    name = stem.name if key is None or wanted.out is not None else f"{stem.name}-{key}"
    paths: list[Path] = []
    several = data.directions_done > 1
    if several:
        median = f"median of {data.directions_done} planes"
        heading = ", ".join(filter(None, (title, median)))
    else:
        heading = title
    main = field(data, key)
    # The splits of one quantity have one scale, to be compared by eye.
    alike = {name: [field(data, other) for other in _splits_of(data, name)] for name in data.values}
    compared = alike[main.key] if key is None else [main]
    scale = scale_of(compared, wanted.look)
    check_log(compared, wanted.look)
    for kind in KINDS:
        figure = surface_figure(data, kind, key=main.key, scale=scale, title=heading)
        paths += save_figure(figure, stem.with_name(f"{name}-{kind}"))
    if several:
        figure = range_figure(data, key=main.key, look=wanted.look, title=title)
        paths += save_figure(figure, stem.with_name(f"{name}-range"))
    if key or wanted.look != Look():
        return paths
    if data.trajectories:
        # Several runs name themselves.
        whose = wanted.title or (title if len(data.trajectories) == 1 else "")
        figure = trajectory_figure(data, title=whose)
        paths += save_figure(figure, stem.with_name(f"{name}-paths"))
    for other in _others(data, main.key):
        kind = "heatmap" if other == RATIO else "filled"
        shared = scale_of(alike[other])
        figure = surface_figure(data, kind, key=other, scale=shared, title=heading)
        paths += save_figure(figure, stem.with_name(f"{name}-{other}"))
    if 0.0 in data.y:
        figure = curve_figure(data, title=title)
        paths += save_figure(figure, stem.with_name(f"{name}-curve"))
    return paths


def _draw_curves(path: Path, data: SurfaceData, wanted: Wanted, title: str) -> list[Path]:
    """Draw losses and accuracies in one figure, and each other quantity in one of its own."""
    stem = wanted.stem(path)
    main = [name for name in data.values if name.endswith(("_loss", "_acc"))]
    on_the_left = [name for name in main if name.endswith("_loss")] or main
    asked = on_the_left if wanted.column is None else [wanted.column]
    check_log([field(data, name) for name in asked], wanted.look)
    if wanted.column is not None:
        figure = curve_figure(data, [wanted.column], look=wanted.look, title=title)
        named = stem.with_name(f"{stem.name}-{wanted.column}")
        return save_figure(figure, named if wanted.out is None else stem)
    figure = curve_figure(data, main or _others(data, None), look=wanted.look, title=title)
    paths = save_figure(figure, stem)
    if wanted.look != Look():
        return paths
    for name in _others(data, None):
        names = _splits_of(data, name)
        if name not in main and name == names[0]:
            figure = curve_figure(data, names, title=title)
            paths += save_figure(figure, stem.with_name(f"{stem.name}-{_bare(name)}"))
    return paths


def _bare(name: str) -> str:
    """Return the name of a column without its split."""
    split, _, rest = name.partition("_")
    return rest if split in ("train", "val", "test") else name


def _splits_of(data: SurfaceData, name: str) -> list[str]:
    """Return the columns of one quantity, of every split."""
    return [other for other in data.values if _bare(other) == _bare(name)]


def _others(data: SurfaceData, main: str | None) -> list[str]:
    """Return the columns that have figures of their own: no errors, accuracies or the main one."""
    ends = ("_acc", "_se", "_residual")
    return [name for name in data.values if name != main and not name.endswith(ends)]


def check_column(path: Path, data: SurfaceData, column: str | None) -> None:
    """Raise `OptionError` for a column that is not there."""
    if column is not None and column not in data.values:
        near = difflib.get_close_matches(column, data.values, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise OptionError(
            "column",
            f"expected one of {', '.join(data.values)} in {path}, got {column!r}{hint}",
        )


def check_log(fields: Sequence[Field], look: Look) -> None:
    """Raise `OptionError` where values cannot be drawn on the logarithmic scale asked for."""
    if look.log and fields and not scale_of(fields, look).log:
        raise OptionError(
            "log", f"expected values above 0 only, {fields[0].label} has others: give `vmin`"
        )


def refuse(wanted: Wanted, what: str, *names: str) -> None:
    """Refuse what means nothing for a kind of figure."""
    given = {"column": wanted.column, "log": wanted.look.log, "levels": wanted.look.levels}
    for name in names:
        if given[name] is not None:
            raise OptionError(name, f"is for surfaces, {what} has none")


def draw_hessian(path: Path, wanted: Wanted | None = None) -> list[Path]:
    """Draw the spectral densities, layers and classes of a stored file, those it has."""
    wanted = wanted or Wanted()
    refuse(wanted, "a spectrum", "column", "log", "levels")
    data = read_spectrum(path)
    label, operators = wanted.title or title_of(data.settings), data.operators
    if list(operators) == ["hessian"]:
        runs = [(label, str(data.settings.get("optimizer", "")), data)]
    else:
        runs = [(name, "", one) for name, one in operators.items()]
    written = []
    for name, _, one in runs:
        several = len(runs) > 1
        heading = f"{label}, {name}" if several or list(operators) != ["hessian"] else label
        stem, end = wanted.stem(path), f"-{name}" if several else ""
        if one.layers:
            figure = layers_figure(one.layers, title=heading)
            written += save_figure(figure, stem.with_name(f"{stem.name}-layers{end}"))
        if one.classes is not None:
            pairs, trace = one.eigenpairs, one.trace
            figure = classes_figure(
                one.classes,
                None if pairs is None else pairs.eigenvalues,
                None if trace is None else (trace.estimate, trace.standard_error),
                title=heading,
            )
            written += save_figure(figure, stem.with_name(f"{stem.name}-classes{end}"))
    if not any(has_density(one) for _, _, one in runs):
        return written
    alone = len(runs) == 1 and list(operators) != ["hessian"]
    heading = f"{label}, {runs[0][0]}" if alone else label
    figure = density_figure(runs, look=wanted.look, title=heading)
    return save_figure(figure, wanted.stem(path)) + written


def png_files(paths: Sequence[Path]) -> list[Path]:
    """Return the PNG files among some figures."""
    return [path for path in paths if path.suffix == ".png"]


def title_of(settings: Mapping[str, Any]) -> str:
    """Return what a stored result is called: its label, or the run's name."""
    return str(settings.get("label") or settings.get("run") or "")
