"""Layers that products compute by kernels of their own, against torch's of the same layers."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isoloss.hessian import GGNOperator, HessianOperator
from isoloss.hessian.operators.kernels import ProductKernels
from isoloss.hessian.operators.views import dense
from isoloss.landscape import Problem

F64 = torch.float64


def running(layer):
    """A batch norm with statistics of a training behind it."""
    layer.running_mean.copy_(torch.randn(layer.num_features))
    layer.running_var.copy_(torch.rand(layer.num_features) + 0.5)
    return layer.eval()


LAYERS = {
    "plain": (lambda: nn.Conv2d(2, 3, 3), (3, 2, 5, 6)),
    "strides, padding, groups": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), groups=2), (2, 4, 7, 5),
    ),
    "1d, dilated, no bias": (lambda: nn.Conv1d(2, 3, 3, dilation=2, bias=False), (3, 2, 9)),
    "3d": (lambda: nn.Conv3d(1, 2, 2, padding=1), (2, 1, 3, 3, 4)),
    "depthwise": (lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3), (2, 3, 4, 4)),
    "padding by name": (lambda: nn.Conv2d(2, 3, 3, padding="same"), (2, 2, 4, 4)),
    "padding by circles": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 4, 4),
    ),
    "one image": (lambda: nn.Conv2d(2, 3, 3), (2, 5, 5)),
    "running statistics": (lambda: running(nn.BatchNorm2d(3)), (4, 3, 2, 2)),
    "without weights": (lambda: running(nn.BatchNorm1d(3, affine=False)), (4, 3)),
}  # fmt: skip


def derivatives(layer, x, context):
    """Values, and first to third derivatives of a function of them by weights and inputs."""
    with context:
        inputs = [x, *layer.parameters()]
        found = [layer(x.sin())]
        for _ in range(3):
            total = sum(part.sin().sum() for part in found[-len(inputs) :])
            found += torch.autograd.grad(total, inputs, create_graph=True, materialize_grads=True)
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_three_derivatives_are_those_of_torch(name):
    make, shape = LAYERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = make().double()
        x = torch.randn(shape, dtype=F64, requires_grad=True)
    ours = derivatives(layer, x, ProductKernels())
    for one, other in zip(ours, derivatives(layer, x, nullcontext()), strict=True):
        # The same sums in another order.
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_weights_and_inputs_that_need_no_gradient():
    generator = torch.Generator().manual_seed(0)
    x, w, b = (
        torch.randn(shape, generator=generator, dtype=F64)
        for shape in ((2, 2, 4, 4), (3, 2, 3, 3), (3,))
    )
    for chosen in ([0], [1], [2], [0, 1], [0, 2], [1, 2]):

        def products(context, chosen=chosen):
            tensors = [t.clone().requires_grad_(i in chosen) for i, t in enumerate((x, w, b))]
            leaves = [tensors[i] for i in chosen]
            with context:
                loss = F.conv2d(*tensors, padding=1).square().sum()
                first = torch.autograd.grad(loss, leaves, create_graph=True)
                return first, torch.autograd.grad(sum(g.sum() for g in first), leaves)

        for ours, theirs in zip(products(ProductKernels()), products(nullcontext()), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_bias_alone_has_the_derivative_of_its_sum():
    """d (c sum_p g) / dg = c at every position, where only the gradient by the bias is used."""
    x, w = torch.ones(1, 1, 3, 3, dtype=F64), torch.ones(1, 1, 2, 2, dtype=F64)
    b = torch.zeros(1, dtype=F64, requires_grad=True)
    u = torch.zeros(1, 1, 2, 2, dtype=F64, requires_grad=True)
    with ProductKernels():
        (g,) = torch.autograd.grad(F.conv2d(x, w, b), b, u, create_graph=True)
        (found,) = torch.autograd.grad(g, u, torch.full((1,), 2.0, dtype=F64))
    assert torch.equal(found, torch.full((1, 1, 2, 2), 2.0, dtype=F64))


def test_transforms_and_autocast_go_torchs_way():
    layer, x = nn.Conv2d(1, 2, 2).double(), torch.randn(2, 1, 3, 3, dtype=F64)
    with ProductKernels():
        _, moved = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
        single = torch.func.vmap(layer)(x[:, None])
        with torch.autocast("cpu", torch.bfloat16):
            half = layer.float()(x.float())
    assert half.dtype == torch.bfloat16
    expected = layer.double()(torch.ones_like(x)) - layer.bias[:, None, None]
    torch.testing.assert_close(moved, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(single[:, 0], layer(x), rtol=1e-12, atol=1e-12)


class Forces(nn.Module):
    """Outputs that are gradients themselves: of an energy, by the inputs."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(
            nn.Conv1d(1, 2, 2), nn.Tanh(), nn.Conv1d(2, 1, 2), nn.Tanh(), nn.Flatten()
        )

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return found.flatten(1)


@pytest.mark.parametrize("strategy", ["kept-graph", "recompute"])
def test_a_network_that_puts_out_gradients_has_the_right_curvature(strategy):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = Forces().double(), torch.randn(5, 1, 4, dtype=F64)
        targets = torch.randn(5, 4, dtype=F64)
    problem = Problem(net, nn.MSELoss(), [(x, targets)], dtype=F64)
    object.__setattr__(problem.plan, "product_strategy", strategy)
    names, weights = zip(*((n, p.detach()) for n, p in net.named_parameters()), strict=True)

    def outputs(*values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

    def flat(blocks):
        return torch.cat([part.reshape(20, -1) for part in blocks], dim=1)

    jacobian = flat(torch.autograd.functional.jacobian(outputs, weights))
    with GGNOperator(problem) as ggn, HessianOperator(problem) as hessian:
        torch.testing.assert_close(dense(ggn), jacobian.T @ jacobian / 10, rtol=1e-11, atol=1e-13)
        rows = torch.autograd.functional.hessian(
            lambda *values: F.mse_loss(outputs(*values), targets), weights
        )
        exact = torch.cat([
            torch.cat([b.reshape(w.numel(), -1) for b in row], dim=1)
            for row, w in zip(rows, weights, strict=True)
        ])  # fmt: skip
        torch.testing.assert_close(dense(hessian), exact, rtol=1e-10, atol=1e-13)
