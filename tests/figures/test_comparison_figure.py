from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from isoloss.experiments.comparison import Comparison
from isoloss.experiments.grouping import findings
from isoloss.figures.comparison import comparison_figure
from isoloss.figures.quantities import (
    ComparisonGroup,
    ComparisonRow,
    comparison_table,
    group_table,
    single,
)
from isoloss.figures.style import FigureError, save_figure
from isoloss.figures.table import formatted_table
from isoloss.records.spectra import (
    DensityData,
    EigenpairsData,
    ScaledData,
    SpectrumData,
    TraceData,
)
from isoloss.records.surfaces import SurfaceData

X = np.linspace(-1, 1, 7)
Y = np.linspace(-1, 1, 5)


def surface(height: float, y: np.ndarray = Y) -> SurfaceData:
    loss = 0.02 + height * (X[None] ** 2 + 0.5 * y[:, None] ** 2)
    values = {"train_loss": loss, "test_loss": 2 * loss}
    return SurfaceData(X, y, values, np.ones(loss.shape, bool), {"train_loss": 0.02}, {})


def hessian(largest: float) -> SpectrumData:
    nodes, weights = np.array([[0.0, largest]] * 2), np.array([[0.9, 0.1], [0.8, 0.2]])
    grid = np.linspace(-1, largest + 1, 201)
    curve = np.exp(-(grid**2))
    return SpectrumData(
        {},
        EigenpairsData(np.array([largest]), np.array([2.5e-4]), {}, None, None, {}, {}),
        TraceData(10 * largest, 0.31 * largest, 30, {}),
        DensityData(nodes, weights, grid, curve, 0.5 * curve, 2 * curve, {"bandwidth": 0.7}),
    )


def rows() -> list[ComparisonRow]:
    return [
        ComparisonRow("SGD", "sgd", "m-sgd", surface(5), None, hessian(40), 0.9876, 0.0011, 0.0412),
        ComparisonRow("Adam", "adam", "m-adam", surface(20), None, hessian(136), 0.9861, 0.0012),
        ComparisonRow("SAM", "sam", "m-sam", surface(1), None, hessian(12.5), 0.9902, 0.0010),
    ]


def words(figure: Figure) -> str:
    texts = [text for axes in figure.axes for text in axes.texts] + list(figure.texts)
    return "\n".join(text.get_text() for text in texts)


def flat(figure: Figure) -> str:
    return words(figure).replace("\n", " ")


def figure_of(given: list[ComparisonRow], **options: Any) -> Figure:
    return comparison_figure(single(given), **options)


def table_of(given: list[ComparisonRow]) -> list[dict[str, Any]]:
    return [dict(cells) for cells in comparison_table(single(given))]


def printed(given: list[ComparisonRow]) -> list[dict[str, str]]:
    return formatted_table(single(given))


def test_all_surfaces_have_one_scale() -> None:
    figure = figure_of(rows())
    fills = [
        c for axes in figure.axes for c in axes.get_children() if isinstance(c, QuadContourSet)
    ]
    filled = [c for c in fills if c.filled]
    assert len(filled) == 3
    top = 0.02 + 20 * 1.5
    for one in filled:
        assert (one.norm.vmin, one.norm.vmax) == (0.02, pytest.approx(top))
        np.testing.assert_array_equal(one.levels, filled[0].levels)
    spaces = [axes for axes in figure.axes if axes.name == "3d"]
    assert len({axes.get_zlim() for axes in spaces}) == 1
    (bar,) = [axes for axes in figure.axes if axes.get_ylabel().endswith(", log scale")]
    assert bar.get_ylabel() == "train loss above 0, log scale"
    assert not [c for axes in figure.axes[:6] for c in axes.collections if isinstance(c, QuadMesh)]


def test_curves_are_the_rows_y_0_in_the_colours_of_their_runs() -> None:
    figure = figure_of(rows()[::-1])
    (axes,) = [axes for axes in figure.axes if axes.get_title("left").endswith("along y = 0")]
    for line, row in zip(axes.lines, rows()[::-1], strict=False):
        assert row.surface is not None
        np.testing.assert_array_equal(line.get_ydata(), row.surface.values["train_loss"][2])
    assert [line.get_color() for line in axes.lines[:3]] == ["#009E73", "#D55E00", "#0072B2"]


def test_numbers_unrounded_and_as_printed() -> None:
    assert table_of(rows())[0] == {
        "run": "m-sgd",
        "label": "SGD",
        "group": "SGD",
        "optimizer": "sgd",
        "accuracy": 0.9876,
        "accuracy_se": 0.0011,
        "accuracy_low": None,
        "accuracy_high": None,
        "test_loss": 0.0412,
        "test_loss_se": None,
        "measured_loss": 0.02,
        "lambda_max": 40.0,
        "lambda_max_sample_se": None,
        "lambda_max_residual": 2.5e-4,
        "lambda_max_converged": None,
        "lambda_min": None,
        "lambda_min_residual": None,
        "lambda_min_converged": None,
        "trace": 400.0,
        "trace_se": pytest.approx(12.4),
        "trace_sample_se": None,
        "trace_converged": None,
        "scaled_lambda_max": None,
        "scaled_lambda_max_residual": None,
        "scaled_lambda_max_converged": None,
        "scaled_trace": None,
        "scaled_trace_se": None,
        "scaled_trace_converged": None,
    }
    assert printed(rows())[1] == {
        "run": "Adam",
        "optimizer": "adam",
        "test accuracy (%)": "98.61 ± 0.12",
        "test loss": "\u2013",
        "train loss": "0.02",
        "λmax (residual)": "136 (2.5\u00d710⁻⁴)",
        "trace ± s.e.": "1360 ± 42",
    }
    bare = printed([ComparisonRow("x", "sgd")])
    assert set(list(bare[0].values())[2:]) == {"\u2013"}
    assert "test loss" not in bare[0]


def measured(row: ComparisonRow, split: str = "train") -> ComparisonRow:
    """The row with everything a spectrum may hold: samples' errors, smallest pair, THT."""
    data = row.hessian
    assert data is not None
    assert data.eigenpairs is not None
    assert data.trace is not None
    pairs = replace(
        data.eigenpairs,
        smallest_eigenvalues=np.array([-0.5]),
        smallest_residuals=np.array([3e-5]),
        sample_standard_error=np.array([4.0]),
    )
    data = replace(
        data,
        settings={"loss_at_weights": 0.0123, "split": split},
        eigenpairs=pairs,
        trace=replace(data.trace, sample_standard_error=21.0),
        scaled=ScaledData(0.25, 1e-6, 1.5, 0.02, {"eigenvalue": {"converged": False}}),
    )
    return replace(row, hessian=data)


def test_every_error_has_its_name() -> None:
    (cells,) = printed([measured(rows()[0])])
    assert cells["train loss"] == "0.0123"
    assert cells["λmax ± sample (residual)"] == "40.0 ± 4.0 (2.5×10⁻⁴)"  # noqa: RUF001
    assert cells["λmin (residual)"] == "−0.5 (3×10⁻⁵)"  # noqa: RUF001
    assert cells["trace ± probes ± sample"] == "400 ± 12 ± 21"
    assert cells["λmax of THT (residual)"] == "0.25 (10⁻⁶)†"
    assert cells["trace of THT ± s.e."] == "1.500 ± 0.020"
    (unrounded,) = table_of([measured(rows()[0])])
    expected = {
        "measured_loss": 0.0123,
        "lambda_max_sample_se": 4.0,
        "lambda_min": -0.5,
        "lambda_min_residual": 3e-5,
        "trace_sample_se": 21.0,
        "scaled_lambda_max": 0.25,
        "scaled_lambda_max_converged": False,
        "scaled_trace_se": 0.02,
    }
    assert {key: unrounded[key] for key in expected} == expected
    drawn = flat(figure_of([measured(rows()[0])]))
    assert "of THT†: not converged" in drawn
    assert "THT: in units of the filters" in drawn
    (cells,) = printed([measured(rows()[0], "test")])
    assert cells["loss where measured (test)"] == "0.0123"


def test_accuracies_near_1_are_printed_by_their_interval_and_clusters_are_named() -> None:
    row = replace(rows()[0], accuracy=1.0, accuracy_se=0.0, accuracy_interval=(0.9894, 1.0))
    assert printed([row])[0]["test accuracy (%)"] == "100 [98.94, 100]"
    assert "accuracy in brackets: 95 % interval" in flat(figure_of([row]))
    row = replace(rows()[0], accuracy=0.9, accuracy_interval=(0.8, 0.95), clusters=22)
    assert printed([row])[0]["test accuracy (%)"] == "90.00 ± 0.11"
    assert "clustered by 22 groups of samples" in flat(figure_of([row]))


def grouped() -> list[ComparisonGroup]:
    """Three runs of SGD and of SAM: λmax 40, 30, 50 and 12.5, 20, 10."""
    sgd, _, sam = rows()
    groups = []
    for row, heights in ((sgd, (5, 1, 3)), (sam, (1, 0.5, 4))):
        values = {5: 40, 1: 30, 3: 50} if row is sgd else {1: 12.5, 0.5: 20, 4: 10}
        runs = tuple(
            replace(row, run=f"{row.run}-{i}", surface=surface(h), hessian=hessian(values[h]))
            for i, h in enumerate(heights)
        )
        groups.append(ComparisonGroup(row.label, runs))
    return groups


def test_groups_are_shown_by_medians_and_ranges() -> None:
    table = formatted_table(grouped())
    assert [cells["λmax"] for cells in table] == ["40 [30, 50]", "12.5 [10, 20]"]
    assert [cells["runs"] for cells in table] == ["3", "3"]
    first, _ = group_table(grouped())
    assert first["runs"] == ["m-sgd-0", "m-sgd-1", "m-sgd-2"]
    assert {k: first["lambda_max"][k] for k in ("runs", "median", "low", "high")} == {
        "runs": 3,
        "median": 40.0,
        "low": 30.0,
        "high": 50.0,
    }
    assert len(comparison_table(grouped())) == 6
    figure = comparison_figure(grouped())
    drawn = flat(figure)
    assert "(a) SGD: m-sgd-0" in drawn
    assert "median [lowest, highest]" in drawn
    assert "SGD, SAM, curve: median of 3 runs, band: range over 3 runs" in drawn
    # One surface each, and of the curves the median over the runs, with each run thin.
    (axes,) = [axes for axes in figure.axes if axes.get_title("left").endswith("along y = 0")]
    for group in grouped():
        curves = [row.surface.values["train_loss"][2] for row in group.rows if row.surface]
        drawn_lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
        for expected in (*curves, np.median(curves, axis=0)):
            assert any(
                line.shape == expected.shape and np.allclose(line, expected) for line in drawn_lines
            )


def test_findings_say_ranges_and_what_three_runs_cannot_show() -> None:
    said = "\n".join(findings(grouped()))
    assert "λmax, median [lowest, highest]: SGD 40 [30, 50], SAM 12.5 [10, 20]" in said
    assert "ranges apart: SAM below SGD" in said
    assert "test accuracy (%)" in said
    assert "ranges apart: SGD below SAM" in said
    assert "3 runs each rank nothing" in said
    assert "p = 0.25" in said
    sgd, sam = grouped()
    six = [replace(one, rows=one.rows * 2) for one in (sgd, sam)]
    assert "rank nothing" not in "\n".join(findings(six))  # 2^(1-6) = 0.031
    assert findings(single(rows())) == []


def with_accounts(
    row: ComparisonRow, pairs: dict[str, object], trace: dict[str, object]
) -> ComparisonRow:
    data = row.hessian
    assert data is not None
    assert data.eigenpairs is not None
    assert data.trace is not None
    data = replace(
        data,
        eigenpairs=replace(data.eigenpairs, account=pairs),
        trace=replace(data.trace, account=trace),
    )
    return replace(row, hessian=data)


def unconverged_rows() -> list[ComparisonRow]:
    """λmax 40, 136, 12.5, each with the residual 2.5e-4: within 1e-4 λ, not within 1e-7 λ."""
    first, second, third = rows()
    lost: dict[str, object] = {"converged": False}
    return [
        with_accounts(first, {"converged": True, "settings": {"tol": 1e-4}}, {"converged": True}),
        with_accounts(second, {**lost, "settings": {"tol": 1e-7}}, lost),
        # Another pair of the run did not converge; the largest did.
        with_accounts(third, {**lost, "settings": {"tol": 1e-4}}, {"converged": True}),
    ]


def test_what_did_not_converge_is_marked() -> None:
    table = table_of(unconverged_rows())
    assert [row["lambda_max_converged"] for row in table] == [True, False, True]
    assert [row["trace_converged"] for row in table] == [True, False, True]
    cells = printed(unconverged_rows())
    assert [one["λmax (residual)"].endswith("†") for one in cells] == [False, True, False]
    assert [one["trace ± s.e."] for one in cells] == ["400 ± 12", "1360 ± 42†", "125.0 ± 3.9"]
    drawn = flat(figure_of(unconverged_rows()))
    assert "λmax†: not converged" in drawn
    assert "trace†: not converged" in drawn
    assert "†" not in flat(figure_of(rows()))


def test_marks_are_explained_beside_the_written_table(tmp_path: Path) -> None:
    comparison = Comparison(single(unconverged_rows()))
    comparison.save(tmp_path)
    for text in (comparison.text(), (tmp_path / "table.md").read_text()):
        assert "1360 ± 42†" in text
        assert "trace†: not converged" in text
    written = json.loads((tmp_path / "table.json").read_text())["runs"]
    assert [row["trace_converged"] for row in written] == [True, False, True]
    with (tmp_path / "table.csv").open() as file:
        columns = [row["lambda_max_converged"] for row in csv.DictReader(file)]
    assert columns == ["True", "False", "True"]


@pytest.mark.parametrize("given", [rows, unconverged_rows])
def test_the_table_is_on_the_figure(given: Callable[[], list[ComparisonRow]]) -> None:
    drawn = words(figure_of(given())).split("\n")
    for cells in printed(given()):
        assert set(cells.values()) <= set(drawn)


def test_what_is_missing_names_its_command() -> None:
    first, second, third = rows()
    given = [replace(first, surface=None), replace(second, hessian=None), third]
    drawn = flat(figure_of(given, program="isoloss"))
    assert "no surface of SGD make it with isoloss surface m-sgd" in drawn
    assert "Adam: no spectral density (isoloss hessian m-adam)" in drawn
    drawn = flat(figure_of([ComparisonRow("A", "sgd"), ComparisonRow("B", "sam")]))
    for command in ("surface A", "surface --x=-1:1:51 A", "hessian B"):
        assert f"python cli.py {command}" in drawn


def test_notes_are_on_the_figure() -> None:
    first, second, third = rows()
    flawed = surface(5)
    flawed.values["train_loss"][0, :2] = np.nan
    given = [replace(first, surface=flawed), replace(second, surface=surface(2, Y + 0.1)), third]
    drawn = flat(figure_of(given, notes=["differs: split train/test"]))
    assert "differs: split train/test" in drawn
    assert "SGD: hatched: 2 of 35 points non-finite (2 NaN)" in drawn
    assert "Adam: no curve, its surface has no row y = 0" in drawn
    assert "(SGD 0.7, Adam 0.7, SAM 0.7), 2 probes of 2 steps" in drawn


def test_a_log_scale_says_where_it_begins_and_what_it_compares() -> None:
    first, second, _ = rows()
    data = surface(5)
    data.values["train_loss"] -= 0.0195
    drawn = flat(figure_of([replace(first, surface=data), second]))
    assert "from 0 and not from each minimum (SGD 5\N{MULTIPLICATION SIGN}10⁻⁴, Adam 0.02)" in drawn
    assert "heights, not flatness" in drawn
    assert "curvature is in the table" in drawn
    linear = [replace(row, surface=surface(0.02)) for row in (first, second)]
    assert "flatness" not in flat(figure_of(linear))


def test_surfaces_of_different_splits_say_so() -> None:
    first, second, _ = rows()
    assert first.surface is not None
    test = replace(first.surface, values={"test_loss": first.surface.values["test_loss"]})
    train = replace(first.surface, values={"train_loss": first.surface.values["train_loss"]})
    figure = figure_of([replace(first, surface=test), replace(second, surface=train)])
    assert "SGD shows its test loss" in flat(figure)
    (bar,) = [axes for axes in figure.axes if axes.get_ylabel().endswith(", log scale")]
    assert bar.get_ylabel() == "loss above 0, log scale"


def test_no_text_lies_on_another() -> None:
    """Titles, table cells, notes and axis labels of the page; labels within panels are theirs."""
    long = replace(rows()[0], label="a label that goes on for much longer than any table can hold")
    full = [measured(row) for row in rows()]
    notes = ["differs: samples 10000 / 2000"] * 4
    figures = [figure_of([long, *rows(), rows()[0]][:count], notes=notes) for count in (1, 3, 5)]
    for figure in (*figures, figure_of(full), comparison_figure(grouped())):
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        texts = list(figure.texts)
        for axes in figure.axes:
            if axes.name != "3d" and not axes.collections:
                texts += list(axes.texts)
            texts += [axes.title, axes._left_title]  # type: ignore[attr-defined]
            if axes.name != "3d":
                texts += [axes.xaxis.label, axes.yaxis.label]
                low, high = axes.get_xlim()
                ticks = [tick for tick in axes.get_xticklabels() if axes.axison]
                texts += [tick for tick in ticks if low <= tick.get_position()[0] <= high]
        shown = [text for text in texts if text.get_text().strip() and text.get_visible()]
        boxes = [text.get_window_extent(renderer) for text in shown]
        page = figure.bbox
        for i, box in enumerate(boxes):
            assert page.x0 <= box.x0, shown[i].get_text()
            assert box.x1 <= page.x1, shown[i].get_text()
            assert page.y0 <= box.y0, shown[i].get_text()
            assert box.y1 <= page.y1, shown[i].get_text()
            for j in range(i):
                assert not box.overlaps(boxes[j]), (shown[i].get_text(), shown[j].get_text())


def test_degenerate_runs_never_fail(tmp_path: Path) -> None:
    nothing = np.full((5, 7), np.nan)
    given = [
        ComparisonRow("NaN", "sgd", surface=SurfaceData(X, Y, {"train_loss": nothing},
                      np.ones((5, 7), bool), {}, {}), hessian=SpectrumData()),
        ComparisonRow("row", "adam", surface=SurfaceData(X, Y[2:3], {"train_loss": X[None] ** 2},
                      np.ones((1, 7), bool), {}, {}), accuracy=float("nan"), accuracy_se=0.0),
        ComparisonRow("flat", "sam", surface=surface(0.0)),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(save_figure(figure_of(given), tmp_path / "figure")) == 2
    with pytest.raises(FigureError, match="one run or more"):
        comparison_figure([])
