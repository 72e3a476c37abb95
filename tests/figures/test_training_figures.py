from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isoloss.figures.confusion import confusion_figure
from isoloss.figures.style import FigureError
from isoloss.figures.training import training_figure
from isoloss.records.history_lines import LoggedRun
from isoloss.records.runs import Run, find_run, new_run


def run(results: Path, name: str, optimizer: str, epochs: int, status: str = "finished") -> Run:
    with new_run(results, name, {"optimizer": optimizer, "label": name.upper()}):
        pass
    made = find_run(results, name)
    made.write_history(
        {
            "epoch": k,
            "train_loss": 2.0**-k,
            "train_accuracy": 1 - 2.0**-k,
            "val_loss": 2.0 ** (1 - k),
            "val_accuracy": 1 - 0.9**k,
        }
        for k in range(1, epochs + 1)
    )
    made.write_manifest(status)
    return made


def test_one_run_has_both_splits_in_a_panel(tmp_path: Path) -> None:
    left, right = training_figure([run(tmp_path, "a", "sgd", 5)]).axes
    epochs = np.arange(1, 6)
    assert [line.get_label() for line in left.lines] == ["training", "validation"]
    np.testing.assert_array_equal(left.lines[0].get_xdata(), epochs)
    np.testing.assert_array_equal(left.lines[1].get_ydata(), 2.0 ** (1 - epochs))
    np.testing.assert_allclose(right.lines[0].get_ydata(), 100 * (1 - 2.0**-epochs))
    assert left.get_yscale() == "linear"


def test_several_runs_have_a_panel_for_each_split(tmp_path: Path) -> None:
    runs = [run(tmp_path, "a", "sam", 9), run(tmp_path, "b", "sgd", 4, "interrupted")]
    figure = training_figure(runs)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "training loss (log scale)",
        "training accuracy (%)",
        "validation loss (log scale)",
        "validation accuracy (%)",
    ]
    assert [line.get_label() for line in figure.axes[2].lines] == ["A", "B"]
    assert [line.get_color() for line in figure.axes[3].lines] == ["#009E73", "#0072B2"]
    assert figure.get_supxlabel() == "B: interrupted, 4 epochs so far"


def test_logged_histories_have_a_test_split() -> None:
    columns = {"epoch": np.arange(1.0, 4), "train_loss": np.ones(3), "test_loss": 2 * np.ones(3)}
    one, other = LoggedRun("one", columns), LoggedRun("other", columns)
    left, _ = training_figure([one]).axes
    assert [line.get_label() for line in left.lines] == ["training", "test"]
    np.testing.assert_array_equal(left.lines[1].get_ydata(), columns["test_loss"])
    figure = training_figure([one, other])
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["training loss", "test loss"]
    assert [line.get_label() for line in figure.axes[2].lines] == ["one", "other"]


def test_values_that_are_missing(tmp_path: Path) -> None:
    made = run(tmp_path, "a", "sgd", 3)
    made.write_history(
        {"epoch": k, "train_loss": float("nan") if k == 2 else 1.0, "val_loss": float("nan")}
        for k in (1, 2, 3)
    )
    figure = training_figure([made])
    assert len(figure.axes[0].lines) == 1
    assert "A: training loss not finite in 1 of 3 epochs" in figure.get_supxlabel()
    assert figure.axes[1].texts[0].get_text() == "no accuracy stored"
    made.write_history([])
    with pytest.raises(FigureError, match="one epoch or more"):
        training_figure([made])


def test_confusion_counts_stand_in_their_cells() -> None:
    counts = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    figure = confusion_figure(counts, ["cat", "dog", "elephant"])
    axes = figure.axes[0]
    for text in axes.texts:
        column, row = text.get_position()
        assert text.get_text() == str(counts[int(row), int(column)])
    assert len(axes.texts) == 9
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[0.8, 0.2, 0], [0.1, 0.9, 0], [0, 0, 0]]
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "elephant"]
    assert axes.get_ylabel() == "true class"
    assert not confusion_figure(np.eye(100)).axes[0].texts
    for wrong in (np.ones((2, 3)), np.ones((0, 0))):
        with pytest.raises(FigureError, match="square matrix"):
            confusion_figure(wrong)
    with pytest.raises(FigureError, match="3 class names"):
        confusion_figure(counts, ["cat"])
