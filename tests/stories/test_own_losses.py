"""Losses that are no cross-entropy: of numbers, of codes, of equations, of several inputs."""

from __future__ import annotations

import torch
from torch import nn

from isoloss.experiments.subject import Subject
from isoloss.landscape import Problem


def mlp(inputs, outputs, width=12):
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


def test_a_regression(check):
    model, x = mlp(4, 2), torch.randn(40, 4)
    data = (x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], 1))
    subject = Subject(model, nn.MSELoss(), train=data)
    check(subject, model, lambda m, d: (m(d[0]) - d[1]).square().mean(), data)


class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = mlp(6, 4), mlp(2, 6)


def variational(model, x):
    """Minus the evidence bound of each sample, by the mean of its code."""
    mean, spread = model.encoder(x).chunk(2, 1)
    divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1)
    return 0.5 * (model.decoder(mean) - x).square().sum(1) + divergence


def test_a_variational_autoencoder(check):
    model, x = Coder(), torch.randn(30, 6)
    problem = Problem(model, closure=variational, batches=[x])
    check(problem, model, lambda model, x: variational(model, x).mean(), x)


def test_a_variational_autoencoder_with_the_noise_of_the_data(check):
    model, data = Coder(), (torch.randn(30, 6), torch.randn(30, 2))

    def closure(model, batch):
        x, noise = batch
        mean, spread = model.encoder(x).chunk(2, 1)
        code = mean + (0.5 * spread).exp() * noise
        divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1)
        return 0.5 * (model.decoder(code) - x).square().sum(1) + divergence

    problem = Problem(model, closure=closure, batches=[data], batch_size=7)
    check(problem, model, lambda model, data: closure(model, data).mean(), data)


def physics(model, batch):
    """u'' = sin t at each point of the batch, u = 0 on the boundary."""
    points, boundary = batch
    points.requires_grad_()
    u = model(points)
    (slope,) = torch.autograd.grad(u.sum(), points, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), points, create_graph=True)
    residual = curvature - torch.sin(points)
    return residual.square().squeeze(1) + model(boundary).square().mean()


def test_a_physics_informed_network(check):
    model, data = mlp(1, 1), (torch.linspace(0, 3, 50)[:, None], torch.tensor([[0.0], [3.0]]))

    def own_loss(model, data):
        """The same by hand: the derivatives of a network with one hidden layer of tanh."""
        inner, outer = model[0], model[2]
        t = torch.tanh(inner(data[0]))
        curvature = (-2 * t * (1 - t.square()) * inner.weight[:, 0].square()) @ outer.weight[0]
        residual = (curvature - torch.sin(data[0][:, 0])).square().mean()
        return residual + model(data[1]).square().mean()

    problem = Problem(model, closure=physics, batches=[data], batch_size=16)
    check(problem, model, own_loss, data)


class Pair(nn.Module):
    """Image and table in, one number out."""

    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(4))
        self.table, self.head = nn.Linear(5, 4), nn.Linear(8, 1)

    def forward(self, image, table):
        return self.head(torch.cat([self.image(image), self.table(table).tanh()], 1))


def test_two_inputs_by_name(check):
    data = {"image": torch.randn(12, 1, 6, 6), "table": torch.randn(12, 5), "y": torch.randn(12, 1)}
    model = Pair()
    model(data["image"], data["table"])  # lazy layers learn their shapes
    problem = Problem(model, nn.MSELoss(), [data])
    check(problem, model, lambda m, d: (m(d["image"], d["table"]) - d["y"]).square().mean(), data)


def test_two_inputs_in_a_tuple(check):
    data = ((torch.randn(12, 1, 6, 6), torch.randn(12, 5)), torch.randn(12, 1))
    model = Pair()
    model(*data[0])

    def closure(model, batch):
        (image, table), y = batch
        return (model(image, table) - y).square()

    problem = Problem(model, closure=closure, batches=[data])
    check(problem, model, lambda model, data: closure(model, data).mean(), data)
