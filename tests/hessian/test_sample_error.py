"""The data's share of the error, against curvatures sample by sample and against other draws."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.hessian.sample_error import (
    SampleErrorUnavailableError,
    sample_curvatures,
    sample_error,
    sampling_bias,
    trace_sample_error,
)
from isoloss.landscape.batches import BatchError
from isoloss.landscape.problem import Problem

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, left, right):
        return self.second(torch.tanh(self.first(left)) * right)


class Graphs(SimpleNamespace):
    """A batch of graphs of 3 nodes each, as far as `Problem` looks."""

    def to_dict(self):
        return vars(self)

    def clone(self):
        return Graphs(**vars(self))

    def apply(self, change):
        return Graphs(**{k: change(v) if torch.is_tensor(v) else v for k, v in vars(self).items()})


class OnGraphs(nn.Module):
    """Sums over the nodes of each graph."""

    def __init__(self):
        super().__init__()
        self.node, self.head = nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.node(x)).view(-1, 3, 4).sum(1))


def images():
    return torch.randn(9, 1, 6, 6, generator=generator(), dtype=DOUBLE)


def tokens():
    return torch.randn(9, 3, 4, generator=generator(), dtype=DOUBLE)


def convolutional():
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.SiLU(), nn.MaxPool2d(2), nn.ReLU(), *head
    )


def transformer():
    layer = nn.TransformerEncoderLayer(2, 1, 2, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(6, 3))


CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1, 0])
WEIGHTED = nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 0.5]), ignore_index=2)
NETWORKS = {
    "convolutional": (convolutional, images, nn.CrossEntropyLoss()),
    "transformer": (transformer, lambda: tokens()[..., :2], nn.CrossEntropyLoss()),
    "weighted": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), tokens, WEIGHTED),
    "linear in the weights": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),
        tokens,
        lambda outputs, targets: outputs.gather(1, targets[:, None])[:, 0],
    ),
    "dict": (
        Named,
        lambda: {"left": tokens()[:, 0], "right": tokens()[:, 1, :3]},
        nn.CrossEntropyLoss(),
    ),
    "graphs": (OnGraphs, lambda: tokens()[..., :2].reshape(-1, 2), nn.CrossEntropyLoss()),
}


def built(name, **options):
    torch.manual_seed(3)
    make, inputs, loss = NETWORKS[name]
    model, inputs = make().double(), inputs()
    if name == "dict":
        batch = {**inputs, "labels": CLASSES}
    elif name == "graphs":
        batch = Graphs(x=inputs, y=CLASSES, num_graphs=9)
    else:
        batch = (inputs, CLASSES)
    return model, inputs, loss, Problem(model, loss, [batch], dtype=DOUBLE, **options)


@functools.cache
def dense_per_sample(name):
    """H_i by reverse differentiation twice of one sample's loss alone, (9, n, n)."""
    model, inputs, loss, _ = built(name)
    model.eval()
    sizes = [p.numel() for p in model.parameters()]
    names = [n for n, _ in model.named_parameters()]
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss_of(vector, i):
        parts = zip(names, vector.split(sizes), model.parameters(), strict=True)
        state = {n: v.view_as(p) for n, v, p in parts}
        if isinstance(inputs, dict):
            outputs = functional_call(
                model, state, (), {k: v[i : i + 1] for k, v in inputs.items()}
            )
        else:
            step = len(inputs) // 9
            outputs = functional_call(model, state, (inputs[i * step : (i + 1) * step],))
        if name == "weighted":
            weight = [1.0, 3.0, 0.0][CLASSES[i]]
            return -weight * outputs.log_softmax(1)[0, CLASSES[i]]
        if isinstance(loss, nn.Module):
            return -outputs.log_softmax(1)[0, CLASSES[i]]
        return outputs[0, CLASSES[i]]

    hessian = torch.autograd.functional.hessian
    with sdpa_kernel(SDPBackend.MATH):
        return torch.stack([hessian(lambda v, i=i: loss_of(v, i), theta) for i in range(9)])


@pytest.mark.parametrize("name", NETWORKS)
def test_curvatures_are_those_of_each_samples_own_hessian(name):
    problem = built(name, batch_size=4)[-1]
    expected = dense_per_sample(name)
    direction = torch.randn(expected.shape[1], generator=generator(7), dtype=DOUBLE)
    found = sample_curvatures(problem, direction)
    forms = torch.einsum("j,ijk,k->i", direction, expected, direction)
    torch.testing.assert_close(found.sums, forms, rtol=1e-9, atol=1e-9)
    weights = torch.tensor([1.0, 3, 0, 1, 3, 0, 0, 3, 1]) if name == "weighted" else torch.ones(9)
    torch.testing.assert_close(found.weights, weights.double(), rtol=0, atol=0)


def test_the_error_is_that_of_the_mean_and_of_the_ratio():
    forms = dense_per_sample("transformer")[:, 0, 0]
    unit = torch.zeros(sum(p.numel() for p in transformer().parameters()), dtype=DOUBLE)
    unit[0] = 1
    problem = built("transformer")[-1]
    found = sample_error(problem, unit)
    assert found.count == 9
    assert found.value == pytest.approx(float(forms.mean()), rel=1e-9)
    assert found.standard_error == pytest.approx(float(forms.std()) / 3, rel=1e-9)
    part = sample_error(problem, unit, population=12)
    assert part.standard_error == pytest.approx(found.standard_error / 2, rel=1e-12)
    assert sample_error(problem, unit, population=9).standard_error == 0
    with pytest.raises(OperatorError, match="population of 9 or more"):
        sample_error(problem, unit, population=8)


def test_a_single_sample_has_no_spread():
    problem = Problem(nn.Linear(2, 1), nn.MSELoss(), [(torch.ones(1, 2), torch.ones(1, 1))])
    assert math.isnan(sample_error(problem, torch.ones(3)).standard_error)


def test_equal_curvatures_leave_no_error():
    """A squared error at inputs of one length has u^T H_i u = 2 for u the weight."""
    x = torch.tensor([[1.0], [-1.0], [1.0]])
    problem = Problem(nn.Linear(1, 1, bias=False), nn.MSELoss(), [(x, torch.zeros(3, 1))])
    found = sample_error(problem, torch.ones(1))
    assert (found.value, found.standard_error) == (2, 0)


def test_the_probes_noise_is_not_in_the_traces_error():
    """A squared error has tr H_i = 2 |x_i|^2; plain averages over 4 probes add a half."""
    x = torch.randn(40, 6, generator=generator(), dtype=DOUBLE)
    x *= torch.linspace(0, 3, 40, dtype=DOUBLE)[:, None]
    data = [(x, torch.zeros(40, 1, dtype=DOUBLE))]
    problem = Problem(nn.Linear(6, 1, bias=False), nn.MSELoss(), data, dtype=DOUBLE)
    traces = 2 * x.square().sum(1)
    found = [trace_sample_error(problem, probes=4, seed=seed) for seed in range(150)]
    variances = torch.tensor([f.standard_error**2 for f in found])
    values = torch.tensor([f.value for f in found])
    for draws, truth in ((variances, traces.var() / 40), (values, traces.mean())):
        error = float(draws.std()) / math.sqrt(len(draws))
        assert abs(float(draws.mean() - truth)) < 3 * error
        assert error < 0.07 * float(truth)


@pytest.mark.parametrize("policy", ["train", "recalibrate"])
def test_coupled_samples_have_none(policy):
    problem = built("convolutional", bn=policy, bn_batch=9)[-1]
    unit = torch.ones(sum(p.numel() for p in problem.parameters.values()), dtype=DOUBLE)
    with pytest.raises(SampleErrorUnavailableError, match="couples the samples"):
        sample_error(problem, unit)


@pytest.fixture(scope="module")
def draws():
    """A network on 2,000 samples and 200 draws of 300: lambda_max, its error, truth and gap."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = 0.5 + torch.randn(2000, 3, generator=generator(), dtype=DOUBLE)
    y = x[:, :1] + torch.randn(2000, 1, generator=generator(2), dtype=DOUBLE)
    names = list(dict(model.named_parameters()))
    sizes = [p.numel() for p in model.parameters()]
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss_of(vector, x, y):
        parts = zip(names, vector.split(sizes), model.parameters(), strict=True)
        outputs = functional_call(model, {n: v.view_as(p) for n, v, p in parts}, (x,))
        return nn.functional.mse_loss(outputs, y)

    hessians = torch.func.vmap(torch.func.hessian(loss_of), (None, 0, 0))(theta, x, y)
    whole = torch.linalg.eigvalsh(hessians.mean(0))
    edge = torch.linalg.eigh(hessians.mean(0)).eigenvectors[:, -1]
    found, rises, biases, plan = [], [], [], None
    for draw in range(200):
        chosen = torch.randperm(2000, generator=generator(100 + draw))[:300]
        values, vectors = torch.linalg.eigh(hessians[chosen].mean(0))
        data = [(x[chosen], y[chosen])]
        problem = Problem(model, nn.MSELoss(), data, dtype=DOUBLE, check=False, plan=plan)
        plan = problem.plan
        error = sample_error(problem, vectors[:, -1], population=2000)
        assert error.value == pytest.approx(float(values[-1]), rel=1e-9)
        found.append((error.value, error.standard_error))
        # Without its first-order part, of mean 0, the rise of lambda has little spread.
        rises.append(float(values[-1] - edge @ hessians[chosen].mean(0) @ edge))
        if draw < 40:
            biases.append(sampling_bias(problem, error.value, population=2000))
    return {
        "found": torch.tensor(found),
        "truth": float(whole[-1]),
        "gap": float(whole[-1] - whole[-2]),
        "rises": torch.tensor(rises),
        "biases": torch.tensor(biases),
    }


def test_the_error_covers_other_draws(draws):
    (values, errors), truth = draws["found"].T, draws["truth"]
    assert draws["gap"] > 4 * float(errors.max())
    bias = float((values - truth).mean())
    # 200 draws know a standard deviation to 5 % and a coverage of 95 % to 1.5 points.
    assert float(values.std()) == pytest.approx(float(errors.square().mean().sqrt()), rel=0.12)
    assert float(((values - truth - bias).abs() < 2 * errors).double().mean()) > 0.91


def test_the_bias_is_that_of_other_draws(draws):
    rise, found = draws["rises"], draws["biases"]
    errors = [float(x.std()) / math.sqrt(len(x)) for x in (rise, found)]
    assert max(errors) < 0.2 * float(rise.mean())
    assert abs(float(found.mean() - rise.mean())) < 3 * math.hypot(*errors)


class Twice(torch.autograd.Function):
    """The slope of `Square`, which torch may not differentiate twice."""

    @staticmethod
    def forward(context, gradient, x):
        context.save_for_backward(gradient, x)
        return 2 * gradient * x

    @staticmethod
    @once_differentiable
    def backward(context, upper):
        gradient, x = context.saved_tensors
        return 2 * upper * x, 2 * upper * gradient


class Square(torch.autograd.Function):
    """x^2 with two derivatives and no third."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(context, gradient):
        return Twice.apply(gradient, context.saved_tensors[0])


class Squared(nn.Linear):
    def forward(self, x):
        return Square.apply(super().forward(x))


def test_a_missing_third_derivative_is_noticed():
    x = torch.randn(5, 2, generator=generator(), dtype=DOUBLE)
    data = [(x, torch.zeros(5, dtype=DOUBLE))]
    problem = Problem(Squared(2, 1), lambda o, t: o[:, 0], data, dtype=DOUBLE)
    unit = torch.ones(3, dtype=DOUBLE)
    with HessianOperator(problem) as operator:
        expected = 2 * (x.sum(1) + 1).square().mean()
        assert float(unit @ operator.matvec(unit)) == pytest.approx(float(expected), rel=1e-12)
    with pytest.raises(SampleErrorUnavailableError, match="no third derivative"):
        sample_error(problem, unit)


def test_halves_of_equal_samples_show_no_bias():
    x, y = torch.ones(8, 2, dtype=DOUBLE), torch.ones(8, 1, dtype=DOUBLE)
    problem = Problem(nn.Linear(2, 1, bias=False), nn.MSELoss(), [(x, y)], dtype=DOUBLE)
    assert sampling_bias(problem, 4.0) == pytest.approx(0, abs=1e-12)
    assert sampling_bias(problem, 3.0, population=16) == pytest.approx(0.5, abs=1e-12)


def test_a_part_is_the_function_of_its_samples():
    model, inputs, loss, problem = built("weighted")
    chosen = torch.tensor([7, 1, 3])
    part = problem.part(chosen)
    expected = Problem(model, loss, [(inputs[chosen], CLASSES[chosen])], dtype=DOUBLE)
    assert part.evaluate() == expected.evaluate()
    assert part.identity() == expected.identity()
    assert problem.count == 9
    assert problem.evaluate().count == 9
    with pytest.raises(BatchError, match="expected samples of one shape"):
        built("graphs")[-1].part(chosen)
