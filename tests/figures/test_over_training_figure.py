"""Curvature over a training, drawn: thresholds solid or dashed, what is measured in the labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from isoloss.figures.over_training import over_training_figure
from isoloss.figures.scale import Look
from isoloss.figures.style import FigureError, save_figure
from isoloss.records.over_training import OverTrainingData, Row

EPOCHS = np.arange(0, 60, 10)


def data(*, reference=(), shift=0.0, threshold=2.0, steps=1, **settings):
    rows = tuple(
        Row(
            epoch=int(epoch),
            step=int(steps * epoch),
            checkpoint="0" * 64,
            learning_rate=1.0,
            loss=1.0 / (1 + epoch),
            gradient_norm=1.0,
            threshold=threshold / (1 + epoch) if steps > 1 else threshold,
            eigenvalues=np.array([1.0 + 0.02 * epoch, 0.5]),
            residuals=np.array([1e-4, 1e-4]),
            converged=epoch != 30,
            products=10,
        )
        for epoch in EPOCHS
    )
    rule = "gradient descent: 2 / lr" if np.isfinite(threshold) else "none known for rmsprop"
    stability = {"rule": rule, "shift": shift, "for_reference": list(reference)}
    return OverTrainingData({"operator": "hessian", "stability": stability, **settings}, rows)


def texts(figure):
    legend = figure.axes[0].get_legend()
    found = [text.get_text() for text in legend.get_texts()] if legend else []
    found += [text.get_text() for one in figure.legends for text in one.get_texts()]
    return " | ".join([*found, figure.get_supxlabel().replace("\n", " ")])


def threshold_line(figure, expected):
    lines = [
        line
        for line in figure.axes[0].lines
        if len(line.get_ydata()) == len(EPOCHS)
        and np.allclose(np.asarray(line.get_ydata(), float), expected)
    ]
    assert len(lines) == 1
    return lines[0]


def test_full_batch_training_has_a_solid_threshold(tmp_path):
    figure = over_training_figure([("a", "sgd", data())], title="a")
    assert threshold_line(figure, 2.0).get_linestyle() == "-"
    assert "threshold of stability" in texts(figure)
    assert "threshold: gradient descent: 2 / lr" in texts(figure)
    assert "hollow: 1 not converged" in texts(figure)
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch, a step each"] * 2
    left = figure.axes[0].lines[-2:]
    assert any(line.get_markerfacecolor() == "white" for line in [*left, *figure.axes[0].lines])
    low, high = figure.axes[0].get_ylim()
    assert low < 0.5
    assert high > 2.0
    assert len(save_figure(figure, tmp_path / "figure")) == 2


def test_a_threshold_of_mini_batches_is_dashed_and_follows_the_learning_rate():
    one = data(reference=["mini-batches of 32"], steps=7)
    figure = over_training_figure([("a", "sgd", one)])
    assert threshold_line(figure, 2.0 / (1 + EPOCHS)).get_linestyle() == "--"
    assert "threshold, for reference" in texts(figure)
    assert "mini-batches of 32" in texts(figure)
    assert figure.axes[0].get_xlabel() == "epoch"


def test_without_a_threshold_none_is_drawn_and_the_figure_says_why():
    figure = over_training_figure([("a", "rmsprop", data(threshold=np.nan))])
    assert "threshold of stability" not in texts(figure)
    assert "none known for rmsprop" in texts(figure)


def test_a_weight_decay_is_in_the_label():
    figure = over_training_figure([("a", "sgd", data(shift=0.01))])
    assert figure.axes[0].get_ylabel() == "largest eigenvalue of H + 0.01 I"
    assert "with the weight decay" in texts(figure)


def test_several_runs_have_their_own_thresholds_and_what_differs_is_said():
    lower = data(threshold=1.5, samples=10)
    figure = over_training_figure([("a", "sgd", data(samples=20)), ("b", "sam", lower)])
    colors = [threshold_line(figure, value).get_color() for value in (2.0, 1.5)]
    assert len(set(colors)) == 2
    assert "a | b" in texts(figure)
    assert "measured differently: samples" in texts(figure)


def test_a_log_axis_and_what_is_not_finite():
    one = data()
    lost = dataclasses.replace(
        one.rows[-1], loss=np.nan, eigenvalues=np.full(2, np.nan), threshold=np.nan
    )
    one = dataclasses.replace(one, rows=(*one.rows[:-1], lost))
    figure = over_training_figure([("a", "sgd", one)], look=Look(log=True, xlim=(0, 40)))
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_xlim() == (0, 40)
    assert "loss not finite at 1 of 6 checkpoints" in texts(figure)
    nothing = dataclasses.replace(one, rows=(lost,))
    with pytest.raises(FigureError, match="eigenvalue"):
        over_training_figure([("a", "sgd", nothing)])


def test_far_thresholds_leave_the_eigenvalues_their_axis_and_are_said():
    figure = over_training_figure([("a", "sgd", data(threshold=76.0))])
    assert figure.axes[0].get_ylim()[1] < 2.5
    assert "thresholds beyond the axis: 76" in texts(figure)
    falling = data(threshold=76.0, steps=7)
    figure = over_training_figure([("a", "sgd", data()), ("b", "sgd", falling)])
    low, high = figure.axes[0].get_ylim()
    assert low < 1.0
    assert 2.0 < high < 8.5
    assert "thresholds beyond the axis: 76" in texts(figure)
