"""Somebody else's network, data, loss and weights through the commands."""

from __future__ import annotations

import textwrap

import pytest
import torch

import cli
from landscape.store import read_surface
from trainers.runs import Run

FILES = {
    "models/__init__.py": "from models.blocks import Head\n",
    "models/blocks.py": """
        from torch import nn
        class Head(nn.Module):
            def __init__(self, features, classes):
                super().__init__()
                self.linear = nn.Linear(features, classes)
            def forward(self, x):
                from utils import flat   # late, and of the repository's own
                return self.linear(flat(x))
        """,
    "utils.py": "def flat(x):\n    return x.flatten(1)\n",
    "net.py": """
        from models import Head
        def build(input_shape, num_classes, scale=1):
            features = 1
            for n in input_shape:
                features *= n
            return Head(features * scale, num_classes)
        """,
    "data.py": """
        import torch
        def load(data_dir, n=60):
            g = torch.Generator().manual_seed(0)
            x = torch.randn(n, 3, 2, generator=g)
            y = (x.sum((1, 2)) > 0).long()
            return {"train": (x, y), "test": (x[:20], y[:20])}
        """,
    "loss.py": """
        from torch.nn.functional import cross_entropy
        def doubled(outputs, targets):
            return 2 * cross_entropy(outputs, targets, reduction="none")
        """,
}


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "theirs"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def test_train_surface_and_hessian_of_a_plug_in(repository, tmp_path):
    results = tmp_path / "results"
    train = [
        "train", "--model", f"{repository}/net.py:build", "--dataset", f"{repository}/data.py:load",
        "--dataset-arg", "n=80", "--loss", f"{repository}/loss.py:doubled", "--run", "theirs",
        "--epochs", "3", "--batch-size", "full", "--results", str(results),
    ]  # fmt: skip
    assert cli.main(train) == 0
    run = Run(results / "runs" / "theirs")
    assert len(list((run.path / "plugins").iterdir())) == 3
    assert cli.main(["surface", "theirs", "--x=-1:1:3", "--results", str(results)]) == 0
    assert cli.main(["hessian", "theirs", "--top", "2", "--results", str(results)]) == 0
    loss = read_surface(run.path / "surface-1d.h5").origin["train_loss"]
    assert loss == pytest.approx(run.evaluation()["splits"]["train"]["loss"], rel=1e-6)

    # The same weights from a file, with a wrapper's prefix, and half the loss.
    weights = torch.load(run.checkpoint(), weights_only=True)
    file = tmp_path / "foreign.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, file)
    surface = [
        "surface", "--checkpoint", str(file), "--model", f"{repository}/net.py:build",
        "--dataset", f"{repository}/data.py:load", "--dataset-arg", "n=80", "--x=-1:1:3",
        "--split", "test", "--results", str(results),
    ]  # fmt: skip
    assert cli.main(surface) == 0
    imported = read_surface(results / "runs" / "foreign" / "surface-1d.h5")
    test = run.evaluation()["splits"]["test"]["loss"]
    assert 2 * imported.origin["test_loss"] == pytest.approx(test, rel=1e-6)
    assert cli.main(["evaluate", "foreign", "--results", str(results)]) == 0
