"""The three comparisons that every story ends with, by code that knows nothing of Isoloss.

What a user would do by hand: evaluate a loss of its own on all data, add a direction to a copy of
the network and evaluate again, and find the largest curvature by differentiating. Only the tensors
of the direction come from Isoloss.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from isoloss.experiments.settings import Numerics, SurfaceSettings
from isoloss.experiments.subject import Subject
from isoloss.experiments.surfaces import SurfaceExperiment
from isoloss.hessian import HessianOperator, top_eigenpairs
from isoloss.landscape import Grid, Surface, random_directions

# float32 here and there: sums in another order differ by some 1e-7 relative.
LOSS_TOLERANCE = 1e-6
# Products in float32 against float64.
CURVATURE_TOLERANCE = 1e-4
# Up to here a dense Hessian takes less time than an iteration.
DENSE = 200
STEPS = (-0.5, 0.0, 0.5)


@pytest.fixture(autouse=True)
def _seeded():
    """Weights and data, which stories draw from torch's global generator, are the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def check():
    """`check(problem, model, own_loss, data)`, see `compare`."""
    return compare


def compare(problem, model, own_loss, data):
    """Compare loss, surface and largest eigenvalue with those found by hand.

    Args:
        problem: A `Problem`, or a `Subject` (through its experiments).
        model: The user's network.
        own_loss: `own_loss(model, data)`, the user's loss of all data, a tensor.
        data: What is handed to it: tensors and graphs in dicts, lists and tuples.

    Returns:
        The losses of the surface and the largest eigenvalue, as found by hand.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if isinstance(problem, Subject):
        settings = SurfaceSettings(x=f"{STEPS[0]}:{STEPS[-1]}:{len(STEPS)}")
        surface = SurfaceExperiment(problem, settings).build()
        problem = problem.problem("train", settings, Numerics())
    else:
        directions = random_directions(problem.parameters, 1, seed=0)
        surface = Surface(problem, Grid.parse(f"{STEPS[0]}:{STEPS[-1]}:{len(STEPS)}"), directions)
    losses = compare_losses(problem, surface, model, own_loss, data)
    largest = compare_curvatures(problem, model, own_loss, data)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)  # lent, never changed
    return losses, largest


def compare_losses(problem, surface, model, own_loss, data):
    expected = plain(own_loss, copied(model), data)
    assert problem.evaluate().loss == pytest.approx(expected, rel=LOSS_TOLERANCE)
    found = surface.run().values["train_loss"]
    by_hand = []
    for step in STEPS:
        moved = copied(model)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                if name in surface.directions[0].tensors:
                    parameter += step * surface.directions[0].tensors[name]
        by_hand.append(plain(own_loss, moved, data))
    assert len({round(value / expected, 4) for value in by_hand}) == len(STEPS)  # it is moved
    np.testing.assert_allclose(found, by_hand, rtol=LOSS_TOLERANCE)
    return by_hand


def compare_curvatures(problem, model, own_loss, data):
    with HessianOperator(problem) as hessian:
        pairs = top_eigenpairs(hessian, k=1)
        vector = np.random.default_rng(1).standard_normal(hessian.size, dtype=np.float32)
        product = hessian.matvec(torch.from_numpy(vector)).double().numpy()
    gradient = Gradient(copied(model).double(), own_loss, doubled(data))
    assert gradient.size == hessian.size
    expected = gradient.largest_curvature()
    assert pairs.eigenvalues[0].item() == pytest.approx(expected, rel=CURVATURE_TOLERANCE)
    difference = np.linalg.norm(product - gradient.slope(vector))
    assert difference <= CURVATURE_TOLERANCE * np.linalg.norm(product)
    return expected


class Gradient:
    """The gradient of a loss by its trainable parameters, and its derivatives."""

    def __init__(self, model, own_loss, data):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.loss = lambda: own_loss(model, data)
        self.size = sum(p.numel() for p in self.parameters)
        self.origin = nn.utils.parameters_to_vector(self.parameters).detach()

    def at(self, point):
        nn.utils.vector_to_parameters(point, self.parameters)
        parts = torch.autograd.grad(self.loss(), self.parameters, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts]).numpy()

    def slope(self, vector):
        """H v by central differences of the gradient: no second derivative of torch's.

        In float64 a step h = 1e-7 leaves some h^2 + 1e-15 / h = 1e-8, and hardly any ReLU
        changes sides.
        """
        direction = torch.from_numpy(np.asarray(vector, dtype=np.float64).ravel())
        step = 1e-7 / direction.norm()
        forward, backward = (self.at(self.origin + sign * step * direction) for sign in (1, -1))
        return (forward - backward) / (2 * step.item())

    def largest_curvature(self):
        if self.size <= DENSE:
            return torch.linalg.eigvalsh(self.dense())[-1].item()
        operator = LinearOperator((self.size, self.size), self.slope, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(self.size)
        return eigsh(operator, 1, which="LA", v0=start, tol=1e-6, return_eigenvectors=False)[0]

    def dense(self):
        """H by differentiating each entry of the gradient."""
        nn.utils.vector_to_parameters(self.origin, self.parameters)
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            parts = torch.autograd.grad(
                self.loss(), self.parameters, create_graph=True, materialize_grads=True
            )
            rows = [self._row(entry) for part in parts for entry in part.flatten()]
        return torch.stack(rows)

    def _row(self, entry):
        if not entry.requires_grad:
            return torch.zeros(self.size, dtype=torch.float64)
        parts = torch.autograd.grad(
            entry, self.parameters, retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in parts])


def copied(model):
    return copy.deepcopy(model).eval()


def plain(own_loss, model, data):
    return own_loss(model, data).item()


def doubled(data):
    def double(leaf):
        if hasattr(leaf, "edge_index"):
            return leaf.clone().apply(double)
        floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        return leaf.double() if floating else leaf

    return tree_map(double, data)
