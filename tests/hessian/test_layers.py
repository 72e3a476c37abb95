"""Blocks of single layers: parts of the dense matrix, kept a layer at a time."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from isoloss.experiments import SpectrumSettings
from isoloss.figures import layers_figure
from isoloss.hessian import MatrixOperator, Spectrum, frobenius_norm, layer_parameters
from isoloss.hessian.asked import SpectrumError
from isoloss.hessian.operators.named import OPERATORS, named_operator
from isoloss.records.layers import share_of_trace
from isoloss.records.spectra import read_spectrum
from tests.hessian.test_hessian_operator import build, dense


class Killed(BaseException):
    pass


def spectrum(operator="hessian", layers=True, **options):
    settings = SpectrumSettings(
        **{"top": 0, "trace_budget": 200, "probes": 1, "steps": 2, "tol": 1e-8, **options},
        operator=operator,
        layers=layers,
    )
    return Spectrum(build("tanh-mlp"), settings)


@pytest.mark.parametrize("operator", OPERATORS)
def test_blocks_are_those_of_the_dense_matrix(operator):
    problem = build("tanh-mlp")
    whole = named_operator(problem, operator)
    matrix, layers = dense(whole), layer_parameters(whole.shapes)
    scale = torch.linalg.eigvalsh(matrix).abs().max().item()
    sizes = {name: shape.numel() for name, shape in whole.shapes.items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    assert len(layers) > 1
    found = spectrum(operator).run()
    for layer, names in layers.items():
        rows = np.concatenate([np.arange(starts[n], starts[n] + sizes[n]) for n in names])
        block = matrix[rows][:, rows]
        with named_operator(problem, operator, parameters=names) as own:
            assert (dense(own) - block).abs().max() <= 1e-8 * scale
        stored = found.layers[layer]
        assert stored.parameters == len(rows)
        largest = torch.linalg.eigvalsh(block)[-1].item()
        assert stored.eigenvalue == pytest.approx(largest, abs=1e-7 * scale)
        # The budget allows the diagonal of each block and of its square: both are exact.
        assert stored.trace == pytest.approx(block.trace().item(), abs=1e-8 * scale)
        assert stored.frobenius_norm == pytest.approx(block.norm().item(), abs=1e-7 * scale)
        assert stored.trace_standard_error == stored.frobenius_standard_error == 0
    total = sum(layer.trace for layer in found.layers.values())
    assert total == pytest.approx(matrix.trace().item(), abs=1e-7 * scale)


def test_an_interrupted_layer_is_gone_on_with(tmp_path):
    path = tmp_path / "h.h5"
    layers = [f"layers/{name}" for name in layer_parameters(spectrum().operator.shapes)]

    def stop(stage, done, total):
        if stage == layers[1]:
            raise Killed

    with pytest.raises(Killed):
        spectrum().run(path, stop)
    assert read_spectrum(path).finished == ("trace", "scaled", "density", layers[0])
    begun = []
    spectrum().run(path, lambda stage, done, total: begun.append(stage))
    assert sorted(set(begun)) == sorted(layers[1:])
    spectrum().run(tmp_path / "whole.h5")
    for suffix in (".h5", ".json"):
        one, other = (tmp_path / f"{name}{suffix}" for name in ("h", "whole"))
        assert one.read_bytes() == other.read_bytes()
    task = spectrum()
    task.run(path)
    assert task.products == 0


def test_layers_are_added_to_a_finished_file(tmp_path):
    path = tmp_path / "h.h5"
    spectrum(layers=False).run(path)
    assert not read_spectrum(path).layers
    task = spectrum()
    task.run(path)
    assert task.products > 0
    found = read_spectrum(path)
    assert list(found.layers) == list(layer_parameters(task.operator.shapes))
    told = json.loads(path.with_suffix(".json").read_text())["layers"]
    assert [row["layer"] for row in told] == list(found.layers)
    assert sum(row["share"] for row in told) == pytest.approx(1.0)
    spectrum(layers=False).run(path)
    assert read_spectrum(path).layers == found.layers


def test_layers_of_each_operator_have_their_place(tmp_path):
    spectrum("ggn,hessian").run(tmp_path / "s.h5")
    found = read_spectrum(tmp_path / "s.h5")
    alone = spectrum("hessian").run()
    assert found.others["hessian"].layers.keys() == found.layers.keys()
    for name, layer in found.others["hessian"].layers.items():
        assert layer == alone.layers[name]
    # The network is linear in the weights of its last layer, whose block G has in full.
    first, *_, last = found.layers
    assert found.layers[first].trace != pytest.approx(alone.layers[first].trace, rel=1e-3)
    assert found.layers[last].trace == pytest.approx(alone.layers[last].trace)


def test_shares_carry_the_errors_of_all_traces():
    layers = spectrum().run().layers
    generator = np.random.default_rng(0)
    errors = {name: 0.01 * abs(layer.trace) for name, layer in layers.items()}
    noisy = {n: dataclasses.replace(x, trace_standard_error=errors[n]) for n, x in layers.items()}
    draws = {n: x.trace + errors[n] * generator.standard_normal(20_000) for n, x in layers.items()}
    for name in layers:
        spread = (draws[name] / sum(draws.values())).std()
        assert share_of_trace(noisy, name)[1] == pytest.approx(spread, rel=0.05)


def test_a_small_basis_is_kept_to():
    matrix = dense(named_operator(build("tanh-mlp"), "hessian"))
    settings = SpectrumSettings(top=1, smallest=0, probes=0, basis=5, layers=True, trace_budget=24,
                                trace_error=1e-9)  # fmt: skip
    task = Spectrum(build("tanh-mlp"), settings)
    layers = task.run().layers
    shapes = task.operator.shapes
    ends = np.cumsum([sum(shapes[n].numel() for n in x.account["names"]) for x in layers.values()])
    for layer, end in zip(layers.values(), ends.tolist(), strict=True):
        block = matrix[end - layer.parameters : end, end - layer.parameters : end]
        assert layer.account["eigenvalue"]["settings"]["max_basis"] == 5
        assert layer.account["eigenvalue"]["copies"] == "not searched"
        largest = torch.linalg.eigvalsh(block)[-1].item()
        assert abs(layer.eigenvalue - largest) <= layer.residual + 1e-12
        # A basis of XTrace would hold 12 vectors, that of the squared matrix 6.
        if layer.parameters > 24:
            assert layer.account["trace"]["method"] == "hutchinson"
            assert layer.account["frobenius_norm"]["settings"]["method"] == "hutchinson"
        assert abs(layer.trace - block.trace()) <= 4 * layer.trace_standard_error + 1e-12
        error = 4 * layer.frobenius_standard_error + 1e-12
        assert abs(layer.frobenius_norm - block.norm()) <= error


def test_too_few_products_are_refused():
    with pytest.raises(SpectrumError, match="`trace_budget` of 8 or more"):
        spectrum(trace_budget=7)


def test_frobenius_norm_is_within_its_error_as_often_as_it_says():
    values = torch.exp(-torch.arange(80, dtype=torch.float64) / 6) * (-1) ** torch.arange(80)
    operator, exact = MatrixOperator(torch.diag(values)), values.norm().item()
    found = [
        frobenius_norm(operator, relative_error=1e-9, budget=48, seed=seed) for seed in range(200)
    ]
    covered = np.mean([abs(f.value - exact) <= 2 * f.standard_error for f in found])
    assert covered >= 0.91  # 0.95 is meant
    assert all(f.products <= 48 for f in found)
    assert np.median([f.standard_error for f in found]) <= 0.05 * exact


def test_the_figure_shows_what_is_negative_zero_or_not_finite():
    layers = spectrum().run().layers
    first, *others = layers
    flawed = {
        first: dataclasses.replace(layers[first], trace=-1.0, frobenius_norm=0.0),
        **{name: dataclasses.replace(layers[name], eigenvalue=float("nan")) for name in others},
    }
    figure = layers_figure(flawed)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "0" in texts
    assert texts.count("n/a") == len(others)
    assert any(patch.get_hatch() for patch in figure.axes[1].patches)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(layers)
