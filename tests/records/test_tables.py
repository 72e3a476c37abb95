"""What results print of themselves, and the data frames they become."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isoloss.evaluation.scores import NetworkScores, Scores
from isoloss.hessian import spectral_density, top_eigenpairs, trace
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.stored import stored_density, stored_eigenpairs, stored_trace
from isoloss.landscape.evaluation import Evaluation
from isoloss.records.runs import Run
from isoloss.records.spectra import ScaledData, SpectrumData
from isoloss.records.surface_data import Repeats, SurfaceData

MATRIX = MatrixOperator(torch.diag(torch.linspace(-1.0, 8.0, 10, dtype=torch.float64)))


@pytest.fixture
def pairs():
    return top_eigenpairs(MATRIX, 2, smallest=1)


def test_eigenpairs_print_a_table_of_eigenvalues_and_whether_they_converged(pairs):
    text = repr(pairs)
    head, *rows, state = text.splitlines()
    assert head.split() == ["end", "eigenvalue", "residual"]
    assert [row.split()[:2] for row in rows] == [
        ["largest", "8"], ["largest", "7"], ["smallest", "-1"],
    ]  # fmt: skip
    assert state.startswith("converged: ")
    assert "tensor" not in text


def test_eigenpairs_that_did_not_converge_say_so():
    big = MatrixOperator(torch.diag(torch.linspace(0.0, 1.0, 400, dtype=torch.float64)))
    pairs = top_eigenpairs(big, 3, max_products=5)
    assert "NOT converged: " in repr(pairs)


def test_frames_hold_the_eigenvalues_with_residuals(pairs):
    frame = pairs.to_dataframe()
    assert list(frame.columns) == ["end", "eigenvalue", "residual"]
    assert frame["eigenvalue"].tolist() == pytest.approx([8, 7, -1], rel=1e-9)
    stored = stored_eigenpairs(pairs, None, np.array([0.5, 0.25]))
    spectrum = SpectrumData({}, stored)
    frame = spectrum.to_dataframe()
    assert frame["residual"].tolist() == [*pairs.residuals, *pairs.smallest_residuals]
    assert frame["sample_standard_error"].tolist()[:2] == [0.5, 0.25]
    assert math.isnan(frame["sample_standard_error"].iloc[2])
    assert SpectrumData().to_dataframe().empty


def test_everything_else_is_a_line_or_a_few(pairs):
    density, estimate = spectral_density(MATRIX, probes=2, steps=4), trace(MATRIX, budget=10)
    spectrum = SpectrumData(
        {},
        stored_eigenpairs(pairs),
        stored_trace(estimate),
        stored_density(density),
        ScaledData(None, None, 2.5, 0.1, {}),
    )
    assert repr(spectrum.eigenpairs) in repr(spectrum)
    assert repr(spectrum.trace) in repr(spectrum)
    assert "standard_error=0, " in repr(spectrum.trace)
    assert repr(spectrum.scaled) == "ScaledData(trace=2.5, trace_standard_error=0.1)"
    assert repr(SpectrumData()) == "SpectrumData(nothing finished)"
    assert "2 probes of 4 steps" in repr(density)
    for found in (density, estimate, spectrum.density, spectrum.trace, spectrum.scaled):
        assert len(repr(found)) < 160
        assert "\n" not in repr(found)
    assert repr(Evaluation(0.5, 0.75, 1200, 1200.0, 0.1, 0.0123)) == (
        "Evaluation(loss=0.5 ± 0.012, accuracy=0.75, 1,200 samples)"
    )
    assert "accuracy" not in repr(Evaluation(0.5, math.nan, 12, 12.0, 0.1))


def test_scores_are_a_table_of_splits():
    scores = NetworkScores({"test": Scores(0.25, 0.01, 0.9, 0.02, 1500, 0)})
    head, row = repr(scores).splitlines()
    assert head.split() == ["split", "loss", "accuracy", "samples"]
    assert row == "test   0.25 ± 0.01  0.9 ± 0.02  1,500"


def surface(repeats=None, y=True):
    shape = (2, 3) if y else (3,)
    values = np.arange(6.0).reshape(2, 3) if y else np.arange(3.0)
    return SurfaceData(
        np.array([-1.0, 0.0, 1.0]),
        np.array([0.0, 2.0]) if y else None,
        {"train_loss": values},
        np.ones(shape, dtype=bool),
        {"train_loss": 0.5},
        {},
        repeats=repeats,
    )


def test_a_surface_prints_its_grid_and_ranges():
    first, second = repr(surface()).splitlines()
    assert first == "SurfaceData(3 points of x from -1 to 1, 2 points of y from 0 to 2)"
    assert second == "  train_loss: 0.5 at the weights, 0 to 5"


def test_a_surface_becomes_a_frame_of_points():
    data = surface()
    frame = data.to_dataframe()
    assert list(frame.columns) == ["repeat", "x", "y", "train_loss"]
    for row in frame.itertuples():
        i, j = data.y.tolist().index(row.y), data.x.tolist().index(row.x)
        assert row.train_loss == data.values["train_loss"][i, j]
    assert len(frame) == 6


def test_repeats_and_what_is_pending_are_in_the_frame():
    each = np.array([[0.0, 1.0, 2.0], [5.0, np.nan, 7.0]])
    repeats = Repeats({"train_loss": each}, np.isfinite(each))
    data = surface(repeats, y=False)
    frame = data.to_dataframe()
    assert list(frame.columns) == ["repeat", "x", "train_loss"]
    found = frame.pivot_table(values="train_loss", index="repeat", columns="x", dropna=False)
    np.testing.assert_array_equal(found.to_numpy(), each)
    assert "2 directions or planes, 5 of 6 points done" in repr(data)


def test_the_history_of_a_run_becomes_a_frame(tmp_path):
    run = Run(tmp_path)
    run.write_history([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": None}])
    frame = run.to_dataframe()
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["train_loss"].isna().tolist() == [False, True]
