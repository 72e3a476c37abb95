"""Networks and losses that cannot be trained are refused before there is a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isoloss import cli

PLUGIN = """
import torch
from torch import nn

class Slice(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]

def empty():
    return Slice()

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(63, 10))

def normed():
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

def switched():
    class Frozen(nn.Sequential):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    return Frozen(nn.Flatten(), nn.Linear(64, 10))

def integers(outputs, targets):
    return (outputs.argmax(1) != targets).long()
"""
FAULTS = {
    "no parameters": ("--model {}:empty", "parameters to train, got Slice"),
    "lazy": ("--model {}:lazy", "lazy ones: 1.weight"),
    "another input": ("--model {}:narrow", "samples of shape (1, 8, 8)"),
    "batch norm of one": ("--model {}:normed --batch-size 1", "choose another --batch-size"),
    "gradients off": ("--model {}:switched", "one under no_grad or detach"),
    "a loss of integers": ("--loss {}:integers", "torch.int64"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_trained_is_refused_before_there_is_a_run(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, named = FAULTS[fault]
    (tmp_path / "mine.py").write_text(PLUGIN)
    line = f"train --run a --fraction 0.1 --dataset-arg size=8 --results {tmp_path} {options}"
    assert cli.main(line.format(tmp_path / "mine.py").split()) == 1
    error = capsys.readouterr().err
    assert named in error
    assert "unexpected" not in error
    assert len(error.splitlines()) <= 3
    assert not (tmp_path / "runs" / "a").exists()
    assert torch.is_grad_enabled()
