"""The loop: seeded epochs, honest means, resume bit for bit, divergence with the weights safe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from isoloss.evaluation.networks import loss_sums
from isoloss.landscape.memory import MemoryShortError
from isoloss.registry import UnknownNameError
from isoloss.trainers.checkpoints import CheckpointError, load_into, load_weights
from isoloss.trainers.loop import resume, train
from isoloss.trainers.losses import build_loss
from isoloss.trainers.optimizers import build_optimizer, resolve_optimizer
from isoloss.trainers.seeds import epoch_order
from isoloss.trainers.settings import TrainingError, TrainingSettings
from isoloss.trainers.trainer import Trainer, TrainingDiverged

LOSS = build_loss("cross-entropy", {})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # Bitwise claims hold for one thread: sums are then formed in one order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Pairs:
    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if order is None else order
        for part in order.split(size):
            yield self.inputs[part], self.targets[part]


def images(count: int, seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (count,), generator=generator)
    noise = torch.randn(count, 1, 6, 6, generator=generator)
    return Pairs(noise + targets.view(-1, 1, 1, 1).float(), targets)


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(64, 3),
        )  # fmt: skip


def trainer(name: str = "sgd", epochs: int = 4, **settings) -> Trainer:
    model = network()
    optimizer = build_optimizer(resolve_optimizer(name, base=settings.pop("base", None)), model)
    noisy = settings.pop("augment", None)
    return Trainer(
        model,
        LOSS,
        optimizer,
        images(50),
        images(20, seed=1),
        TrainingSettings(epochs, **{"batch_size": 16, "seed": 7, **settings}),
        augment=noisy,
    )


def jitter(inputs: Tensor, generator: torch.Generator) -> Tensor:
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


class KilledError(Exception):
    """Stands for the end of the process."""


CASES = {
    "sgd": {"name": "sgd"},
    "adam, cosine": {"name": "adam", "schedule": "cosine"},
    "sam, augmented": {"name": "sam", "augment": jitter},
    "asam over adam": {"name": "asam", "base": "adam"},
}


@pytest.mark.parametrize("case", CASES)
def test_resumed_training_equals_an_uninterrupted_one(tmp_path, case):
    whole = trainer(**CASES[case])
    train(whole, tmp_path / "whole")

    def kill(done: int, total: int) -> None:
        assert total == 16
        if done == 10:  # in the third epoch of four steps
            raise KilledError

    with pytest.raises(KilledError):
        train(trainer(**CASES[case]), tmp_path / "cut", progress=kill)
    torch.manual_seed(12345)  # another process starts with another state
    again = trainer(**CASES[case])
    resume(again, tmp_path / "cut")
    assert again.epoch == 2
    train(again, tmp_path / "cut")

    assert equal(again.model, whole.model)
    for file in ("last.pt", "best.pt"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    drop = [
        [(r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.lr) for r in h]
        for h in (again.history, whole.history)
    ]
    assert drop[0] == drop[1]


def test_same_seed_same_weights_other_seed_other_weights():
    one, two, other = trainer(), trainer(), trainer(seed=8)
    for t in (one, two, other):
        train(t)
    assert equal(one.model, two.model)
    assert not equal(one.model, other.model)


def test_every_epoch_takes_every_sample_once_in_an_order_of_its_own():
    orders = [epoch_order(3, epoch, 50) for epoch in range(3)]
    assert all(order.sort().values.tolist() == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_means_are_weighted_by_batch_size_and_taken_before_the_step():
    # 50 = 3 * 16 + 2. Without dropout, batch norm and movement (lr far below resolution) the
    # running mean must equal the mean over all samples at once, whatever the batches.
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-30)
    split = images(50)
    t = Trainer(model, LOSS, optimizer, split, None, TrainingSettings(1, batch_size=16))
    record = t.train_epoch()
    outputs = model(split.inputs.double())
    # Sums of 50 float64 terms of order 1.
    expected = nn.functional.cross_entropy(outputs, split.targets).item()
    assert record.train_loss == pytest.approx(expected, rel=1e-13)
    assert record.train_accuracy == (outputs.argmax(1) == split.targets).sum().item() / 50
    assert math.isnan(record.val_loss)
    assert math.isnan(record.val_accuracy)


def test_validation_is_in_evaluation_mode_after_the_epoch():
    t = trainer(epochs=1)
    record = t.train_epoch()
    t.model.eval()
    outputs = t.model(images(20, seed=1).inputs)
    expected = nn.functional.cross_entropy(outputs, images(20, seed=1).targets).item()
    assert record.val_loss == pytest.approx(expected, rel=1e-6)  # float32, other batches
    sums = loss_sums(t.model, LOSS, images(20, seed=1))
    assert (sums.mean_loss, sums.accuracy) == (
        pytest.approx(record.val_loss, rel=1e-12),
        record.val_accuracy,
    )


def test_full_batch_equals_gradient_descent_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    twin = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    twin.load_state_dict(model.state_dict())
    split = images(50)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    t = Trainer(model, LOSS, optimizer, split, None, TrainingSettings(3, batch_size=None))
    train(t)
    assert t.steps_per_epoch == 1
    for _ in range(3):
        loss = nn.functional.cross_entropy(twin(split.inputs.double()), split.targets)
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for p, g in zip(twin.parameters(), gradients, strict=True):
                p -= 0.1 * g
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)  # the permuted sum is rounded anew


def test_learning_rate_follows_the_schedule():
    t = trainer(epochs=2, schedule="cosine")
    seen = []
    train(t, progress=lambda done, total: seen.append(t.optimizer.param_groups[0]["lr"]))
    expected = [0.05 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert seen == pytest.approx(expected, rel=1e-15)
    assert [r.lr for r in t.history] == [seen[0], seen[4]]


def test_best_checkpoint_is_that_of_the_lowest_validation_loss(tmp_path):
    weights = {}
    t = trainer(epochs=6)
    train(
        t,
        tmp_path,
        on_epoch=lambda h: weights.update({h[-1].epoch: load_weights(tmp_path / "last.pt")}),
    )
    losses = [r.val_loss for r in t.history]
    assert t.best_epoch == losses.index(min(losses)) + 1
    best = load_weights(tmp_path / "best.pt")
    assert all(torch.equal(best[name], weights[t.best_epoch][name]) for name in best)


def test_no_epochs_leave_the_initial_weights(tmp_path):
    t = trainer(epochs=0)
    assert train(t, tmp_path) == []
    model = network()
    load_into(model, load_weights(tmp_path / "last.pt"), "last.pt")
    assert equal(model, network())


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_divergence_stops_and_keeps_the_last_finished_epoch(tmp_path, name):
    t = trainer(name)

    def blow_up(history) -> None:
        if len(history) == 2:
            for group in t.optimizer.param_groups:
                group["initial_lr"] = 1e30

    with pytest.raises(TrainingDiverged, match="epoch 3, step") as error:
        train(t, tmp_path, on_epoch=blow_up)
    assert len(str(error.value).splitlines()) == 2
    assert "lr 1e+30" in str(error.value)
    assert len(t.history) == 2
    again = trainer(name)
    resume(again, tmp_path)
    assert again.epoch == 2
    kept = load_weights(tmp_path / "last.pt")
    assert all(torch.equal(kept[k], v) for k, v in again.model.state_dict().items())
    assert all(v.isfinite().all() for v in kept.values())


def test_weights_that_are_not_finite_are_never_stored_as_an_epoch(tmp_path):
    # A finite loss with a NaN gradient: the derivative of sqrt at 0.
    model = nn.Linear(2, 1)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs * 0).sqrt().sum(1)

    split = Pairs(torch.ones(4, 2), torch.zeros(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    t = Trainer(model, loss, optimizer, split, None, TrainingSettings(1, batch_size=4))
    with pytest.raises(TrainingDiverged, match="weights not finite"):
        train(t, tmp_path)
    assert all(v.isfinite().all() for v in load_weights(tmp_path / "last.pt").values())


@dataclass
class Regression:
    """A line through 0, whose loss a large step multiplies by a known factor."""

    inputs: Tensor
    factor: float  # of the loss, each step

    def trainer(self, validation: Pairs | None = None) -> Trainer:
        model = nn.Linear(1, 1, bias=False).double()
        with torch.no_grad():
            model.weight.fill_(1.0)
        # w <- w (1 - 2 lr) for x = 1: the loss w^2 grows by (1 - 2 lr)^2 a step.
        lr = (1 + math.sqrt(self.factor)) / 2
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        data = Pairs(self.inputs, torch.zeros(len(self.inputs), 1))
        loss = build_loss("mse", {})
        return Trainer(model, loss, optimizer, data, validation, TrainingSettings(9, batch_size=1))


@pytest.mark.parametrize(
    ("samples", "factor", "text"),
    [
        # 1, 1e4, 1e8, 1e12 within an epoch.
        (8, 1e4, r"loss 1e\+12 at epoch 1, step 4 of 8, 1e\+09 times the first, 1 "),
        # Epochs of one step: 1, 1e5, 1e10.
        (1, 1e5, r"loss 1e\+10 at epoch 3, step 1 of 1, 1e\+09 times the first, 1 "),
    ],
)
def test_a_loss_that_explodes_stops_before_it_is_infinite(tmp_path, samples, factor, text):
    t = Regression(torch.ones(samples, 1), factor).trainer()
    with pytest.raises(TrainingDiverged, match=text):
        train(t, tmp_path)
    assert t.epoch == (0 if samples == 8 else 2)
    again = Regression(torch.ones(samples, 1), factor).trainer()
    resume(again, tmp_path)
    assert [r.train_loss for r in again.history] == [r.train_loss for r in t.history]
    with pytest.raises(TrainingDiverged, match=text):  # as one that was never stopped
        train(again, tmp_path)


def test_a_loss_that_rises_much_and_returns_is_trained_through(tmp_path):
    t = Regression(torch.ones(8, 1), 1e4).trainer()
    train_step, losses = t.optimizer.step, []

    def back(*args, **kwargs):
        train_step(*args, **kwargs)
        losses.append(float(t.model.weight.detach()) ** 2)
        if losses[-1] > 1e7:
            with torch.no_grad():
                t.model.weight.fill_(1.0)

    t.optimizer.step = back
    t.train_epoch()
    assert max(losses) > 1e7


@pytest.mark.parametrize("planted", [False, True])
def test_a_validation_loss_of_nan_is_divergence_but_where_the_data_hold_it(planted):
    class Narrow(nn.Linear):
        """NaN once its weight has left [-10, 10], which the next step would see first."""

        def forward(self, x):
            out = super().forward(x)
            return torch.where(self.weight.abs() > 10, torch.nan, out)

    inputs = torch.full((2, 1), math.nan if planted else 1.0)
    t = Regression(torch.ones(1, 1), 1.0 if planted else 1e4).trainer(
        Pairs(inputs, torch.zeros(2, 1))
    )
    t.model.__class__ = Narrow
    if planted:
        assert math.isnan(t.train_epoch().val_loss)
    else:
        with pytest.raises(TrainingDiverged, match="validation loss nan after epoch 1"):
            t.train_epoch()
        assert not t.history


def test_memory_that_runs_out_in_a_step_says_what_to_do():
    class Large(nn.Linear):
        def forward(self, x):
            if self.training:
                torch.empty(2**50, dtype=torch.uint8)
            return super().forward(x)

    t = Regression(torch.ones(4, 1), 1.0).trainer()
    t.model.__class__ = Large
    with pytest.raises(MemoryShortError, match=r"with 1 samples at a time.*\n.*`batch_size`"):
        t.train_epoch()


def test_resume_refuses_other_settings_and_other_networks(tmp_path):
    train(trainer(epochs=1), tmp_path)
    with pytest.raises(TrainingError, match=r"batch_size 16 \(now 8\), seed 7 \(now 9\)"):
        resume(trainer(epochs=1, batch_size=8, seed=9), tmp_path)
    longer = trainer(epochs=3)
    resume(longer, tmp_path)
    assert longer.epoch == 1
    with pytest.raises(CheckpointError, match="no file"):
        resume(trainer(), tmp_path / "elsewhere")
    other = trainer(epochs=1)
    other.model = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="does not fit Linear"):
        resume(other, tmp_path)


def test_settings_are_checked():
    for bad in ({"epochs": -1}, {"epochs": 1, "batch_size": 0}, {"epochs": 1, "seed": -1}):
        with pytest.raises(TrainingError, match="or more, got"):
            TrainingSettings(**bad)
    with pytest.raises(UnknownNameError):
        trainer(schedule="cosin")
    with pytest.raises(TrainingError, match="empty"):
        Trainer(network(), LOSS, trainer().optimizer, images(0), None, TrainingSettings(1))


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(trainer(epochs=1))
    assert list(Path(".").iterdir()) == []
