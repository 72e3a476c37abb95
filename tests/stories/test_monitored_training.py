"""Trainings by Lightning and by Hugging Face's Trainer, watched, end with the same bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isoloss.hessian import CurvatureMonitor
from isoloss.hessian.callbacks import lightning_callback, trainer_callback
from isoloss.landscape import Problem


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(48, 5, generator=generator), torch.arange(48) % 3


def network():
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)
    )


@pytest.fixture(autouse=True)
def one_thread():
    # Bitwise claims hold for one thread: sums are then formed in one order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def end(model):
    """All tensors of a network, and what the next random numbers are."""
    return {**model.state_dict(), "next": torch.rand(4)}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning", reason="needs the extra `stories`")

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.1)

    def run(monitored):
        lightning.seed_everything(3, verbose=False)
        module, callbacks = Classifier(), []
        monitor = CurvatureMonitor(
            Problem(module.net, nn.CrossEntropyLoss(), [data()]), every=2, file=tmp_path / "c.jsonl"
        )
        if monitored:
            callbacks.append(lightning_callback(monitor, network=lambda whole: whole.net))
        loader = torch.utils.data.DataLoader([*zip(*data(), strict=True)], 12, shuffle=True)
        lightning.Trainer(
            max_epochs=2, accumulate_grad_batches=2, logger=False, enable_checkpointing=False,
            accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
            callbacks=callbacks,
        ).fit(module, loader)  # fmt: skip
        return end(module), [one.step for one in monitor.measurements]

    alone, none = run(False)
    watched, steps = run(True)
    assert none == []
    assert equal(alone, watched)
    # 4 batches an epoch, two of them a step, two epochs.
    assert steps == [0, 2, 4]
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 3


def test_hugging_faces_trainer(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the extra `stories`")
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x, labels):
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    x, y = data()
    rows = [{"x": one, "labels": label} for one, label in zip(x, y, strict=True)]

    def run(monitored):
        transformers.set_seed(3)
        model, callbacks = Classifier(), []
        monitor = CurvatureMonitor(Problem(model.net, nn.CrossEntropyLoss(), [(x, y)]), every=3)
        if monitored:
            callbacks.append(trainer_callback(monitor, network=lambda whole: whole.net))
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=12,
            report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, seed=3,
        )  # fmt: skip
        transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, callbacks=callbacks
        ).train()
        return end(model), [one.step for one in monitor.measurements]

    alone, none = run(False)
    watched, steps = run(True)
    assert none == []
    assert equal(alone, watched)
    assert steps == [3, 6]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra `stories`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    model = network()
    problem = Problem(model, nn.CrossEntropyLoss(), [data()])
    with SummaryWriter(tmp_path) as writer:
        monitor = CurvatureMonitor(problem, every=2, writer=writer)
        for step in range(4):
            monitor(step, model)
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("curvature/lambda_max")
    assert [event.step for event in events] == [0, 2]
    found = monitor.measurements[0].eigenvalues[0]
    assert events[0].value == pytest.approx(found, rel=1e-6)  # stored as float32
