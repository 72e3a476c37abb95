"""Somebody else's network, data, loss and weights through the commands."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from isoloss import cli
from isoloss.records.runs import Run
from isoloss.records.surfaces import read_surface

HOUSE = Path(__file__).resolve().parents[2]
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


@pytest.mark.slow
def test_network_and_data_of_two_repositories_with_a_models_folder_each(repository, tmp_path):
    other = tmp_path / "other"
    (other / "models").mkdir(parents=True)
    (other / "models" / "__init__.py").write_text("from models.sizes import N\n")
    (other / "models" / "sizes.py").write_text("N = 50\n")
    text = textwrap.dedent(FILES["data.py"]).replace("n=60", "n=None")
    late = "    from models import sizes\n    n = n or sizes.N\n    assert n == N\n"
    head, loader, body = text.partition("def load(data_dir, n=None):\n")
    (other / "data.py").write_text(f"from models import N\n{head}{loader}{late}{body}")
    train = [
        "train", "--model", f"{repository}/net.py:build", "--dataset", f"{other}/data.py:load",
        "--run", "both", "--epochs", "1", "--no-figures", "--results", str(tmp_path / "results"),
    ]  # fmt: skip
    # In the clone's own folder, where there is a third `models`.
    command = [sys.executable, str(HOUSE / "cli.py"), *train]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = Run(tmp_path / "results" / "runs" / "both").evaluation()["splits"]
    assert sum(parts[name]["count"] for name in ("train", "val")) == 50


def test_changed_files_of_the_user_are_noticed(repository, tmp_path, capsys, monkeypatch):
    results = ["--results", str(tmp_path / "results")]
    monkeypatch.chdir(repository)  # specs are given relative to it
    train = ["train", "--model", "net.py:build", "--dataset", "data.py:load", "--loss",
             "loss.py:doubled", "--run", "theirs", "--epochs", "1", "--no-figures"]  # fmt: skip
    assert cli.main([*train, *results]) == 0
    monkeypatch.chdir(tmp_path)
    surface = ["surface", "theirs", "--x=-1:1:3", "--no-figures", *results]
    assert cli.main(surface) == 0
    loss = repository / "loss.py"
    loss.write_text(loss.read_text().replace("2 *", "3 *"))
    capsys.readouterr()
    assert cli.main(surface) == 1
    error = capsys.readouterr().err
    assert "loss.py" in error
    assert "changed" in error
    assert len(error.splitlines()) <= 3
    copied = tmp_path / "results" / "runs" / "theirs" / "plugins" / "loss-loss.py"
    loss.write_text(copied.read_text())
    assert cli.main(surface) == 0
    # A file that the plug-in imports is not hashed: the loss at the weights gives it away.
    utils = repository / "utils.py"
    utils.write_text("def flat(x):\n    return 2 * x.flatten(1)\n")
    done = subprocess.run(
        [sys.executable, str(HOUSE / "cli.py"), *surface], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "the code of network, loss or data has changed" in done.stderr
