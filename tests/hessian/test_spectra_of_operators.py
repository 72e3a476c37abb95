"""Spectra of several operators in one file, and the samples' errors of each."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from isoloss import cli
from isoloss.experiments import SpectrumSettings
from isoloss.hessian import Spectrum, sample_error
from isoloss.hessian.operators.ggn import GGNOperator
from isoloss.hessian.operators.named import OPERATORS, OperatorNameError, named_operator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.landscape import Problem
from isoloss.records.identity import SettingsDifferError
from isoloss.records.spectra import read_spectrum
from tests.hessian.test_hessian_operator import DOUBLE, build, dense

STAGES = ("eigenpairs", "trace", "scaled", "density")


class Killed(BaseException):
    pass


def spectrum(operator, seed=0, **options):
    settings = SpectrumSettings(
        **{"top": 2, "trace_budget": 8, "probes": 2, "steps": 4, "seed": seed, **options},
        operator=operator,
    )
    return Spectrum(build("tanh-mlp"), settings)


def test_each_operator_has_the_eigenvalues_of_its_matrix(tmp_path):
    path = tmp_path / "s.h5"
    spectrum(",".join(OPERATORS)).run(path)
    found = read_spectrum(path).operators
    assert list(found) == list(OPERATORS)
    for name, data in found.items():
        assert data.stages == STAGES
        matrix = dense(named_operator(build("tanh-mlp"), name))
        values = torch.linalg.eigvalsh(matrix).flip(0)
        pairs, scale = data.eigenpairs, values.abs().max().item()
        # Residuals of 1e-4 make errors of eigenvalues of their square over the gap.
        np.testing.assert_allclose(pairs.eigenvalues, values[:2], rtol=0, atol=1e-6 * scale)
        smallest = values[-1:]
        # The smallest stands among many zeros and is asked for to 1e-5 of the norm.
        np.testing.assert_allclose(pairs.smallest_eigenvalues, smallest, atol=1e-5 * scale, rtol=0)
        trace = matrix.trace().item()
        assert abs(data.trace.estimate - trace) <= 5 * data.trace.standard_error + 1e-9 * scale
    told = json.loads(path.with_suffix(".json").read_text())
    assert list(told["operators"]) == list(OPERATORS)[1:]
    assert told["operators"]["ggn"]["eigenvalues"][0]["value"] == pytest.approx(
        found["ggn"].eigenpairs.eigenvalues[0]
    )
    frame = read_spectrum(path).to_dataframe()
    assert list(frame.operator.unique()) == list(OPERATORS)


def test_another_operator_alone_is_that_of_a_list(tmp_path):
    spectrum("ggn").run(tmp_path / "ggn.h5")
    spectrum("hessian,ggn").run(tmp_path / "both.h5")
    one = read_spectrum(tmp_path / "ggn.h5")
    both = read_spectrum(tmp_path / "both.h5")
    np.testing.assert_array_equal(
        one.eigenpairs.eigenvalues, both.others["ggn"].eigenpairs.eigenvalues
    )
    np.testing.assert_array_equal(one.density.nodes, both.others["ggn"].density.nodes)
    spectrum("hessian").run(tmp_path / "hessian.h5")
    np.testing.assert_array_equal(
        read_spectrum(tmp_path / "hessian.h5").density.nodes, both.density.nodes
    )


@pytest.mark.parametrize("at", ["trace", "ggn eigenpairs", "ggn density"])
def test_an_interrupted_list_goes_on_to_the_same_bytes(tmp_path, at):
    def stop(stage, done, total):
        if stage.removeprefix("hessian ") == at:
            raise Killed

    path = tmp_path / "s.h5"
    with pytest.raises(Killed):
        spectrum("hessian,ggn").run(path, stop)
    begun = read_spectrum(path)
    assert begun.stages[:1] == STAGES[:1]
    told = []
    spectrum("hessian,ggn").run(path, lambda stage, *_: told.append(stage))
    assert "hessian eigenpairs" not in told
    spectrum("hessian,ggn").run(tmp_path / "whole.h5")
    for suffix in (".h5", ".json"):
        one, other = ((tmp_path / name).with_suffix(suffix) for name in ("s", "whole"))
        assert one.read_bytes() == other.read_bytes()
    with pytest.raises(SettingsDifferError, match="operator"):
        spectrum("hessian,residual").run(path)


def test_names_are_checked():
    for text in ("newton", "hessian,", "ggn,ggn", ""):
        with pytest.raises(OperatorNameError, match="hessian, ggn, residual"):
            spectrum(text)


@pytest.mark.parametrize("name", ["ggn", "fisher", "mc-fisher", "empirical-fisher"])
def test_samples_curvatures_add_up_and_are_those_of_single_samples(name):
    problem = build("conv-relu-maxpool")
    operator = named_operator(problem, name, 4)
    vector = torch.randn(operator.size, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    sums, weights = operator.sample_curvatures(vector)
    whole = vector @ operator.matvec(vector)
    assert (sums.sum() / weights.sum()).item() == pytest.approx(whole.item(), rel=1e-12)
    if name != "mc-fisher":  # whose draws of a sample alone are those of the first
        singles = [problem.part(torch.tensor([i])) for i in range(problem.count)]
        alone = [vector @ named_operator(one, name).matvec(vector) for one in singles]
        torch.testing.assert_close(sums, torch.stack(alone), rtol=1e-11, atol=1e-14)


def test_an_eigenvalues_error_is_that_of_the_samples_curvatures():
    problem = build("tanh-mlp")
    operator = GGNOperator(problem)
    values, vectors = torch.linalg.eigh(dense(operator))
    found = sample_error(problem, vectors[:, -1], curvatures=operator.sample_curvatures)
    assert found.value == pytest.approx(values[-1].item(), rel=1e-12)
    shares = operator.sample_curvatures(vectors[:, -1]).sums
    assert found.standard_error == pytest.approx((shares.std() / len(shares) ** 0.5).item())


def test_coupled_samples_have_no_curvatures():
    operator = GGNOperator(build("batch-norm", bn="train", bn_batch=8))
    with pytest.raises(OperatorError, match="couples the samples"):
        operator.sample_curvatures(torch.ones(operator.size, dtype=DOUBLE))


def test_errors_over_samples_are_stored_for_operators_that_are_means_of_samples():
    problem = build("tanh-mlp")
    settings = SpectrumSettings(
        top=1, trace_budget=8, probes=0, operator="hessian,ggn,residual,gradient-covariance"
    )
    # The samples are a part of 100.
    data = Spectrum(problem, settings, about={"population": 100}).run().operators
    for name in ("hessian", "ggn", "residual"):
        assert data[name].eigenpairs.sample_standard_error[0] > 0
        assert data[name].trace.sample_standard_error > 0
    assert data["gradient-covariance"].eigenpairs.sample_standard_error is None
    reason = data["gradient-covariance"].eigenpairs.account["sample"]["reason"]
    assert "covariance" in reason


def test_a_loss_without_outputs_is_refused_before_anything_is_computed():
    def closure(net, batch):
        return nn.functional.cross_entropy(net(batch[0]), batch[1], reduction="none")

    inputs, targets = torch.randn(6, 4), torch.zeros(6, dtype=torch.long)
    problem = Problem(nn.Linear(4, 3), None, [(inputs, targets)], closure=closure)
    with pytest.raises(OperatorError, match="closure"):
        Spectrum(problem, SpectrumSettings(operator="hessian,ggn"))


def test_the_command_names_its_file_by_the_operators(tmp_path, capsys):
    where = ["--results", str(tmp_path)]
    train = ["train", "--run", "t", "--epochs", "1", "--fraction", "0.1", "--no-figures",
             "--dataset-arg", "size=8"]  # fmt: skip
    assert cli.main([*train, *where]) == 0
    few = ["--samples", "20", "--top", "1", "--trace-budget", "0", "--probes", "1", "--steps", "3"]
    assert cli.main(["hessian", "t", *few, "--operator", "ggn,residual", *where]) == 0
    said = capsys.readouterr()
    assert "residual:" in said.out
    folder = tmp_path / "runs" / "t"
    assert (folder / "ggn-residual.h5").is_file()
    assert (folder / "ggn-residual.png").is_file()
    assert not (folder / "hessian.h5").exists()
    layers = ["--samples", "10", "--top", "0", "--trace-budget", "8", "--probes", "0", "--layers"]
    assert cli.main(["hessian", "t", *layers, *where]) == 0
    table = capsys.readouterr().out
    stored = read_spectrum(folder / "hessian.h5").layers
    assert len(stored) > 1
    for name, layer in stored.items():
        line = next(line for line in table.splitlines() if line.startswith(f"{name} "))
        assert f"{layer.eigenvalue:.6g}" in line
    assert (folder / "hessian-layers.png").is_file()
