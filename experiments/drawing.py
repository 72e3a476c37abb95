"""Which figures belong to which stored results, and where they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.evaluation.roc import read_roc
from isoloss.experiments.reporting import Reporter
from isoloss.figures.confusion import confusion_figure
from isoloss.figures.curve import curve_figure
from isoloss.figures.density import density_figure, has_density
from isoloss.figures.repeats import range_figure
from isoloss.figures.roc import RocSeries, roc_figure
from isoloss.figures.style import save_figure
from isoloss.figures.surface import KINDS, surface_figure
from isoloss.figures.training import training_figure
from isoloss.records.density_pair import read_density_pair
from isoloss.records.files import FileError
from isoloss.records.history_lines import LoggedRun, read_history_lines
from isoloss.records.ll import described, kind_of
from isoloss.records.runs import Run
from isoloss.records.spectra import SpectrumData, read_spectrum
from isoloss.records.surfaces import read_surface

HISTORIES = (".dat", ".jsonl")


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


def draw_file(path: Path, title: str = "", reporter: Reporter | None = None) -> list[Path]:
    """Draw everything that a stored file holds, beside it.

    Args:
        path: A surface, ours or of the loss-landscape code; a curvature file; a density of two
            arrays (`records.density_pair`); a history of lines of JSON (`records.history_lines`).
        title: Title of the figures.
        reporter: Told what a reader must know of the file.

    Raises:
        FileError: If the file is none of them.
    """
    reporter = reporter or Reporter()
    if path.suffix in HISTORIES:
        run = _logged(path, reporter)
        return save_figure(training_figure([run], title=title or run.label), path.with_suffix(""))
    if path.suffix == ".npy":
        data = _density(path, reporter)
        figure = density_figure([(_title(data.settings), "", data)], title=title)
        return save_figure(figure, path.with_name(f"{_title(data.settings)}-density"))
    kind = kind_of(path)
    if kind in ("surface", "LL surface"):
        return draw_surface(path, title)
    if kind == "hessian":
        return draw_hessian(path, title)
    raise FileError(
        f"expected something to draw, got {described(path)}\n"
        "draw a surface (ours, or one with `xcoordinates`) or a curvature file"
    )


def draw_together(
    paths: Sequence[Path], title: str = "", reporter: Reporter | None = None
) -> list[Path]:
    """Draw several densities, or several histories, in one figure beside the first.

    Raises:
        FileError: If there are files of both kinds or others.
    """
    reporter = reporter or Reporter()
    first = paths[0]
    stem = first.name.removesuffix(first.suffix).removesuffix("_eigen").removesuffix("_weight")
    place = first.with_name(f"{stem}-together")
    if all(path.suffix in HISTORIES for path in paths):
        return save_figure(
            training_figure([_logged(p, reporter) for p in paths], title=title), place
        )
    spectra = []
    for path in paths:
        if path.suffix != ".npy" and (path.suffix in HISTORIES or kind_of(path) != "hessian"):
            raise FileError(
                f"expected several densities, or several histories, got {path} among them\n"
                "draw it by itself; `compare` sets runs side by side"
            )
        data = _density(path, reporter) if path.suffix == ".npy" else read_spectrum(path)
        if not has_density(data):
            raise FileError(f"expected a spectral density in {path}, got none")
        label = _title(data.settings) or path.stem
        spectra.append((label, str(data.settings.get("optimizer", "")), data))
    return save_figure(density_figure(spectra, title=title), place)


def _logged(path: Path, reporter: Reporter) -> LoggedRun:
    runs = read_history_lines(path)
    if len(runs) > 1:
        reporter.say(f"{path} holds {len(runs)} runs, one after the other: the last is drawn")
    return runs[-1]


def _density(path: Path, reporter: Reporter) -> SpectrumData:
    data = read_density_pair(path)
    if data.density is not None and (note := data.density.account["note"]):
        reporter.say(f"{path}: {note}")
    return data


def draw_surface(path: Path, title: str = "") -> list[Path]:
    """Draw a stored surface: contours, filled contours, heat map and 3-D, or the curve.

    Of several planes these show the median, and one figure more what the planes span.
    """
    data = read_surface(path)
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
    if 0.0 in data.y:
        stem = path.with_name(f"{path.stem}-curve")
        paths += save_figure(curve_figure(data, title=title), stem)
    return paths


def draw_hessian(path: Path, title: str = "") -> list[Path]:
    """Draw the spectral densities of a stored curvature file; nothing where it has none."""
    data = read_spectrum(path)
    label = title or _title(data.settings)
    operators = data.operators
    if list(operators) == ["hessian"]:
        runs = [(label, str(data.settings.get("optimizer", "")), data)]
    else:
        runs = [(name, "", one) for name, one in operators.items()]
    if not any(has_density(one) for _, _, one in runs):
        return []
    heading = label if len(runs) > 1 or list(operators) == ["hessian"] else f"{label}, {runs[0][0]}"
    return save_figure(density_figure(runs, title=heading), path.with_suffix(""))


def png_files(paths: Sequence[Path]) -> list[Path]:
    """Return the PNG files among some figures."""
    return [path for path in paths if path.suffix == ".png"]


def _title(settings: dict[str, object]) -> str:
    return str(settings.get("label") or settings.get("run") or "")
