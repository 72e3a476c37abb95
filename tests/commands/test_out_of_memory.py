"""Memory that runs out, or would, on the command line: one message, exit code 1, no run begun."""

from __future__ import annotations

import pytest
import torch

from isoloss import cli
from isoloss.landscape import memory

# 2^50 bytes are more than any machine has.
PLUGIN = """
import torch
from torch import nn

class Large(nn.Linear):
    def forward(self, x):
        torch.empty(2**50, dtype=torch.uint8)
        return super().forward(x.flatten(1))

def network():
    return Large(64, 10)
"""
TRAIN = "train --epochs 1 --fraction 0.1 --no-figures --run a"


@pytest.fixture
def run(tmp_path, capsys):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN)

    def command(line):
        code = cli.main([*line.format(plugin).split(), "--results", str(tmp_path / "results")])
        return code, capsys.readouterr().err

    return command


def test_what_cannot_be_allocated(run, tmp_path):
    code, said = run(f"{TRAIN} --model {{}}:network")
    assert code == 1
    assert said.startswith("error: out of memory with 2 samples at a time: ")
    assert "can't allocate memory: you tried to allocate 1125899906842624 bytes" in said
    assert "smaller --batch-size" in said
    assert not (tmp_path / "results" / "runs" / "a").exists()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you\nsee"),
         "DefaultCPUAllocator: can't allocate memory: you"),
        (torch.OutOfMemoryError("CUDA out of memory."), "CUDA out of memory."),
    ],
)  # fmt: skip
def test_wherever_it_runs_out(run, monkeypatch, error, text):
    def fail(*args):
        raise error

    monkeypatch.setattr("isoloss.experiments.training.data_of", fail)
    code, said = run(TRAIN)
    assert code == 1
    assert said == (
        f"error: out of memory: {text}\n"
        "try with a smaller --batch-size or --fraction, or a larger machine\n"
    )


def test_a_training_that_cannot_fit_is_refused_before_there_is_a_run(run, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    code, said = run(TRAIN)
    assert code == 1
    assert "expected memory for the gradient of a step of 128 samples, at least 0.0" in said
    assert "got 0.000931 GiB that are free\ntrain with a smaller --batch-size\n" in said
    assert not (tmp_path / "results" / "runs" / "a").exists()
    monkeypatch.setattr(memory, "available", lambda: 1_000_000_000)
    assert run(TRAIN)[0] == 0


def test_accelerators_are_not_asked():
    memory.require(2**60, "anything", "nothing", torch.device("cuda"))
