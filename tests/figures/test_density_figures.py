from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from isoloss.figures.density import (
    density_figure,
    leading,
    overlaid_densities,
)
from isoloss.figures.density_panels import density_panels, linear_width
from isoloss.figures.scale import Look
from isoloss.figures.style import FigureError, series_styles
from isoloss.records.spectra import DensityData, EigenpairsData, SpectrumData, TraceData


def spectrum(largest: float = 10.0, bandwidth: float = 0.5, probes: int = 3) -> SpectrumData:
    """A density of two nodes a probe at 0 and `largest`, with weights that differ by probe."""
    nodes = np.tile([0.0, largest], (probes, 1))
    share = 0.01 * np.arange(1, probes + 1)
    weights = np.column_stack([1 - share, share])
    grid = np.linspace(-5 * bandwidth, largest + 5 * bandwidth, 1001)
    bumps = np.exp(-0.5 * ((grid - nodes[..., None]) / bandwidth) ** 2)
    curves = (weights[..., None] * bumps).sum(1) / (bandwidth * math.sqrt(2 * math.pi))
    density = DensityData(
        nodes, weights, grid, curves.mean(0), curves.min(0), curves.max(0), {"bandwidth": bandwidth}
    )
    pairs = EigenpairsData(
        np.array([largest, 1.0]), np.array([1e-4, 1e-5]), {}, np.array([-2.0]), np.zeros(1), {}, {}
    )
    return SpectrumData({}, pairs, TraceData(12.0, 0.5, 20, {}), density)


def test_one_run_is_drawn_as_it_is_stored() -> None:
    data = spectrum()
    figure = density_figure([("SGD", "sgd", data)])
    axes = figure.axes[0]
    assert data.density is not None
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), data.density.curve)
    assert axes.get_yscale() == "log"
    assert list(axes.lines[1].get_xdata()) == [10.0, 1.0, -2.0]
    note = figure.get_supxlabel().replace("\n", " ")
    assert "bandwidth 0.5, 3 probes of 2 steps" in note
    assert "band: range over probes" in note


def density_of(data: SpectrumData) -> DensityData:
    assert data.density is not None
    return data.density


def test_overlaid_runs_keep_their_own_bandwidths() -> None:
    stored = [density_of(spectrum(0.6, 0.003)), density_of(spectrum(30.0, 0.149))]
    for curve, one in zip(overlaid_densities(stored), stored, strict=True):
        assert curve.bandwidth == one.account["bandwidth"]
        # Each probe's measure has mass 1, of which 6.5 standard deviations leave out 1e-10; the
        # trapezoidal rule over Gaussians with 4 points a standard deviation or more is as exact.
        assert np.trapezoid(curve.curve, curve.grid) == pytest.approx(1, abs=1e-3)
        mean = np.trapezoid(curve.grid * curve.curve, curve.grid)
        exact = (one.nodes * one.weights).sum(1).mean()
        assert mean == pytest.approx(exact, abs=1e-3 * one.nodes.max())
        assert np.all((curve.low <= curve.curve) & (curve.curve <= curve.high))
        again = np.interp(one.grid, curve.grid, curve.curve)
        np.testing.assert_allclose(again, one.curve, atol=0.01 * one.curve.max())


def test_a_flat_spectrum_is_seen_beside_a_sharp_one() -> None:
    """Its two nodes lie within 6 bandwidths of the sharp run, and on most of the axis."""
    figure = density_figure(
        [("Adam", "adam", spectrum(30.0, 0.149)), ("SAM", "sam", spectrum(0.6, 0.003))]
    )
    axes = figure.axes[0]
    assert axes.get_xscale() == "symlog"
    assert "linear within ±0.05, log beyond" in axes.get_xlabel()
    (flat,) = [line for line in axes.lines if line.get_label() == "SAM"]
    x, y = flat.get_data()
    # Peaks of 3 probes' mean weights 0.98 and 0.02, a Gaussian's height 1/(s sqrt(2 pi)).
    height = 1 / (0.003 * math.sqrt(2 * math.pi))
    assert float(np.max(y)) == pytest.approx(0.98 * height, rel=1e-3)
    assert float(np.interp(0.6, x, y)) == pytest.approx(0.02 * height, rel=1e-3)
    assert float(np.interp(0.3, x, y)) < 1e-9 * height
    note = figure.get_supxlabel().replace("\n", " ")
    assert "own bandwidth (Adam 0.149, SAM 0.003)" in note
    low, high = axes.transAxes.inverted().transform(axes.transData.transform([(0, 1), (0.6, 1)]))
    assert high[0] - low[0] > 0.25


def test_negative_shares_have_one_threshold() -> None:
    wide, narrow = spectrum(30.0, 0.149), spectrum(0.6, 0.003)
    # 18.7 % of the flat run at -0.01: less than the sharp run's bandwidth, more than rounding.
    nodes = np.array([[-0.01, 0.0, 0.6]] * 2)
    weights = np.array([[0.187, 0.803, 0.01]] * 2)
    narrow = replace(narrow, density=replace(density_of(narrow), nodes=nodes, weights=weights))
    figure = density_figure([("Adam", "adam", wide), ("SAM", "sam", narrow)])
    note = figure.get_supxlabel().replace("\n", " ")
    # 10 times float32's eps times 30.
    assert "share of eigenvalues below \N{MINUS SIGN}3.6\N{MULTIPLICATION SIGN}10⁻⁵" in note
    assert "Adam 0 (0 to 0.98), SAM 0.187 (0 to 0.99)" in note


def test_colours_follow_the_optimizer() -> None:
    figure = density_figure([("b", "sam", spectrum()), ("a", "sgd", spectrum(20.0))])
    labelled = [line for line in figure.axes[0].lines if line.get_label() in "ab"]
    assert [line.get_color() for line in labelled] == [
        style.color for style in series_styles(["sam", "sgd"])
    ]


def test_incomplete_spectra() -> None:
    data = spectrum()
    assert data.density is not None
    flawed = replace(data.density, curve=np.full(1001, np.nan), nodes=np.full((3, 2), np.nan))
    broken = replace(data, density=flawed, eigenpairs=None)
    assert leading(broken) == []
    figure = density_figure([("SGD", "sgd", data), ("SAM", "sam", broken)])
    assert "SAM: density is not finite" in figure.get_supxlabel()
    density_figure([("SAM", "sam", broken)]).draw_without_rendering()
    with pytest.raises(FigureError, match="expected a stored spectral density"):
        density_figure([("SGD", "sgd", SpectrumData())])


def test_a_single_curve_is_solid() -> None:
    figure = density_figure([("Adam", "adam", spectrum())])
    assert figure.axes[0].lines[0].get_linestyle() == "-"


def test_panels_keep_each_networks_own_axis() -> None:
    settings = {"parameters": 21538, "samples": 1000, "population": 54000}
    wide = replace(spectrum(30.0, 0.149), settings=settings)
    figure = density_panels([("A", "sgd", wide), ("B", "", spectrum(0.6, 0.003))], title="both")
    first, second = figure.axes
    for axes, largest in ((first, 30.0), (second, 0.6)):
        assert axes.get_xscale() == "asinh"
        low, high = axes.get_xlim()
        assert low < -2.0 < largest < high
        # The stored smallest eigenvalue lies beyond all nodes, and has its place.
        assert sorted(axes.lines[1].get_xdata()) == pytest.approx(sorted([largest, 1.0, -2.0]))
    assert first.get_title("left") == "A, 21,538 parameters"
    assert second.get_title("left") == "B"
    texts = [text.get_text() for text in first.texts]
    assert texts == ["largest 30\ntrace 12.00 ± 0.50"]
    note = figure.get_supxlabel().replace("\n", " ")
    assert "A: 1,000 of 54,000 samples, 3 probes of 2 steps" in note
    assert "B: 3 probes of 2 steps" in note
    three = density_panels([("A", "", wide), ("B", "", wide), ("C", "", wide)])
    assert [axes.get_visible() for axes in three.axes] == [True, True, True, False]
    with pytest.raises(FigureError, match="expected a stored spectral density"):
        density_panels([("A", "", SpectrumData())])


@pytest.mark.parametrize("size", [{}, {"parameters": 10**6}])
def test_areas_in_a_panel_are_shares_of_the_eigenvalues(size) -> None:
    # Twenty nodes from 0 to 30, of which the ends have all of the mass.
    one, steps = density_of(spectrum(30.0, 0.149)), 20
    weights = np.zeros((3, steps))
    weights[:, [0, -1]] = one.weights
    density = replace(one, nodes=np.tile(np.linspace(0, 30, steps), (3, 1)), weights=weights)
    data = SpectrumData(size, None, None, density)
    figure = density_panels([("A", "", data)], look=Look(vmin=1e-30))
    axes, width = figure.axes[0], linear_width(density)
    assert f"linear within ±{width:g}" in axes.get_xlabel().replace("\N{MINUS SIGN}", "-")
    x, y = (np.asarray(values, float) for values in axes.lines[0].get_data())
    u = np.arcsinh(x / width)
    # Gaussians of mass 1, cut at 4.5 widths.
    assert np.trapezoid(y, u) == pytest.approx(1.0, abs=1e-4)
    beyond = u > np.arcsinh(15.0 / width)
    assert np.trapezoid(y[beyond], u[beyond]) == pytest.approx(0.02, abs=1e-4)
    # About what twenty steps tell apart next to an end of a spectrum 30 wide.
    resolved = 30 * (math.pi / steps) ** 2 / 2
    assert resolved <= width <= 2.5 * resolved


def test_a_panel_of_what_is_not_finite_says_so() -> None:
    density = density_of(spectrum())
    broken = replace(density, curve=np.full_like(density.curve, np.nan))
    figure = density_panels([("A", "", SpectrumData({}, None, None, broken))])
    assert [text.get_text() for text in figure.axes[0].texts] == ["not finite"]
    assert "A: density is not finite" in figure.get_supxlabel()
