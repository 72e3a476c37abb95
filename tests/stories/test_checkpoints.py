"""Weights from elsewhere: whatever file they come in, the loss is that of their network."""

from __future__ import annotations

import argparse
import textwrap

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from isoloss.experiments.subject import Subject

FILES = {
    "net.py": """
        from torch import nn

        def build(input_shape, num_classes, width=8):
            return nn.Sequential(
                nn.Linear(input_shape[0], width), nn.Tanh(), nn.Linear(width, num_classes)
            )
        """,
    "data.py": """
        import torch

        def load(data_dir):
            x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
            y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
            return {"train": (x[:30], y[:30]), "val": (x[30:], y[30:]), "test": (x[30:], y[30:])}
        """,
}


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def data():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))[:30]
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def own_loss(model, data):
    return cross_entropy(model(data[0]), data[1])


def imported(file):
    return Subject.from_run(checkpoint=str(file), model="net.py:build", dataset="data.py:load")


def plain(model, file):
    torch.save(model.state_dict(), file)


def with_arguments(model, file):
    optimizer = torch.optim.Adam(model.parameters())
    own_loss(model, data()).backward()
    optimizer.step()
    args = argparse.Namespace(lr=1e-3, epochs=3)
    stored = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "args": args}
    torch.save({**stored, "epoch": 3}, file)


def data_parallel(model, file):
    torch.save({"state_dict": nn.DataParallel(model).state_dict(), "best_acc": 0.5}, file)


def compiled(model, file):
    torch.save(torch.compile(model).state_dict(), file)


def safetensors(model, file):
    pytest.importorskip("safetensors.torch", reason="needs the extra `stories`").save_file(
        model.state_dict(), file
    )


@pytest.mark.parametrize("write", [plain, with_arguments, data_parallel, compiled, safetensors])
def test_a_file_of_weights(check, theirs, write):
    model, file = network(), theirs / ("w.safetensors" if write is safetensors else "w.pt")
    write(model, file)
    check(imported(file), model, own_loss, data())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_checkpoint_of_lightning(check, theirs):
    lightning = pytest.importorskip("lightning", reason="needs the extra `stories`")

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters()
            self.model, self.loss = network(), nn.CrossEntropyLoss(torch.ones(3))

        def training_step(self, batch, index):
            return self.loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.1)

    module, loader = Classifier(), torch.utils.data.DataLoader([*zip(*data(), strict=True)], 10)
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    trainer.save_checkpoint(theirs / "last.ckpt")
    check(imported(theirs / "last.ckpt"), module.model, own_loss, data())
