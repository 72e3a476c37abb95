"""SAM and ASAM against independent re-derivations in numpy, and their contract at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isoloss.trainers.sam import RULES, SAM, SAMError

LR, RHO = 0.1, 0.3


class Regression(nn.Module):
    """f(x) = W x + b: the gradient of the mean squared error is written down by hand below."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        draw = {"dtype": torch.float64, "generator": generator}
        self.linear = nn.Linear(3, 2, dtype=torch.float64)
        self.linear.weight = nn.Parameter(torch.randn(2, 3, **draw))
        self.linear.bias = nn.Parameter(torch.randn(2, **draw))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def data() -> tuple[Tensor, Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    y = torch.randn(7, 2, dtype=torch.float64, generator=generator)
    return x, y, generator


def gradient(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    residual = x @ w.T + b - y
    return [2 * residual.T @ x / y.size, 2 * residual.sum(0) / y.size]


def perturbation(rule: str, weights: list[np.ndarray], g: list[np.ndarray]) -> list[np.ndarray]:
    # Weight first, bias second; Kwon et al. scale the weight alone.
    t = {
        "sam": [1.0, 1.0],
        "asam": [np.abs(weights[0]) + 0.01, np.ones(2)],
        "asam-elementwise": [np.abs(weights[0]), np.abs(weights[1])],
    }[rule]
    norm = np.sqrt(sum(np.sum((ti * gi) ** 2) for ti, gi in zip(t, g, strict=True)))
    return [RHO * ti**2 * gi / norm for ti, gi in zip(t, g, strict=True)]


class NumpySGD:
    def __init__(self) -> None:
        self.velocity: list[np.ndarray] | None = None

    def step(self, weights: list[np.ndarray], g: list[np.ndarray]) -> list[np.ndarray]:
        g = [gi + 0.05 * wi for gi, wi in zip(g, weights, strict=True)]
        if self.velocity is None:
            self.velocity = g
        else:
            self.velocity = [0.9 * v + gi for v, gi in zip(self.velocity, g, strict=True)]
        return [wi - LR * v for wi, v in zip(weights, self.velocity, strict=True)]


class NumpyAdam:
    def __init__(self) -> None:
        self.m, self.v, self.t = [0.0, 0.0], [0.0, 0.0], 0

    def step(self, weights: list[np.ndarray], g: list[np.ndarray]) -> list[np.ndarray]:
        g = [gi + 0.05 * wi for gi, wi in zip(g, weights, strict=True)]
        self.t += 1
        self.m = [0.9 * m + 0.1 * gi for m, gi in zip(self.m, g, strict=True)]
        self.v = [0.999 * v + 0.001 * gi**2 for v, gi in zip(self.v, g, strict=True)]
        mean = [m / (1 - 0.9**self.t) for m in self.m]
        square = [v / (1 - 0.999**self.t) for v in self.v]
        return [
            w - LR * m / (np.sqrt(s) + 1e-8) for w, m, s in zip(weights, mean, square, strict=True)
        ]


BASES = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, weight_decay=0.05), NumpySGD),
    "adam": (lambda p: torch.optim.Adam(p, lr=LR, weight_decay=0.05), NumpyAdam),
}


@pytest.mark.parametrize("style", ["closure", "perturbed"])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("rule", RULES)
def test_steps_equal_the_papers_algorithm(rule, base, style):
    x, y, generator = data()
    model = Regression(generator)
    make_base, reference = BASES[base]
    optimizer = SAM(model, make_base(model.parameters()), rho=RHO, rule=rule)
    plain = reference()
    weights = [p.detach().numpy().copy() for p in model.parameters()]

    def closure() -> Tensor:
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(6):
        at_w = float(np.mean((x.numpy() @ weights[0].T + weights[1] - y.numpy()) ** 2))
        if style == "closure":
            assert optimizer.step(closure).item() == pytest.approx(at_w, rel=1e-12)
        else:
            optimizer.zero_grad()
            closure()
            with optimizer.perturbed():
                closure()
            optimizer.base.step()
        g = gradient(*weights, x.numpy(), y.numpy())
        e = perturbation(rule, weights, g)
        moved = [w + ei for w, ei in zip(weights, e, strict=True)]
        weights = plain.step(weights, gradient(*moved, x.numpy(), y.numpy()))
        for parameter, expected in zip(model.parameters(), weights, strict=True):
            # Six steps of a few dozen roundings of 1e-16 on values of order 1.
            np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_m_sharpness_is_the_mean_over_subsets_of_gradients_at_their_own_perturbation(rule):
    x, y, generator = data()  # 7 samples: subsets of 3, 3 and 1
    model = Regression(generator)
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR), rho=RHO, rule=rule, m=3)
    w = [p.detach().numpy().copy() for p in model.parameters()]
    expected, mean = [0.0, 0.0], 0.0
    for part in (slice(0, 3), slice(3, 6), slice(6, 7)):
        xs, ys = x[part].numpy(), y[part].numpy()
        e = perturbation(rule, w, gradient(*w, xs, ys))
        moved = [wi + ei for wi, ei in zip(w, e, strict=True)]
        share = len(xs) / 7
        g = gradient(*moved, xs, ys)
        expected = [a + share * b for a, b in zip(expected, g, strict=True)]
        mean += share * float(np.mean((xs @ w[0].T + w[1] - ys) ** 2))

    def closure_of(part: slice):
        def closure() -> Tensor:
            loss = nn.functional.mse_loss(model(x[part]), y[part])
            loss.backward()
            return loss

        return closure

    parts = [slice(0, 3), slice(3, 6), slice(6, 7)]
    loss = optimizer.descent_gradient([closure_of(p) for p in parts], [3 / 7, 3 / 7, 1 / 7])
    assert loss.item() == pytest.approx(mean, rel=1e-12)
    for parameter, before, g in zip(model.parameters(), w, expected, strict=True):
        assert np.array_equal(parameter.detach().numpy(), before)
        np.testing.assert_allclose(parameter.grad.numpy(), g, rtol=0, atol=1e-13)


def test_closed_form_on_a_quadratic():
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    A = root @ root.T
    model = nn.ParameterDict({"w": torch.randn(4, dtype=torch.float64, generator=generator)})
    w = model["w"].detach().clone()
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR), rho=RHO)

    def closure() -> Tensor:
        loss = 0.5 * model["w"] @ A @ model["w"]
        loss.backward()
        return loss

    optimizer.step(closure)
    g = A @ w
    expected = w - LR * A @ (w + RHO * g / g.norm())
    torch.testing.assert_close(model["w"].detach(), expected, rtol=0, atol=1e-13)


def test_asam_does_not_change_when_layers_are_rescaled():
    # T_w makes the ball follow the weights: for f = a b x without eta, (a, b) -> (2a, b/2) gives
    # the same function at w + e. Here eta / |w| = 0.01 / 100, which bounds the difference.
    def loss_at_perturbed(a: float, b: float) -> float:
        model = nn.ParameterDict(
            {
                "weight_a": torch.tensor([a], dtype=torch.float64),
                "weight_b": torch.tensor([b], dtype=torch.float64),
            }
        )
        optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR), rho=0.5, rule="asam")
        loss = (model["weight_a"] * model["weight_b"] - 1).square().sum()
        loss.backward()
        optimizer.ascend()
        return (model["weight_a"] * model["weight_b"] - 1).square().item()

    assert loss_at_perturbed(200.0, 100.0) == pytest.approx(loss_at_perturbed(100, 200), rel=1e-12)
    assert loss_at_perturbed(400.0, 100.0) == pytest.approx(loss_at_perturbed(200, 200), rel=1e-3)


def awkward_model() -> nn.Linear:
    """Weights for which (w + e) - e is not w in float32."""
    model = nn.Linear(50, 20)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 1e-4)
    return model


def weights_of(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(model: nn.Module, weights: list[Tensor]) -> bool:
    return all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


def test_weights_come_back_bit_for_bit():
    model = awkward_model()
    before = weights_of(model)
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR), rho=3.0)
    model(torch.ones(2, 50)).square().sum().backward()
    with optimizer.perturbed():
        assert not same(model, before)
        assert all(p.grad is None for p in model.parameters())
    assert same(model, before)


def test_exception_at_the_perturbed_weights_restores():
    model = awkward_model()
    before = weights_of(model)
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR), rho=3.0)
    calls = []

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        loss = model(torch.ones(2, 50)).square().sum()
        loss.backward()
        return loss

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert same(model, before)


def test_zero_gradient_takes_no_perturbation():
    model = awkward_model()
    before = weights_of(model)
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR))

    def closure() -> Tensor:
        assert same(model, before)
        loss = 0.0 * model(torch.ones(2, 50)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert same(model, before)


@pytest.mark.parametrize("rule", ["sam", "asam"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_shows_and_weights_are_restored(rule, value):
    model = awkward_model()
    before = weights_of(model)
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR), rule=rule)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.weight.grad[0, 0] = value
    with optimizer.perturbed():
        assert not model(torch.ones(1, 50)).isfinite().all()
    assert same(model, before)


def test_parameters_without_gradient_stay():
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "frozen": nn.Linear(2, 1)})
    model["frozen"].requires_grad_(False)
    before = weights_of(model["frozen"])
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR, weight_decay=0.5))
    model["used"](torch.ones(1, 2)).sum().backward()
    with optimizer.perturbed():
        assert same(model["frozen"], before)
        model["used"](torch.ones(1, 2)).sum().backward()
    optimizer.base.step()
    assert same(model["frozen"], before)


def test_batch_norm_statistics_are_updated_once_a_step():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(16, 5, dtype=torch.float64, generator=generator)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    hidden = model[0](x).detach()
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR), rho=RHO)

    def closure() -> Tensor:
        loss = model(x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert int(model[1].num_batches_tracked) == 1
    # From the initial 0 and 1 with momentum 0.1, at the weights before the step; one rounding.
    torch.testing.assert_close(model[1].running_mean, 0.1 * hidden.mean(0), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(model[1].running_var, 0.9 + 0.1 * hidden.var(0), rtol=1e-14, atol=0)


def test_torch_schedulers_drive_it_and_its_state_is_the_bases():
    model = awkward_model()
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    def closure() -> Tensor:
        loss = model(torch.ones(2, 50)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == LR / 2
    state = optimizer.state_dict()
    twin = awkward_model()
    other = SAM(twin, torch.optim.SGD(twin.parameters(), lr=1.0, momentum=0.9))
    other.load_state_dict(state)
    assert other.param_groups is other.base.param_groups
    assert other.param_groups[0]["lr"] == LR / 2
    momentum = other.state[twin.weight]["momentum_buffer"]
    assert torch.equal(momentum, optimizer.base.state[model.weight]["momentum_buffer"])


MISUSES = {
    "ascend without gradient": (lambda o: o.ascend(), "backward"),
    "no subsets": (lambda o: o.descent_gradient([], []), "one closure or more"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_steps_out_of_order_are_refused(name):
    action, message = MISUSES[name]
    model = awkward_model()
    with pytest.raises(SAMError, match=message):
        action(SAM(model, torch.optim.SGD(model.parameters(), lr=LR)))


def test_second_ascent_is_refused():
    model = awkward_model()
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=LR))
    model(torch.ones(1, 50)).sum().backward()
    optimizer.ascend()
    with pytest.raises(SAMError, match="perturbed"):
        optimizer.ascend()
    with pytest.raises(SAMError, match="restore"):
        optimizer.descent_step()  # would step from w + e


def test_base_over_other_parameters_is_refused():
    other = torch.optim.SGD(awkward_model().parameters(), lr=LR)
    with pytest.raises(SAMError, match="2 other tensors"):
        SAM(awkward_model(), other)
    model = awkward_model()
    with pytest.raises(ValueError, match="rho"):
        SAM(model, torch.optim.SGD(model.parameters(), lr=LR), rho=-1.0)
    with pytest.raises(ValueError, match="m of 1"):
        SAM(model, torch.optim.SGD(model.parameters(), lr=LR), m=0)
