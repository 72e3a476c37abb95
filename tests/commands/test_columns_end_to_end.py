"""`surface --also --metric` and `plot` of what it leaves, from training to figures and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from isoloss import cli
from isoloss.experiments import drawing
from isoloss.records.surfaces import read_surface

TRAIN = ("--model", "mnist-light", "--dataset", "digits", "--dataset-arg", "size=8",
         "--fraction", "0.2", "--epochs", "1", "--no-figures")  # fmt: skip
METRIC = """
def confidence(outputs, targets):
    return outputs.softmax(1).amax(1)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    (folder / "own.py").write_text(METRIC)
    common = ("--results", str(folder))
    assert cli.main(["train", "--run", "a", *TRAIN, *common]) == 0
    metric = ("--metric", f"{folder / 'own.py'}:confidence", "--split", "both", "--samples", "12")
    also = ("--also", "eigenvalues", "--also", "grad_norm", "--bn", "recalibrate")
    for name, more in {
        "plane": ("--x=-1:1:2", "--y=-1:1:2", *also),
        "line": ("--x=-1:1:3", "--also", "grad_norm"),
        "longer": ("--x=-2:2:3",),
    }.items():
        out = ("--out", str(folder / f"{name}.h5"), "--no-figures")
        assert cli.main(["surface", "a", *metric, *more, *out, *common]) == 0
    return folder


def test_a_surface_has_the_columns_that_were_asked_for(place):
    data = read_surface(place / "plane.h5")
    assert set(data.values) == {
        "train_loss", "train_acc", "train_loss_se", "train_confidence", "train_confidence_se",
        "test_loss", "test_acc", "test_loss_se", "test_confidence", "test_confidence_se",
        "grad_norm", "max_eig", "min_eig", "max_eig_residual", "min_eig_residual",
    }  # fmt: skip
    assert all(np.isfinite(values).all() for values in data.values.values())
    assert (data.values["max_eig"] > data.values["min_eig"]).all()
    stored = data.settings["columns"]
    assert set(stored) == {"metrics", "grad_norm", "eigenvalues"}
    assert len(stored["metrics"]["confidence"]["sha256"]) == 64


def plot(place, capsys, *words):
    capsys.readouterr()
    code = cli.main(["plot", *words, "--json"])
    out, error = capsys.readouterr()
    return {p.rpartition("/")[2] for p in json.loads(out)["figures"]} if code == 0 else error


@pytest.fixture
def unwritten(monkeypatch):
    """Make figures and write none of them."""

    def named(figure, stem):
        return [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf")]

    monkeypatch.setattr(drawing, "save_figure", named)


def test_each_column_has_a_figure_and_both_splits_do(place, capsys, unwritten):
    drawn = plot(place, capsys, str(place / "plane.h5"), "--out", str(place / "f" / "s.png"))
    kinds = ("contour", "filled", "heatmap", "3d")
    columns = ("test_loss", "train_confidence", "test_confidence", "grad_norm", "max_eig",
               "min_eig", "eig_ratio")  # fmt: skip
    assert {name for name in drawn if name.endswith(".png")} == {
        f"s-{name}.png" for name in (*kinds, *columns)
    }
    drawn = plot(place, capsys, str(place / "line.h5"), "--out", str(place / "f" / "l"))
    assert {name for name in drawn if name.endswith(".pdf")} == {
        "l.pdf", "l-confidence.pdf", "l-grad_norm.pdf",
    }  # fmt: skip


def test_one_column_of_one_file_or_of_several(place, capsys, unwritten):
    plane, line, longer = (str(place / f"{name}.h5") for name in ("plane", "line", "longer"))
    drawn = plot(place, capsys, plane, "--column", "test_acc", "--vmin", "1", "--levels", "5,9")
    assert "plane-test_acc-contour.png" in drawn
    assert len(drawn) == 8
    assert plot(place, capsys, line, "--column", "grad_norm", "--log") == {
        "line-grad_norm.png", "line-grad_norm.pdf",
    }  # fmt: skip
    assert plot(place, capsys, line, longer, "--column", "test_loss", "--xlim=-2:2") == {
        "line-several.png", "line-several.pdf",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("line", "--column", "test_los"), "did you mean test_loss?"),
        (("line", "plane"), "2-D surface"),
        (("line", "--levels", "3"), "--levels: is for surfaces"),
        (("plane", "--xlim=0:1"), "--xlim: is for curves and spectra"),
        (("plane", "--vmin", "2", "--vmax", "1"), "expected vmin below vmax, got 2 and 1"),
        (("plane", "--column", "min_eig", "--log"), "smallest Hessian eigenvalue has others"),
        (("plane", "--levels", "a"), "a number of levels, or values"),
        (("line", "--xlim", "1"), "two numbers as -1:1, got '1'"),
        (("longer", "line", "--column", "grad_norm"), "longer.h5, got 'grad_norm'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_its_option(place, capsys, words, said):
    files = [str(place / f"{w}.h5") if w in ("line", "plane", "longer") else w for w in words]
    assert cli.main(["plot", *files]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--also", "hessian"), "--also: expected one of grad_norm, eigenvalues, got 'hessian'"),
        (("--also", "grad_norm", "--also", "grad_norm"), "expected each once"),
        (("--metric", "nowhere.py:f"), "nowhere.py"),
    ],
)
def test_columns_that_do_not_exist_are_refused(place, capsys, words, said):
    assert cli.main(["surface", "a", "--x=-1:1:3", *words, "--results", str(place)]) != 0
    assert said in capsys.readouterr().err


def test_a_changed_metric_is_another_computation(place, capsys, tmp_path):
    own, out = tmp_path / "own.py", tmp_path / "s.h5"
    command = ["surface", "a", "--x=-1:1:3", "--samples", "20", "--metric", f"{own}:confidence",
               "--out", str(out), "--no-figures", "--results", str(place)]  # fmt: skip
    own.write_text(METRIC)
    assert cli.main(command) == 0
    own.write_text(METRIC.replace("amax", "amin"))
    assert cli.main(command) == 1
    assert "columns.metrics.confidence.sha256" in capsys.readouterr().err


def test_figures_are_written_where_they_are_asked_for(place, capsys, tmp_path):
    line, longer = (str(place / f"{name}.h5") for name in ("line", "longer"))
    assert plot(place, capsys, line, longer, "--out", str(tmp_path / "new" / "both.pdf"))
    assert (tmp_path / "new" / "both.png").stat().st_size > 5000
    assert (tmp_path / "new" / "both.pdf").read_bytes().startswith(b"%PDF")
