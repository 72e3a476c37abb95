"""A step divides as torch does, by the batch's weights; ranks and subsets by those of all."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from isoloss.evaluation.networks import evaluate_split, loss_sums, sample_terms
from isoloss.evaluation.predictions import Predictions
from isoloss.evaluation.scores import score
from isoloss.landscape.losses import per_sample_loss
from isoloss.trainers.losses import build_loss
from isoloss.trainers.optimizers import build_optimizer, resolve_optimizer
from isoloss.trainers.settings import TrainingSettings
from isoloss.trainers.trainer import Trainer

F64 = torch.float64
WEIGHT = torch.tensor([0.1, 1.0, 5.0], dtype=F64)
LOSSES = {
    "class weights": nn.CrossEntropyLoss(weight=WEIGHT),
    "half ignored": nn.CrossEntropyLoss(ignore_index=0),
    "both": nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1),
    "plain": nn.CrossEntropyLoss(),
}


class Pairs:
    groups = None

    def __init__(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(0, 3, (count,), generator=generator)
        self.inputs = torch.randn(count, 4, generator=generator, dtype=F64)

    def __len__(self):
        return len(self.targets)

    def batches(self, size, order=None):
        order = torch.arange(len(self)) if order is None else order
        for part in order.split(size):
            yield self.inputs[part], self.targets[part]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("case", LOSSES)
def test_a_full_batch_step_is_plain_torchs(case):
    loss, split, model = LOSSES[case], Pairs(31), network()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    trainer = Trainer(model, loss, optimizer, split, None, TrainingSettings(3, batch_size=None))
    plain = torch.optim.SGD(twin.parameters(), lr=0.5, momentum=0.9)
    for _ in range(3):
        record = trainer.train_epoch()
        plain.zero_grad()
        value = loss(twin(split.inputs), split.targets)
        value.backward()
        plain.step()
        # Sums of 31 float64 terms in another order.
        assert record.train_loss == pytest.approx(value.item(), rel=1e-13)
    torch.testing.assert_close(weights(model), weights(twin), rtol=0, atol=1e-13)
    assert loss_sums(model, trainer.loss, split, batch_size=4).mean_loss == pytest.approx(
        loss(twin(split.inputs), split.targets).item(), rel=1e-12
    )


@pytest.mark.parametrize("m", [None, 4, 31])
def test_sam_divides_by_weight_too(m):
    loss, split, model = LOSSES["both"], Pairs(31), network()
    twin = copy.deepcopy(model)
    settings = resolve_optimizer("sam", lr=0.5, momentum=0.0, weight_decay=0.0, rho=0.3, m=m)
    trainer = Trainer(
        model, loss, build_optimizer(settings, model), split, None,
        TrainingSettings(1, batch_size=None, seed=3),
    )  # fmt: skip
    parts = [(b.inputs, b.targets) for subsets, _ in trainer._batches(0) for b in subsets]
    total = WEIGHT[split.targets][split.targets != 1].sum()
    trainer.train_epoch()
    parameters = list(twin.parameters())
    descent = [torch.zeros_like(p) for p in parameters]
    for inputs, targets in parts:
        share = WEIGHT[targets][targets != 1].sum() / total
        if not share:
            continue
        g = torch.autograd.grad(loss(twin(inputs), targets), parameters)
        norm = torch.cat([x.flatten() for x in g]).norm()
        moved = copy.deepcopy(twin)
        with torch.no_grad():
            for p, x in zip(moved.parameters(), g, strict=True):
                p += 0.3 * x / norm
        there = torch.autograd.grad(loss(moved(inputs), targets), list(moved.parameters()))
        descent = [d + share * x for d, x in zip(descent, there, strict=True)]
    expected = torch.cat(
        [(p - 0.5 * d).flatten() for p, d in zip(parameters, descent, strict=True)]
    )
    torch.testing.assert_close(weights(model), expected.detach(), rtol=0, atol=1e-13)


def test_a_batch_without_a_target_that_counts_gives_no_nan():
    split, model = Pairs(12), network()
    split.targets[:] = 0
    split.targets[3] = 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = weights(model).clone()
    settings = TrainingSettings(1, batch_size=2)
    trainer = Trainer(model, LOSSES["half ignored"], optimizer, split, split, settings)
    record = trainer.train_epoch()
    assert math.isfinite(record.train_loss)
    assert math.isfinite(record.val_loss)
    assert record.train_accuracy in (0.0, 1.0)  # of the one target that counts
    assert weights(model).isfinite().all()
    assert not torch.equal(weights(model), before)


def test_scores_of_a_split_leave_ignored_targets_out():
    split, model = Pairs(40), network()
    loss = Trainer(
        model, LOSSES["both"], torch.optim.SGD(model.parameters()), split, None, TrainingSettings(1)
    ).loss
    scores = evaluate_split(model, loss, split, batch_size=7)
    counted = split.targets != 1
    outputs = model(split.inputs).detach()
    each = nn.functional.cross_entropy(outputs, split.targets, WEIGHT, reduction="none") * counted
    w = WEIGHT[split.targets] * counted
    mean = (each.sum() / w.sum()).item()
    assert scores.loss == pytest.approx(mean, rel=1e-13)
    # Cochran 1977, section 6.3, written out.
    error = math.sqrt((each - mean * w).square().sum() / (40 * 39)) / w.mean().item()
    assert scores.loss_standard_error == pytest.approx(error, rel=1e-12)
    hits = (outputs.argmax(1) == split.targets)[counted].double()
    assert scores.accuracy == pytest.approx(hits.mean().item(), rel=1e-14)
    p = hits.mean().item()
    assert scores.accuracy_standard_error == pytest.approx(
        math.sqrt(p * (1 - p) / len(hits)), rel=1e-13
    )


def test_the_layout_of_classes_is_an_argument_of_cross_entropy():
    outputs, targets = torch.randn(2, 3, 3, dtype=F64), torch.randint(3, (2, 3))
    for dim in (1, -1):
        sums, counted = build_loss("cross-entropy", {"class_dim": dim})(outputs, targets)
        expected = nn.functional.cross_entropy(outputs.movedim(dim, 1), targets)
        torch.testing.assert_close(sums.sum() / counted.sum(), expected)


def test_scores_of_tokens_say_how_sure_their_accuracy_is():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(30, 5, 3, dtype=F64, generator=generator)
    targets = torch.randint(0, 3, (30, 5), generator=generator)
    targets[torch.rand(30, 5, generator=generator) < 0.3] = -100
    loss = build_loss("cross-entropy", {}, dtype=F64)
    predictions = Predictions(outputs.numpy(), targets.numpy())
    scores = score(predictions, sample_terms(predictions, loss))
    counted = targets != -100
    hits = ((outputs.argmax(-1) == targets) & counted).double().sum(1)
    tokens = counted.double().sum(1)
    share = (hits.sum() / tokens.sum()).item()
    assert scores.loss == pytest.approx(
        nn.functional.cross_entropy(outputs.reshape(-1, 3), targets.flatten()).item(), rel=1e-13
    )
    assert scores.accuracy == pytest.approx(share, rel=1e-14)
    error = math.sqrt((hits - share * tokens).square().sum() / (30 * 29)) / tokens.mean().item()
    assert scores.accuracy_standard_error == pytest.approx(error, rel=1e-12)


def test_the_layout_may_be_stated_later():
    outputs, targets = torch.randn(2, 3, 3, dtype=F64), torch.randint(3, (2, 3))
    loss = per_sample_loss(per_sample_loss(nn.CrossEntropyLoss(ignore_index=1)), class_dim=-1)
    sums, counted = loss(outputs, targets)
    expected = nn.functional.cross_entropy(outputs.movedim(-1, 1), targets, ignore_index=1)
    torch.testing.assert_close(sums.sum() / counted.sum(), expected)
