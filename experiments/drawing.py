"""Which figures belong to which stored results, and where they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.evaluation.roc import read_roc
from isoloss.figures.confusion import confusion_figure
from isoloss.figures.curve import curve_figure
from isoloss.figures.density import density_figure, has_density
from isoloss.figures.repeats import range_figure
from isoloss.figures.roc import RocSeries, roc_figure
from isoloss.figures.style import save_figure
from isoloss.figures.surface import KINDS, surface_figure
from isoloss.figures.training import training_figure
from isoloss.figures.trajectory import trajectory_figure
from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5
from isoloss.records.runs import Run
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import read_surface


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


def draw_file(path: Path, title: str = "") -> list[Path]:
    """Draw everything that a stored surface or curvature file holds, beside it.

    Raises:
        FileError: If the file is neither.
    """
    with open_hdf5(path) as file:
        kind = file.text("isoloss") or "surface"
        is_surface = kind == "surface" and "xcoordinates" in file
    if is_surface:
        return draw_surface(path, title)
    if kind == "hessian":
        return draw_hessian(path, title)
    raise FileError(
        f"expected a surface (ours, or one with `xcoordinates`) or a curvature file, got {path}"
    )


def draw_surface(path: Path, title: str = "") -> list[Path]:
    """Draw a stored surface: contours, filled contours, heat map and 3-D, or the curve.

    Of several planes these show the median, and one figure more what the planes span. Paths of
    trainings, where there are any, have a figure of their own.
    """
    data = read_surface(path)
    of_paths = title or (_title(data.settings) if len(data.trajectories) == 1 else "")
    title = title or _title(data.settings)
    if data.y is None:
        return save_figure(curve_figure(data, title=title), path.with_suffix(""))
    paths: list[Path] = []
    several = data.directions_done > 1
    median = f"median of {data.directions_done} planes" if several else ""
    for kind in KINDS:
        stem = path.with_name(f"{path.stem}-{kind}")
        heading = ", ".join(filter(None, (title, median)))
        paths += save_figure(surface_figure(data, kind, title=heading), stem)
    if several:
        stem = path.with_name(f"{path.stem}-range")
        paths += save_figure(range_figure(data, title=title), stem)
    if data.trajectories:
        stem = path.with_name(f"{path.stem}-paths")
        paths += save_figure(trajectory_figure(data, title=of_paths), stem)
    if 0.0 in data.y:
        stem = path.with_name(f"{path.stem}-curve")
        paths += save_figure(curve_figure(data, title=title), stem)
    return paths


def draw_hessian(path: Path, title: str = "") -> list[Path]:
    """Draw the spectral density of a stored curvature file; nothing where it has none."""
    data = read_spectrum(path)
    if not has_density(data):
        return []
    label = title or _title(data.settings)
    optimizer = str(data.settings.get("optimizer", ""))
    figure = density_figure([(label, optimizer, data)], title=label)
    return save_figure(figure, path.with_suffix(""))


def png_files(paths: Sequence[Path]) -> list[Path]:
    """Return the PNG files among some figures."""
    return [path for path in paths if path.suffix == ".png"]


def _title(settings: dict[str, object]) -> str:
    return str(settings.get("label") or settings.get("run") or "")
