"""Means over classes in the Gauss-Newton matrix, against sums over single samples."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from isoloss.experiments import SpectrumSettings
from isoloss.figures import FigureError, classes_figure
from isoloss.hessian import Spectrum, class_structure, eigenvalues_of
from isoloss.hessian.asked import SpectrumError
from isoloss.hessian.operators.ggn import GGNOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.views import dense
from isoloss.landscape import Problem
from isoloss.landscape.batches import Batch
from isoloss.records.classes import shares_of_eigenvalues, shares_of_trace
from isoloss.records.spectra import read_spectrum

CLASSES, SAMPLES = 3, 11


def problem(batch=4, **loss):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, CLASSES)).double()
    x = torch.randn(SAMPLES, 2, dtype=torch.float64)
    y = torch.arange(SAMPLES) % CLASSES
    batches = [(x[i : i + batch], y[i : i + batch]) for i in range(0, SAMPLES, batch)]
    return Problem(model, nn.CrossEntropyLoss(**loss), batches, dtype=torch.float64), model, x, y


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)])
def test_the_four_parts_are_those_of_single_samples_and_add_up_to_the_matrix(weight):
    of, model, x, y = problem(weight=weight)
    parameters = dict(model.named_parameters())
    jacobian = jacrev(lambda p: functional_call(model, p, x))(parameters)
    J = torch.cat([part.reshape(SAMPLES, CLASSES, -1) for part in jacobian.values()], dim=2)
    p, w = model(x).softmax(1), torch.ones(CLASSES) if weight is None else weight
    w = (w[y] / w[y].sum()).double()
    found = class_structure(of)
    within = torch.zeros(J.shape[2], J.shape[2], dtype=torch.float64)
    for c in range(CLASSES):
        for k in range(CLASSES):
            rows = torch.nonzero(y == c).flatten().tolist()
            shares = torch.stack([w[i] * p[i, k] for i in rows])
            each = torch.stack([J[i].T @ (p[i] - torch.eye(CLASSES)[k]) for i in rows])
            mean = (shares[:, None] * each).sum(0) / shares.sum()
            torch.testing.assert_close(found.weights[c, k], shares.sum())
            torch.testing.assert_close(found.means[c, k], mean)
            within += ((each - mean).T * shares) @ (each - mean)
    parts = [columns @ columns.T for columns in (found.of_class, found.of_cross, found.of_same)]
    torch.testing.assert_close(sum(parts) + within, dense(GGNOperator(of)))
    exact = torch.linalg.eigvalsh(parts[0]).flip(0)[:CLASSES]
    torch.testing.assert_close(eigenvalues_of(found.of_class), exact)


def test_cutting_the_data_otherwise_changes_nothing():
    one, other = class_structure(problem(4)[0]), class_structure(problem(7)[0])
    torch.testing.assert_close(one.means, other.means)
    torch.testing.assert_close(one.weights, other.weights)
    assert float(one.weights.sum()) == pytest.approx(1.0)


def test_a_class_without_samples_has_no_part():
    torch.manual_seed(0)
    x, y = torch.randn(6, 2), torch.tensor([0, 2, 0, 2, 2, 0])
    found = class_structure(Problem(nn.Linear(2, 3), nn.CrossEntropyLoss(), [(x, y)]))
    assert not found.means[1].any()
    assert not found.weights[1].any()
    assert found.of_class.isfinite().all()


def test_what_has_no_classes_is_refused():
    x, y = torch.randn(6, 2), torch.randn(6, 1)
    with pytest.raises(OperatorError, match="cross-entropy of logits"):
        class_structure(Problem(nn.Linear(2, 1), nn.MSELoss(), [(x, y)]))
    soft = torch.full((6, 3), 1 / 3)
    with pytest.raises(OperatorError, match="one class index a sample"):
        class_structure(Problem(nn.Linear(2, 3), nn.CrossEntropyLoss(), [(x, soft)]))


def test_parts_along_eigenvectors_make_up_their_eigenvalues():
    of, *_ = problem()
    found, matrix = class_structure(of), dense(GGNOperator(of))
    values, vectors = torch.linalg.eigh(matrix)
    along = found.parts_along(vectors)
    for row, columns in zip(along, (found.of_class, found.of_cross, found.of_same), strict=True):
        torch.testing.assert_close(row, torch.diag(vectors.T @ columns @ columns.T @ vectors))
    # What is left is of covariances within, which have no negative eigenvalues.
    assert (values - along.sum(0) > -1e-12).all()


def test_batches_that_are_not_cut_by_class_give_the_same(monkeypatch):
    cut = class_structure(problem()[0])
    monkeypatch.setattr(Batch, "sliceable", property(lambda self: False))
    whole = class_structure(problem()[0])
    torch.testing.assert_close(cut.means, whole.means)
    torch.testing.assert_close(cut.weights, whole.weights)


def spectrum(operator="ggn", classes=True, **options):
    settings = {"top": 3, "smallest": 0, "probes": 0, "trace_budget": 60, "tol": 1e-9} | options
    return Spectrum(problem()[0], SpectrumSettings(operator=operator, classes=classes, **settings))


def test_stored_parts_are_those_of_the_matrix(tmp_path):
    spectrum().run(tmp_path / "g.h5")
    data, of = read_spectrum(tmp_path / "g.h5"), class_structure(problem()[0])
    matrix, classes = dense(GGNOperator(problem()[0])), data.classes
    values = torch.linalg.eigvalsh(matrix).flip(0)
    blocks = [columns @ columns.T for columns in (of.of_class, of.of_cross, of.of_same)]
    for stored, block in zip((classes.of_class, classes.of_cross, classes.of_same), blocks,
                             strict=True):  # fmt: skip
        exact = torch.linalg.eigvalsh(block).flip(0)
        np.testing.assert_allclose(stored, exact[: len(stored)], atol=1e-12)
        assert exact[len(stored) :].abs().max() < 1e-12
    shares = shares_of_eigenvalues(classes, data.eigenpairs.eigenvalues)
    np.testing.assert_allclose(np.sum([*shares.values()], axis=0), 1)
    _, vectors = torch.linalg.eigh(matrix)
    for rank in range(3):
        u = vectors[:, -1 - rank]
        assert shares["class"][rank] == pytest.approx((u @ blocks[0] @ u / values[rank]).item())
    # The budget allows the diagonal: shares of the trace are exact.
    of_trace = shares_of_trace(classes, data.trace.estimate, data.trace.standard_error)
    for name, block in zip(("class", "cross", "same"), blocks, strict=True):
        assert of_trace[name][1] == 0
        assert of_trace[name][0] == pytest.approx(
            (block.trace() / matrix.trace()).item(), abs=1e-12
        )
    told = json.loads((tmp_path / "g.json").read_text())["classes"]
    assert told["shares_of_trace"]["within"]["value"] == pytest.approx(of_trace["within"][0])
    assert told["shares_of_eigenvalues"][1]["cross"] == pytest.approx(shares["cross"][1])


@pytest.mark.parametrize("eigenvectors", [True, False])
def test_parts_are_added_to_a_finished_file(tmp_path, eigenvectors):
    one, other = tmp_path / "one.h5", tmp_path / "other.h5"
    spectrum(classes=False, eigenvectors=eigenvectors).run(one)
    assert read_spectrum(one).classes is None
    spectrum(eigenvectors=eigenvectors).run(one)
    spectrum(eigenvectors=eigenvectors).run(other)
    assert one.read_bytes() == other.read_bytes()
    task = spectrum(eigenvectors=eigenvectors)
    task.run(one)
    assert task.products == 0


def test_parts_belong_to_the_gauss_newton_matrix():
    data = spectrum("hessian,ggn").run()
    assert data.classes is None
    np.testing.assert_array_equal(data.others["ggn"].classes.along, spectrum().run().classes.along)
    with pytest.raises(SpectrumError, match=r"`classes`: expected `operator` with ggn"):
        spectrum("hessian")
    x, y = torch.randn(6, 2), torch.randn(6, 1)
    squares = Problem(nn.Linear(2, 3), nn.MSELoss(), [(x, y.expand(6, 3))])
    with pytest.raises(OperatorError, match="cross-entropy of logits"):
        Spectrum(squares, SpectrumSettings(operator="ggn", classes=True))


def test_the_figure_stacks_shares_up_to_one():
    data = spectrum().run()
    whole = (data.trace.estimate, data.trace.standard_error)
    figure = classes_figure(data.classes, data.eigenpairs.eigenvalues, whole, title="digits")
    left, right = figure.axes
    assert [t.get_text() for t in right.get_xticklabels()] == ["1", "2", "3", "trace"]
    tops = [bar.get_y() + bar.get_height() for bar in right.patches[-4:]]
    np.testing.assert_allclose(tops, 1)
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    np.testing.assert_array_equal(drawn["G"], data.eigenpairs.eigenvalues)
    assert len(classes_figure(data.classes).axes[1].patches) == 0
    nothing = dataclasses.replace(data.classes, of_class=np.zeros(3), of_cross=np.zeros(3),
                                  of_same=np.zeros(3))  # fmt: skip
    with pytest.raises(FigureError, match="above 0"):
        classes_figure(nothing)
