"""A training that is watched ends with the bytes of one that is not."""

from __future__ import annotations

import copy
import json
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.hessian import CurvatureMonitor
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.named import OperatorNameError
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.operators.views import dense
from isoloss.landscape import Problem
from tests.trainers.test_training_loop import images, trainer


def network():
    """Buffers that training changes, random numbers that it draws, parts that are shared."""
    net = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.Tanh(),
        nn.Linear(8, 3),
    )  # fmt: skip
    net[4].weight = nn.Parameter(net[4].weight.detach().clone())
    return net


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 4, generator=generator), torch.arange(60) % 3


def train(monitor=None, steps=20, seed=1):
    """A loop by hand that draws from every generator; returns all that is left of it."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    net = network()
    if monitor is not None:
        x, y = data()
        monitor = monitor(Problem(net, nn.CrossEntropyLoss(), [(x, y)], bn="eval"))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    x, y = data()
    for step in range(steps):
        chosen = np.random.choice(60, 10)  # noqa: NPY002
        noise = random.random() * 0.01
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[chosen] + noise), y[chosen]).backward()
        optimizer.step()
        if monitor is not None:
            monitor(step, net)
    drawn = (torch.rand(3), np.random.random(3), random.random())  # noqa: NPY002
    gradients = [p.grad for p in net.parameters()]
    return net, monitor, (net.state_dict(), gradients, optimizer.state_dict(), drawn, net.training)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return one == other


def test_a_loop_by_hand_is_left_as_it_is(tmp_path):
    file = tmp_path / "deep" / "curvature.jsonl"
    _, _, alone = train()
    _, monitor, watched = train(
        lambda problem: CurvatureMonitor(problem, every=5, top=2, trace=10, file=file)
    )
    assert same(alone, watched)
    assert [one.step for one in monitor.measurements] == [0, 5, 10, 15]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["eigenvalues"] for line in lines] == [m.eigenvalues for m in monitor.measurements]
    assert all(one.converged for one in monitor.measurements)
    frame = monitor.to_dataframe()
    assert list(frame.step) == [0, 5, 10, 15]
    assert (frame.lambda_1 >= frame.lambda_2).all()
    assert (frame.trace_standard_error > 0).all()


def test_values_are_those_of_the_network_at_that_step():
    states = []

    class Kept(CurvatureMonitor):
        def __call__(self, step, model):
            found = super().__call__(step, model)
            if found is not None:
                states.append((found, copy.deepcopy(model)))
            return found

    _, monitor, _ = train(lambda problem: Kept(problem, every=6, tol=1e-5))
    x, y = data()
    assert len(states) == 4
    for found, model in states:
        problem = Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=torch.float64)
        values = torch.linalg.eigvalsh(dense(HessianOperator(problem)))
        # float32 products, residuals of 1e-5: second order in the eigenvalue.
        assert found.eigenvalues[0] == pytest.approx(values[-1].item(), rel=1e-5)
        assert found.loss == pytest.approx(problem.evaluate().loss, rel=1e-6)
    later = monitor.measurements[1:]
    assert max(one.products for one in later) <= monitor.measurements[0].products + 10


def test_scalars_go_to_a_writer_and_losses_that_are_not_finite_are_null(tmp_path):
    class Writer:
        def __init__(self):
            self.scalars = []

        def add_scalar(self, tag, value, step):
            self.scalars.append((tag, step, value))

    x, y = data()
    net = network()
    writer, file = Writer(), tmp_path / "c.jsonl"
    problem = Problem(net, nn.CrossEntropyLoss(), [(x, y)])
    monitor = CurvatureMonitor(problem, every=1, trace=10, writer=writer, file=file)
    monitor(0, net)
    assert [tag for tag, _, _ in writer.scalars] == [
        "curvature/loss", "curvature/lambda_max", "curvature/trace",
    ]  # fmt: skip
    with torch.no_grad():
        net[0].weight.fill_(math.nan)
    found = monitor(1, net)
    assert math.isnan(found.loss)
    assert json.loads(file.read_text().splitlines()[1])["eigenvalues"] == [None]
    with torch.no_grad():
        net[0].weight.normal_()
    assert monitor(2, net.state_dict()).converged


def test_other_operators_and_wrong_settings():
    x, y = data()
    problem = Problem(network(), nn.CrossEntropyLoss(), [(x, y)])
    ggn = CurvatureMonitor(problem, operator="ggn")
    assert ggn(0, network()).eigenvalues[0] > 0
    for wrong in ({"every": 0}, {"top": 0}, {"trace": -1}, {"operator": "hessian,ggn"}):
        with pytest.raises(OperatorError, match="expected"):
            CurvatureMonitor(problem, **wrong)
    with pytest.raises(OperatorNameError):
        CurvatureMonitor(problem, operator="newton")


def test_our_trainer_is_left_as_it_is():
    def run(monitored):
        made = trainer("sam", epochs=3)
        sample = images(40)
        problem = Problem(made.model, nn.CrossEntropyLoss(), [(sample.inputs, sample.targets)])
        monitor = CurvatureMonitor(problem, every=2)
        for _ in range(3):
            made.train_epoch((lambda step: monitor(step, made.model)) if monitored else None)
        assert bool(monitor.measurements) == monitored
        return made.model.state_dict(), made.optimizer.state_dict(), torch.rand(3)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        alone = run(False)
        torch.manual_seed(0)
        assert same(alone, run(True))
