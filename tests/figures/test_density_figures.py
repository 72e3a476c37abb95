from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from isoloss.figures.density import common_densities, density_figure, leading
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


def test_overlaid_runs_share_the_largest_bandwidth() -> None:
    runs = [spectrum(10.0, 0.05), spectrum(100.0, 0.5)]
    narrow, wide = common_densities(runs)
    assert narrow.bandwidth == wide.bandwidth == 0.5
    assert narrow.grid is wide.grid
    for curve, item in zip((narrow, wide), runs, strict=True):
        # Each probe's measure has mass 1, and 5 standard deviations leave out 6e-7 of it.
        assert np.trapezoid(curve.curve, curve.grid) == pytest.approx(1, abs=2e-6)
        mean = np.trapezoid(curve.grid * curve.curve, curve.grid)
        assert item.density is not None
        exact = (item.density.nodes * item.density.weights).sum(1).mean()
        assert mean == pytest.approx(exact, abs=2e-5 * 100)
        assert np.all((curve.low <= curve.curve) & (curve.curve <= curve.high))
    # Smoothing again with the stored bandwidth gives the stored curve.
    stored = runs[1].density
    assert stored is not None
    again = np.interp(stored.grid, wide.grid, wide.curve)
    np.testing.assert_allclose(again, stored.curve, atol=0.01 * stored.curve.max())


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
