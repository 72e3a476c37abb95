"""Optimizers of other kinds in the loop, by the protocol alone: closed forms and what they see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from isoloss.trainers.grad_shift import GradientShift
from isoloss.trainers.loop import train
from isoloss.trainers.over_base import OverBase
from isoloss.trainers.sam import SAM
from isoloss.trainers.settings import TrainingSettings
from isoloss.trainers.stepper import PlainStepper, Stepper, as_stepper
from isoloss.trainers.trainer import Trainer, TrainingDiverged

LR = 0.05


class Pairs:
    def __init__(self, count: int = 10) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(count, 3, dtype=torch.float64, generator=generator)
        self.targets = torch.randn(count, 1, dtype=torch.float64, generator=generator)

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if order is None else order
        for part in order.split(size):
            yield self.inputs[part], self.targets[part]


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().sum(1)


class ExtraGradient(OverBase):
    """Korpelevich 1976: the gradient at w - lr g, taken from w. Written against the docstring."""

    hyperparameters = ("lr", "look_ahead")

    def __init__(self, base: torch.optim.Optimizer, m: int | None = None) -> None:
        super().__init__(base)
        self.m = m
        self.calls: list[int] = []

    def descent_gradient(self, closures, shares):
        self.calls.append(len(closures))
        weights = [p for group in self.param_groups for p in group["params"]]
        sums, total = [torch.zeros_like(p) for p in weights], torch.zeros(())
        for closure, share in zip(closures, shares, strict=True):
            total = total + share * closure()
            saved = [p.detach().clone() for p in weights]
            with torch.no_grad():
                for p in weights:
                    p.sub_(p.grad, alpha=LR)
            closure()
            with torch.no_grad():
                for p, before, found in zip(weights, saved, sums, strict=True):
                    p.copy_(before)
                    found.add_(p.grad, alpha=share)
        for p, found in zip(weights, sums, strict=True):
            p.grad = found
        return total

    def descent_step(self):
        self.base.step()


def linear() -> nn.Linear:
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.3, -0.2, 0.9]], dtype=torch.float64))
    return model


def trained(m: int | None, batch: int | None, epochs: int = 1) -> tuple[Tensor, ExtraGradient]:
    model = linear()
    optimizer = ExtraGradient(torch.optim.SGD(model.parameters(), lr=LR), m)
    settings = TrainingSettings(epochs, batch_size=batch, seed=4)
    trainer = Trainer(model, squared, optimizer, Pairs(), None, settings)
    losses = [trainer.train_epoch().train_loss for _ in range(epochs)]
    assert all(loss > 0 for loss in losses)
    return model.weight.detach()[0], optimizer


def test_another_kind_of_optimizer_trains_as_its_closed_form_says():
    # L(w) = mean (x w - y)^2 / 2 has gradient A w - b, so a step is
    # w - lr (A (w - lr (A w - b)) - b).
    data, w = Pairs(), linear().weight.detach()[0]
    A = data.inputs.T @ data.inputs / len(data)
    b = data.inputs.T @ data.targets[:, 0] / len(data)
    for _ in range(3):
        w = w - LR * (A @ (w - LR * (A @ w - b)) - b)
    found, optimizer = trained(None, None, epochs=3)
    torch.testing.assert_close(found, w, rtol=0, atol=1e-14)  # a few dozen roundings of order 1
    assert optimizer.calls == [1, 1, 1]


def test_m_cuts_batches_into_subsets_with_a_closure_each():
    # Subsets of one sample, each with its own look-ahead: sum_i (1/n) g_i(w - lr g_i(w)).
    data, w = Pairs(), linear().weight.detach()[0]
    gradient = torch.zeros(3, dtype=torch.float64)
    for x, y in zip(data.inputs, data.targets[:, 0], strict=True):
        ahead = w - LR * (x @ w - y) * x
        gradient += (x @ ahead - y) * x / len(data)
    found, optimizer = trained(1, None)
    torch.testing.assert_close(found, w - LR * gradient, rtol=0, atol=1e-14)
    assert optimizer.calls == [10]
    assert trained(3, 8)[1].calls == [3, 1]  # 3 + 3 + 2 and 2 of 10 samples


def test_what_diverged_is_said_in_the_optimizers_own_settings():
    model = linear()
    optimizer = ExtraGradient(torch.optim.SGD(model.parameters(), lr=1e200))
    trainer = Trainer(model, squared, optimizer, Pairs(), None, TrainingSettings(9))
    with pytest.raises(TrainingDiverged, match="a lower `lr` or `look_ahead`;"):
        train(trainer)


def test_a_loss_that_is_not_finite_at_moved_weights_stops_before_the_step():
    model = linear()

    class Away(ExtraGradient):
        def descent_gradient(self, closures, shares):
            (closure,) = closures
            loss = closure()
            with torch.no_grad():
                saved = model.weight.clone()
                model.weight.fill_(float("inf"))
                with torch.enable_grad():
                    closure()
                model.weight.copy_(saved)
            return loss

    before = model.weight.detach().clone()
    optimizer = Away(torch.optim.SGD(model.parameters(), lr=LR))
    trainer = Trainer(model, squared, optimizer, Pairs(), None, TrainingSettings(1))
    with pytest.raises(TrainingDiverged, match="epoch 1, step 1"):
        trainer.train_epoch()
    assert torch.equal(model.weight, before)


def test_which_optimizers_need_the_adapter():
    model = linear()
    plain = torch.optim.SGD(model.parameters(), lr=LR)
    assert isinstance(as_stepper(plain), PlainStepper)
    assert as_stepper(plain).m is None
    assert tuple(as_stepper(plain).hyperparameters) == ("lr",)
    for native in (SAM(model, plain), GradientShift(plain, 0.1), ExtraGradient(plain)):
        assert as_stepper(native) is native
        assert isinstance(native, Stepper)
