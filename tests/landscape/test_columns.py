"""What is measured at the points of a surface: metrics of one's own, gradients, names."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.landscape.columns import ColumnError, GradientNorm, LossAndAccuracy
from isoloss.landscape.directions import random_directions
from isoloss.landscape.grid import Grid
from isoloss.landscape.problem import Problem
from isoloss.landscape.sampling import Sample
from isoloss.landscape.surface import Surface
from isoloss.records.identity import SettingsDifferError

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(50, 4, generator=GENERATOR, dtype=F64)
Y = torch.randint(3, (50,), generator=GENERATOR)


def margin(outputs, targets):
    """The logit of the class less the largest of the others."""
    own = outputs.gather(1, targets[:, None])[:, 0]
    others = outputs.scatter(1, targets[:, None], -math.inf)
    return own - others.amax(1)


def network(*, bn=False):
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(5)] if bn else []
    model = nn.Sequential(nn.Linear(4, 5), *middle, nn.ReLU(), nn.Linear(5, 3)).double()
    model(2 * X + 1)
    return model.eval()


@pytest.mark.parametrize("bn", [None, "eval", "train", "recalibrate"])
def test_a_metric_is_the_mean_of_what_numpy_makes_of_the_predictions(bn):
    model = network(bn=bn is not None)
    # Ragged batches, and a micro-batch that cuts them otherwise.
    problem = Problem(
        model, nn.CrossEntropyLoss(), [(X[:33], Y[:33]), (X[33:], Y[33:])], dtype=F64,
        bn=bn or "eval", bn_batch=50, batch_size=20,
    )  # fmt: skip
    surface = Surface(
        problem,
        Grid.parse("-1:1:3"),
        random_directions(problem.parameters, 1),
        measures=[LossAndAccuracy({"margin": margin})],
    )
    assert surface.columns == ["train_loss", "train_acc", "train_margin"]
    found = surface.run().values["train_margin"]
    for x, value in zip((-1.0, 0.0, 1.0), found, strict=True):
        moved = network(bn=bn is not None)
        moved.load_state_dict(surface.point_at(x), strict=False)
        if bn in ("train", "recalibrate"):
            moved[1].momentum = None  # the mean over batches, of which there is one
            moved[1].reset_running_stats()
            moved.train()(X)
            moved.train(bn == "train")
        logits = moved(X).detach().numpy()
        own = logits[np.arange(50), Y]
        logits[np.arange(50), Y] = -np.inf
        assert value == pytest.approx(np.mean(own - logits.max(1)), rel=1e-12)


def test_a_metric_over_a_part_of_the_split_has_its_error_and_weights_count():
    def positive(outputs, targets):
        counted = (targets > 0).to(outputs)
        return margin(outputs, targets) * counted, counted

    problem = Problem(
        network(), nn.CrossEntropyLoss(), [(X, Y)], dtype=F64, sample=Sample.random(50, 200)
    )
    measure = LossAndAccuracy({"margin": margin, "positive": positive})
    problems = {"test": problem}
    found = dict(
        zip(measure.names(problems), measure.values(problems, problem.parameters), strict=True)
    )
    assert list(found) == [
        "test_loss", "test_acc", "test_loss_se", "test_margin", "test_margin_se",
        "test_positive", "test_positive_se",
    ]  # fmt: skip
    values = margin(network()(X), Y).detach().numpy()
    expected = values.std(ddof=1) / 50**0.5 * (1 - 50 / 200) ** 0.5
    assert found["test_margin_se"] == pytest.approx(expected, rel=1e-12)
    assert found["test_positive"] == pytest.approx(values[Y.numpy() > 0].mean(), rel=1e-12)
    plain = problem.evaluate()
    assert (found["test_loss"], found["test_loss_se"]) == (plain.loss, plain.sampling_error)


def test_a_closure_has_a_metric_of_model_and_batch():
    def closure(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metric(model, batch):
        return margin(model(batch[0]), batch[1])

    problem = Problem(network(), closure=closure, batches=[(X, Y)], dtype=F64)
    (value,) = problem.evaluate(metrics=[metric]).metrics
    assert value == pytest.approx(margin(network()(X), Y).mean().item(), rel=1e-12)


def test_a_point_that_moves_buffers_is_measured_with_them():
    model = network(bn=True)
    problem = Problem(model, nn.CrossEntropyLoss(), [(X, Y)], dtype=F64)
    moved = {"1.running_mean": model[1].running_mean + 0.5}
    other = network(bn=True)
    other.load_state_dict(moved, strict=False)
    there = Problem(other, nn.CrossEntropyLoss(), [(X, Y)], dtype=F64)
    point = {**problem.parameters, **moved}
    for measure in (LossAndAccuracy(), GradientNorm()):
        found = measure.values({"train": problem}, point)
        assert found == measure.values({"train": there}, there.parameters)
        assert found != measure.values({"train": problem}, problem.parameters)


def test_other_columns_are_another_computation_and_the_default_stores_nothing_new(tmp_path):
    problem = Problem(network(), nn.CrossEntropyLoss(), [(X, Y)], dtype=F64)
    directions = random_directions(problem.parameters, 1)

    def surface(*measures):
        return Surface(problem, Grid.parse("-1:1:3"), directions, measures=measures or None)

    assert "columns" not in surface().settings
    surface().run(tmp_path / "s.h5")
    with pytest.raises(SettingsDifferError, match="columns"):
        surface(LossAndAccuracy(), GradientNorm()).run(tmp_path / "s.h5")
    one = LossAndAccuracy({"margin": margin}, {"margin": {"sha256": "a"}})
    surface(one).run(tmp_path / "m.h5")
    with pytest.raises(SettingsDifferError, match=r"columns\.metrics\.margin\.sha256"):
        surface(LossAndAccuracy({"margin": margin}, {"margin": {"sha256": "b"}})).run(
            tmp_path / "m.h5"
        )


@pytest.mark.parametrize("name", ["loss", "acc", "margin_se", "a/b", ""])
def test_names_that_mean_something_else_are_refused(name):
    with pytest.raises(ColumnError, match="expected a name"):
        LossAndAccuracy({name: margin})


def test_two_columns_of_one_name_are_refused():
    problem = Problem(network(), nn.CrossEntropyLoss(), [(X, Y)], dtype=F64)
    with pytest.raises(ColumnError, match="grad_norm is taken"):
        Surface(problem, Grid.parse("-1:1:3"), measures=[GradientNorm(), GradientNorm()])
