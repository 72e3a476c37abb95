from __future__ import annotations

import subprocess
import sys
from itertools import permutations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from isoloss.figures.style import house_style, save_figure, series_styles, wrap
from isoloss.figures.surface import KINDS, surface_figure
from isoloss.records.surfaces import SurfaceData


def a_surface() -> SurfaceData:
    x = np.linspace(-1, 1, 9)
    values = 0.01 + 30 * (x[None] ** 2 + x[:, None] ** 4)
    values[2, 3] = np.nan
    return SurfaceData(
        x, x, {"train_loss": values}, np.ones((9, 9), bool), {"train_loss": 0.01}, {}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_give_the_same_bytes(kind: str, tmp_path: Path) -> None:
    first = save_figure(surface_figure(a_surface(), kind, title="λ"), tmp_path / "a" / "run-0.05")
    second = save_figure(surface_figure(a_surface(), kind, title="λ"), tmp_path / "b" / "other")
    assert [path.name for path in first] == ["run-0.05.png", "run-0.05.pdf"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first[0].read_bytes().startswith(b"\x89PNG")
    pdf = first[1].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf  # embedded TrueType


def test_the_readers_settings_change_nothing_and_are_not_changed(tmp_path: Path) -> None:
    plain = save_figure(surface_figure(a_surface()), tmp_path / "plain")
    before = {"font.size": 23.0, "lines.linewidth": 9.0, "pdf.fonttype": 3, "image.cmap": "jet"}
    with matplotlib.rc_context(before):
        styled = save_figure(surface_figure(a_surface()), tmp_path / "styled")
        assert {key: matplotlib.rcParams[key] for key in before} == before
    for one, other in zip(plain, styled, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = tmp_path / "figure"
    (tmp_path / "figure.png").write_bytes(b"old")
    draw = Figure.savefig

    def fail(self: Figure, file: object, *, format: str, **settings: object) -> None:
        if format == "pdf":
            raise OSError("no space left on device")
        draw(self, file, format=format, **settings)

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="no space"):
        save_figure(surface_figure(a_surface()), stem)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    assert (tmp_path / "figure.png").read_bytes() == b"old"


def test_styles_follow_the_optimizer_and_not_the_order() -> None:
    expected = dict(zip(("sgd", "adam", "sam"), series_styles(["sgd", "adam", "sam"]), strict=True))
    for names in permutations(expected):
        assert series_styles([name.upper() for name in names]) == [expected[n] for n in names]


def test_styles_of_one_figure_differ_in_colour_and_line() -> None:
    names = ["sam", "sam", "mine", "sgd", "sam", "adam", "asam"]
    styles = series_styles(names)
    assert len({style.color for style in styles}) == len({style.linestyle for style in styles}) == 7
    assert styles[0] == series_styles(["sam"])[0]
    assert len(series_styles(["sam"] * 20)) == 20


def test_wrapped_lines_fit_the_width() -> None:
    text = (
        "hatched: 4 of 273 points non-finite (3 NaN, 1 inf); blank: 16 of 273 points pending; " * 3
    )
    figure = Figure(figsize=(3.4, 1))
    with house_style():
        drawn = figure.text(0, 0, wrap(text, 3.4, 6.0), fontsize=6.0)
        assert drawn.get_window_extent().width <= 3.4 * figure.dpi


def test_importing_figures_is_light_and_touches_no_global_state() -> None:
    code = (
        "import sys, isoloss.figures\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
