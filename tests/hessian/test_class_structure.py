"""Means over classes in the Gauss-Newton matrix, against sums over single samples."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from isoloss.hessian import class_structure, eigenvalues_of
from isoloss.hessian.operators.ggn import GGNOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.views import dense
from isoloss.landscape import Problem

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
