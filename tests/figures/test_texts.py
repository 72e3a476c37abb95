"""Texts of other people are drawn as they are, whatever signs are in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from isoloss.experiments.comparison import Comparison
from isoloss.figures.comparison import comparison_figure
from isoloss.figures.confusion import confusion_figure
from isoloss.figures.curve import curve_figure
from isoloss.figures.density import density_figure
from isoloss.figures.quantities import ComparisonRow, single
from isoloss.figures.roc import RocSeries, roc_figure
from isoloss.figures.samples import samples_figure
from isoloss.figures.style import save_figure
from isoloss.figures.surface import KINDS, surface_figure
from isoloss.figures.training import training_figure
from isoloss.figures.trials import Trial, trials_figure
from isoloss.records.runs import Run, find_run, new_run
from isoloss.records.spectra import DensityData, SpectrumData
from isoloss.records.surfaces import SurfaceData

TEXT = "_$x_{$\nz|*"
FORMULA = "$x_{$"


def surface(y: np.ndarray | None) -> SurfaceData:
    x = np.linspace(-1, 1, 7)
    loss = 0.01 + 30 * (x**2 if y is None else x[None] ** 2 + y[:, None] ** 2)
    values = {"train_loss": loss}
    return SurfaceData(x, y, values, np.ones(loss.shape, bool), {}, {})


def spectrum(largest: float) -> SpectrumData:
    nodes, weights = np.array([[0.0, largest]] * 2), np.array([[0.9, 0.1], [0.8, 0.2]])
    grid = np.linspace(-1, largest + 1, 201)
    curve = np.exp(-(grid**2))
    density = DensityData(nodes, weights, grid, curve, curve, curve, {"bandwidth": 0.1})
    return SpectrumData({}, None, None, density)


def run(results: Path, name: str, label: str) -> Run:
    with new_run(results, name, {"optimizer": "sgd", "label": label}):
        pass
    made = find_run(results, name)
    made.write_history({"epoch": k, "train_loss": 10.0**-k, "val_loss": 1.0} for k in range(1, 5))
    made.write_manifest("interrupted")
    return made


def rows() -> list[ComparisonRow]:
    y = np.linspace(-1, 1, 5)
    return [
        ComparisonRow(TEXT, TEXT, TEXT, surface(y), None, spectrum(3.0)),
        ComparisonRow(TEXT, "sgd", None, None, None, spectrum(30.0)),
        ComparisonRow("plain", "sgd"),
    ]


def comparison(_: Path) -> Figure:
    return comparison_figure(single(rows()), notes=[TEXT], program=TEXT)


def trials(_: Path) -> Figure:
    values = [{"lr": 10.0**-k, TEXT: f"{TEXT}{k}"} for k in range(1, 4)]
    made = [Trial(k + 1, 0.9 - 0.1 * k, 0.01, value) for k, value in enumerate(values)]
    scales = {"lr": "log", TEXT: "category"}
    return trials_figure(made, scales, best=1, title=TEXT, notes=[TEXT])


def roc(_: Path) -> Figure:
    rates = np.linspace(0, 1, 2001)
    return roc_figure([RocSeries(TEXT, rates, rates, 0.5)], title=TEXT, notes=[TEXT])


def series(_: Path) -> Figure:
    return samples_figure(np.ones((2, 9)), [TEXT, TEXT], title=TEXT, notes=[TEXT])


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "comparison": comparison,
    "confusion": lambda _: confusion_figure(np.eye(2, dtype=int), [TEXT, "b"], title=TEXT),
    "curve": lambda _: curve_figure(surface(None), title=TEXT),
    "density": lambda _: density_figure(
        [(TEXT, TEXT, spectrum(1.0)), (TEXT, "sgd", spectrum(9.0))], title=TEXT
    ),
    "roc": roc,
    "samples": series,
    "training": lambda results: training_figure([run(results, "a", TEXT)], title=TEXT),
    "trainings": lambda results: training_figure(
        [run(results, "a", TEXT), run(results, "b", "b")], title=TEXT
    ),
    "trials": trials,
    **{
        kind: lambda _, kind=kind: surface_figure(surface(np.linspace(-1, 1, 5)), kind, title=TEXT)
        for kind in KINDS
    },
}


@pytest.mark.parametrize("kind", FIGURES)
def test_a_dollar_sign_begins_no_formula(kind: str, tmp_path: Path) -> None:
    figure = FIGURES[kind](tmp_path)
    save_figure(figure, tmp_path / "figure")
    figure.savefig(io.BytesIO(), format="png")  # as a notebook draws it, outside the house style
    texts = [text for text in figure.findobj(Text) if text.get_visible()]
    assert any(FORMULA in text.get_text() for text in texts)
    assert not any("mathdefault" in text.get_text() for text in texts)


def test_an_underscore_hides_no_series_from_a_legend(tmp_path: Path) -> None:
    for kind in ("density", "trainings", "roc"):
        (legend,) = FIGURES[kind](tmp_path / kind).legends
        assert legend.texts[0].get_text().startswith(TEXT)


def test_tables_keep_their_cells_apart(tmp_path: Path) -> None:
    made = Comparison(single(rows()))
    made.save(tmp_path)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + len(rows())
    assert lines[2].startswith(r"| _$x_{$ z\|\* | _$x_{$ z\|\* | ")
    assert len(made.text().splitlines()) == 1 + len(rows())
