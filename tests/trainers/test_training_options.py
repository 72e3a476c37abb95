"""What can be switched on in the loop: stopping, clipping, bf16, subsets, epoch checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from isoloss.trainers.checkpoints import load_weights
from isoloss.trainers.loop import resume, train
from isoloss.trainers.losses import build_loss
from isoloss.trainers.optimizers import build_optimizer, resolve_optimizer
from isoloss.trainers.settings import TrainingError, TrainingSettings, best_epoch
from isoloss.trainers.trainer import Trainer

LOSS = build_loss("cross-entropy", {})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # Bitwise claims hold for one thread: sums are then formed in one order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Pairs:
    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(0, 3, (count,), generator=generator)
        self.inputs = torch.randn(count, 6, generator=generator) + self.targets.unsqueeze(1)

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if order is None else order
        for part in order.split(size):
            yield self.inputs[part], self.targets[part]


def trainer(name="sgd", epochs=4, options=None, dtype=torch.float32, **settings) -> Trainer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    optimizer = build_optimizer(resolve_optimizer(name, **(options or {})), model)
    return Trainer(
        model, LOSS, optimizer, Pairs(50), Pairs(20, seed=1),
        TrainingSettings(epochs, **{"batch_size": 16, "seed": 7, **settings}),
    )  # fmt: skip


def parameters(t: Trainer) -> list[Tensor]:
    return [p.detach().clone() for p in t.model.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_early_stopping_ends_after_patience_epochs_without_a_lower_loss(tmp_path):
    t = trainer(epochs=200, options={"lr": 2.0, "momentum": 0.9}, patience=3)
    train(t, tmp_path)
    losses = [r.val_loss for r in t.history]
    assert t.stopped_early
    assert 3 < len(losses) < 200
    assert len(losses) - (losses.index(min(losses)) + 1) == 3
    # Nothing is left to do: resuming a training that stopped trains no more.
    again = trainer(epochs=200, options={"lr": 2.0, "momentum": 0.9}, patience=3)
    resume(again, tmp_path)
    train(again, tmp_path)
    assert again.epoch == len(losses)


def test_best_epoch():
    cases = {(): 0, (math.nan,): 0, (2.0, 1.0, 1.0): 2, (math.nan, math.inf, 3.0): 3}
    for losses, expected in cases.items():
        assert best_epoch(losses) == expected


class KilledError(Exception):
    """Stands for the end of the process."""


STATEFUL = {
    "plateau, patience": {
        "schedule": "plateau",
        "schedule_arguments": {"patience": 0, "threshold": 0.2},
        "patience": 6,
    },
    "halve, warm-up in steps": {
        "schedule": "halve",
        "schedule_arguments": {"every": 2},
        "warmup": "5steps",
    },
    "clip, m": {"clip": 0.1, "name": "sam", "options": {"m": 5}},
    "bf16": {"amp": "bf16", "name": "grad-shift"},
}


@pytest.mark.parametrize("case", STATEFUL)
def test_resumed_training_equals_an_uninterrupted_one(tmp_path, case):
    whole = trainer(epochs=8, **STATEFUL[case])
    train(whole, tmp_path / "whole", checkpoint_every=3)

    def kill(done: int, total: int) -> None:
        if done == 22:  # in the sixth epoch of four steps
            raise KilledError

    with pytest.raises(KilledError):
        train(
            trainer(epochs=8, **STATEFUL[case]),
            tmp_path / "cut",
            checkpoint_every=3,
            progress=kill,
        )
    again = trainer(epochs=8, **STATEFUL[case])
    resume(again, tmp_path / "cut")
    train(again, tmp_path / "cut", checkpoint_every=3)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == ["best.pt", "digests.json", "epoch-0000.pt", "epoch-0003.pt", "epoch-0006.pt",
                     "last.pt", "state.pt"]  # fmt: skip
    for name in set(names) - {"state.pt", "digests.json"}:  # which hold wall times, and of them
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [r.lr for r in again.history] == [r.lr for r in whole.history]
    if case.startswith("plateau"):
        assert len({r.lr for r in whole.history}) > 1


def test_epoch_checkpoints_hold_the_weights_after_each(tmp_path):
    t = trainer(epochs=4)
    seen = {0: parameters(t)}
    train(t, tmp_path, checkpoint_every=2, on_epoch=lambda h: seen.update({len(h): parameters(t)}))
    for epoch in (0, 2, 4):
        stored = load_weights(tmp_path / f"epoch-{epoch:04d}.pt")
        assert same(list(stored.values()), seen[epoch])
    assert not (tmp_path / "epoch-0001.pt").exists()


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_clipping_bounds_the_gradient_that_is_descended_with(name):
    # Plain SGD with lr 1: a step moves the weights by the gradient itself.
    options = {"lr": 1.0, "momentum": 0.0}
    lengths = {}
    for clip in (None, 0.05):
        t = trainer(name, epochs=1, options=options, batch_size=None, clip=clip)
        before = parameters(t)
        train(t)
        moved = [b - a for a, b in zip(before, parameters(t), strict=True)]
        lengths[clip] = torch.cat([m.flatten() for m in moved])
    assert lengths[None].norm() > 0.1
    assert lengths[0.05].norm().item() == pytest.approx(0.05, rel=1e-4)  # torch adds 1e-6
    cosine = torch.cosine_similarity(lengths[None], lengths[0.05], dim=0)
    assert cosine.item() == pytest.approx(1.0, abs=1e-5)


def test_bf16_changes_the_passes_and_nothing_else():
    plain, amp = trainer(), trainer(amp="bf16")
    train(plain)
    train(amp)
    assert not same(parameters(plain), parameters(amp))
    assert all(p.dtype == torch.float32 for p in amp.model.parameters())
    # bf16 keeps 8 bits: a relative error of 2^-9 a product, here in losses of order 1.
    assert amp.history[-1].train_loss == pytest.approx(plain.history[-1].train_loss, abs=0.02)
    # Validation is in float32.
    split = Pairs(20, seed=1)
    amp.model.eval()
    expected = nn.functional.cross_entropy(amp.model(split.inputs), split.targets).item()
    assert amp.history[-1].val_loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_m_of_the_batch_is_plain_sharpness_and_smaller_m_is_not(name):
    weights = {}
    for m in (None, 16, 64, 5):
        t = trainer(name, options={"m": m, "rho": 0.5})
        train(t)
        weights[m] = parameters(t)
    assert same(weights[None], weights[16])
    assert same(weights[None], weights[64])
    assert not same(weights[None], weights[5])


def test_m_sharpness_in_the_loop_is_the_step_by_hand():
    # One full-batch step over 50 samples in subsets of 20, 20 and 10, in float64.
    options = {"m": 20, "rho": 0.5, "lr": 0.1, "momentum": 0.0}
    t = trainer("sam", 1, options, torch.float64, batch_size=None)
    twin = trainer("sam", 1, options, torch.float64)
    order = torch.cat([p for s, _ in t._batches(0) for p in [b.targets for b in s]])
    sizes = [b.count for s, _ in t._batches(0) for b in s]
    assert sizes == [20, 20, 10]
    model, total = twin.model, None
    for batch in [b for s, _ in t._batches(0) for b in s]:

        def gradient(batch=batch):
            losses = nn.functional.cross_entropy(model(batch.inputs), batch.targets)
            return torch.autograd.grad(losses, list(model.parameters()))

        w = parameters(twin)
        g = gradient()
        norm = torch.cat([x.flatten() for x in g]).norm()
        with torch.no_grad():
            for p, x in zip(model.parameters(), g, strict=True):
                p += 0.5 * x / norm
        part = [batch.count / 50 * x for x in gradient()]
        total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
        with torch.no_grad():
            for p, x in zip(model.parameters(), w, strict=True):
                p.copy_(x)
    expected = [w - 0.1 * g for w, g in zip(parameters(twin), total, strict=True)]
    train(t)
    assert len(order) == 50
    for a, b in zip(parameters(t), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)  # a few float64 sums of order 1


def test_longer_training_may_go_on_unless_the_schedule_plans_its_length(tmp_path):
    for schedule, allowed in (("halve", True), ("plateau", True), ("step", False)):
        folder = tmp_path / schedule
        train(trainer(epochs=1, schedule=schedule), folder)
        longer = trainer(epochs=3, schedule=schedule)
        if allowed:
            resume(longer, folder)
            assert longer.epoch == 1
        else:
            with pytest.raises(TrainingError, match=r"epochs 1 \(now 3\)"):
                resume(longer, folder)
    with pytest.raises(TrainingError, match=r"schedule_arguments {} \(now {'every': 2}\)"):
        resume(
            trainer(epochs=1, schedule="halve", schedule_arguments={"every": 2}),
            tmp_path / "halve",
        )


WARMUP = {"0": 0, "3": 30, "0.5": 5, "2epochs": 20, "1 epoch": 10, "7steps": 7, "500 steps": 500}


def test_warmup_in_epochs_and_in_steps():
    for text, steps in WARMUP.items():
        assert TrainingSettings(1, warmup=text).warmup_steps(10) == steps


BAD = [
    {"warmup": "9" * 400}, {"warmup": "9" * 5000 + "steps"}, {"warmup": "²"},
    {"warmup": "soon"}, {"warmup": "-1"}, {"warmup": "1.5steps"}, {"patience": 0}, {"clip": 0.0},
    {"clip": math.nan}, {"amp": "fp16"},
]  # fmt: skip


@pytest.mark.parametrize("settings", BAD, ids=str)
def test_settings_that_make_no_sense_are_refused(settings):
    (name,) = settings
    with pytest.raises(TrainingError, match=f"expected {name}.*got"):
        TrainingSettings(1, **settings)
