"""Losses by name equal their formulas; a user's losses arrive with their normalisation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from isoloss.landscape.losses import LossShapeError
from isoloss.registry import ArgumentError, PluginError, UnknownNameError
from isoloss.trainers.losses import LossError, build_loss


def values(loss, outputs, targets):
    """The mean of each sample."""
    sums, weights = loss(outputs, targets)
    return sums / weights


PLUGIN = """
import torch
from torch import nn

def absolute(outputs, targets, power=1):
    return (outputs - targets).abs().pow(power).sum(1)

def averaged(outputs, targets):
    return (outputs - targets).abs().mean()

def make(scale):
    return lambda outputs, targets: scale * (outputs - targets).abs().sum(1)

class Half(nn.MSELoss):
    def forward(self, outputs, targets):
        return super().forward(outputs, targets) / 2

ready = nn.L1Loss()

def nothing():
    return None
"""


@pytest.fixture(name="file")
def plugin_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(name="pair")
def outputs_and_targets():
    generator = torch.Generator().manual_seed(0)
    draw = {"dtype": torch.float64, "generator": generator}
    return torch.randn(5, 4, **draw), torch.randn(5, 4, **draw)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(pair, smoothing):
    outputs, _ = pair
    targets = torch.tensor([0, 1, 2, 3, 1])
    mass = torch.full((5, 4), smoothing / 4, dtype=torch.float64)
    mass[torch.arange(5), targets] += 1 - smoothing
    expected = -(mass * (outputs.exp() / outputs.exp().sum(1, keepdim=True)).log()).sum(1)
    loss = build_loss("cross-entropy", {"label_smoothing": smoothing})
    torch.testing.assert_close(values(loss, outputs, targets), expected, rtol=1e-13, atol=0)


def test_mse_on_vectors_and_on_classes(pair):
    outputs, targets = pair
    loss = build_loss("mse", {})
    torch.testing.assert_close(values(loss, outputs, targets), (outputs - targets).square().mean(1))
    classes = torch.tensor([0, 1, 2, 3, 1])
    expected = (outputs - torch.eye(4, dtype=torch.float64)[classes]).square().mean(1)
    torch.testing.assert_close(values(loss, outputs, classes), expected)
    with pytest.raises(LossError, match="one shape"):
        loss(outputs, targets[:, :1])  # would broadcast silently


PLUGINS = {
    "function": ("absolute", {}, lambda d: d.abs().sum(1)),
    "function with argument": ("absolute", {"power": 2}, lambda d: d.square().sum(1)),
    "factory": ("make", {"scale": 3}, lambda d: 3 * d.abs().sum(1)),
    "module class": ("Half", {}, lambda d: d.square().mean(1) / 2),
    "module": ("ready", {}, lambda d: d.abs().mean(1)),
}


@pytest.mark.parametrize("case", PLUGINS)
def test_losses_of_the_user(file, pair, case):
    name, arguments, formula = PLUGINS[case]
    outputs, targets = pair
    loss = build_loss(f"{file}:{name}", arguments)
    torch.testing.assert_close(values(loss, outputs, targets), formula(outputs - targets))


def test_loss_that_is_averaged_already_is_refused(file, pair):
    with pytest.raises(LossShapeError, match="reduction"):
        build_loss(f"{file}:averaged", {})(*pair)


REFUSED = {
    "unknown name": ("cross-entrop", {}, UnknownNameError, "cross-entropy"),
    "unknown argument": ("cross-entropy", {"smoothing": 0.1}, ArgumentError, "label_smoothing"),
    "range": ("cross-entropy", {"label_smoothing": 1.5}, LossError, "1.5"),
    "plug-in argument": ("FILE:absolute", {"root": 2}, LossError, "root"),
    "no such loss": ("FILE:relative", {}, PluginError, "relative"),
    "makes nothing": ("FILE:nothing", {}, LossError, "NoneType"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(file, case):
    spec, arguments, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        build_loss(spec.replace("FILE", str(file)), arguments)


@pytest.mark.parametrize("classes", [2, 5, 10])
@pytest.mark.parametrize("s", [0.0, 0.1, 0.3])
def test_smooth_crossentropy_is_label_smoothing_minus_a_constant(classes, s):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(4, classes, dtype=torch.float64, generator=generator)
    targets = torch.randint(classes, (4,), generator=generator)
    loss = build_loss("smooth-crossentropy", {"smoothing": s}, dtype=torch.float64)
    smoothing = s * classes / (classes - 1)

    def ours(outputs):
        return values(loss, outputs, targets)

    def theirs(outputs):
        return nn.functional.cross_entropy(
            outputs, targets, label_smoothing=smoothing, reduction="none"
        )

    entropy = -sum(q * math.log(q) * n for q, n in ((1 - s, 1), (s / (classes - 1), classes - 1))
                   if q > 0)  # fmt: skip
    if (classes, s) == (10, 0.1):
        assert entropy == pytest.approx(0.5448, abs=5e-5)
    # Sums of a few terms of order 1 in float64.
    exact = {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(ours(outputs), theirs(outputs) - entropy, **exact)
    mean_ours, mean_theirs = (lambda o: ours(o).mean()), (lambda o: theirs(o).mean())
    gradient, hessian = torch.func.grad, torch.func.hessian
    torch.testing.assert_close(
        gradient(mean_ours)(outputs), gradient(mean_theirs)(outputs), **exact
    )
    torch.testing.assert_close(hessian(mean_ours)(outputs), hessian(mean_theirs)(outputs), **exact)


def test_smooth_crossentropy_refuses_a_smoothing_out_of_range():
    with pytest.raises(LossError, match=r"smoothing in \[0, 1\], got 1.5"):
        build_loss("smooth-crossentropy", {"smoothing": 1.5})
