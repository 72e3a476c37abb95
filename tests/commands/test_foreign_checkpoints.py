"""Weights from elsewhere become a run: what is taken, what is said, what is kept of it."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch

from isoloss import cli
from isoloss.models import create_model
from isoloss.records.runs import Run

NET = """
    from torch import nn

    class Net(nn.Sequential):
        pass

    def build(num_classes, width=4):
        return Net(nn.Flatten(), nn.Linear(6, width), nn.ReLU(), nn.Linear(width, num_classes))
    """
DATA = """
    import torch

    def load(data_dir):
        x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
        return {"train": (x, torch.arange(30) % 3), "test": (x, torch.arange(30) % 3)}
    """


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(textwrap.dedent(NET))
    (tmp_path / "data.py").write_text(textwrap.dedent(DATA))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(factor=1.0, prefix="", classes=3):
    generator = torch.Generator().manual_seed(1)
    shapes = {"1.weight": (4, 6), "1.bias": (4,), "3.weight": (classes, 4), "3.bias": (classes,)}
    return {prefix + n: factor * torch.randn(s, generator=generator) for n, s in shapes.items()}


def evaluate(capsys, file, *more):
    code = cli.main(["evaluate", "--checkpoint", str(file), "--model", "net.py:build",
                     "--dataset", "data.py:load", "--no-figures", *more])  # fmt: skip
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) <= 4
    return code, captured.out, captured.err


RUNS = Path("results/runs")


def imported(name):
    run = Run(RUNS / name)
    return torch.load(run.checkpoint(), weights_only=True), run.facts()


def test_what_was_taken_is_said_in_a_line(theirs, capsys):
    args = argparse.Namespace(lr=0.1)
    torch.save({"model": weights(), "ema": weights(2), "args": args}, "w.pt")
    code, out, error = evaluate(capsys, "w.pt")
    assert (code, error) == (0, "")
    line = out.splitlines()[0]
    assert line.startswith("imported w.pt as run w: 4 tensors of model (also there: ema; ")
    assert "--key" in line
    assert "its checksums hold, no digest came with it, SHA-256" in line
    found, facts = imported("w")
    assert torch.equal(found["1.weight"], weights()["1.weight"])
    assert facts.imported == {"key": "model", "chosen": False, "unpickled": False}
    # The same file again is the same run; other weights in it are not.
    assert evaluate(capsys, "w.pt")[0] == 0
    assert evaluate(capsys, "w.pt", "--key", "model")[0] == 0
    code, _, error = evaluate(capsys, "w.pt", "--key", "ema")
    assert code == 1
    assert "run w exists and is not this import of w.pt" in error
    assert evaluate(capsys, "w.pt", "averaged", "--key", "ema")[0] == 0
    assert torch.equal(imported("averaged")[0]["1.weight"], 2 * weights()["1.weight"])
    assert evaluate(capsys, "w.pt", "averaged")[0] == 1


def test_prefixes_and_what_is_left_out_are_said(theirs, capsys):
    content = {**weights(prefix="model."), "criterion.weight": torch.ones(3)}
    torch.save({"state_dict": content, "hyper_parameters": {}}, "epoch=3.ckpt")
    code, out, _ = evaluate(capsys, "epoch=3.ckpt", "lightning")
    assert code == 0
    assert "prefix model. taken off; 1 left out (criterion.weight)" in out
    assert evaluate(capsys, "epoch=3.ckpt", "lightning")[0] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (weights(classes=5), "w.pt does not fit Net: 2 other shapes, 0 missing, 0 unexpected; 2"),
        ({"epoch": 3}, "w.pt: expected a state dict"),
        ({**weights(), "1.bias": torch.arange(4)}, "1.bias: expected floating point, got integers"),
    ],
)  # fmt: skip
def test_errors_name_the_users_file_and_leave_no_run(theirs, capsys, content, message):
    torch.save(content, "w.pt")
    code, _, error = evaluate(capsys, "w.pt")
    assert code == 1
    assert message in error
    assert "results" not in error
    assert not any(RUNS.glob("[!.]*"))


def test_values_that_are_not_finite_are_warned_of(theirs, capsys):
    content = weights()
    content["3.bias"][0] = float("nan")
    torch.save(content, "w.pt")
    code, _, error = evaluate(capsys, "w.pt", "--json")
    assert code == 0
    assert error == "warning: w.pt: NaN or infinite values in 1 tensors, first 3.bias\n"


def test_a_pickled_network_of_ones_own(theirs, capsys, monkeypatch):
    network = create_model("net.py:build", {"num_classes": 3})
    # Saved by a program that finds its class in `net`, as the user's own does.
    monkeypatch.setitem(sys.modules, "net", ModuleType("net"))
    sys.modules["net"].Net = type(network)
    torch.save({"model": network, "epoch": 3}, "w.pt")
    monkeypatch.delitem(sys.modules, "net")
    code, _, error = evaluate(capsys, "w.pt")
    assert code == 1
    assert "w.pt holds a whole pickled network" in error
    assert "--trust-pickle" in error
    code, out, error = evaluate(capsys, "w.pt", "--trust-pickle", "--json")
    assert code == 0
    assert json.loads(out)["run"] == "w"
    assert error.splitlines() == [
        "warning: --trust-pickle: code in w.pt may be run, with all that you may do"
    ]
    found, facts = imported("w")
    assert torch.equal(found["1.weight"], network[1].weight)
    assert facts.imported == {"key": "model", "chosen": False, "unpickled": True}
    # From then on the run has plain weights, and the file is not unpickled again.
    assert evaluate(capsys, "w.pt")[0] == 0
    assert cli.main(["evaluate", "w", "--no-figures"]) == 0


def test_trust_is_for_files_and_never_from_a_configuration(theirs, capsys):
    torch.save(weights(), "w.pt")
    assert evaluate(capsys, "w.pt")[0] == 0
    for option in (["--key", "ema"], ["--trust-pickle"]):
        assert cli.main(["evaluate", "w", *option]) == 2
        assert option[0] in capsys.readouterr().err
    (theirs / "c.json").write_text(json.dumps({"trust_pickle": True}))
    assert cli.main(["train", "--config", "c.json"]) == 2
    assert "trust_pickle" in capsys.readouterr().err
