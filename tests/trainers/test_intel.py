"""Intel's extension: refused in words where it does not fit, and the plain result where it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import nn

from isoloss.trainers.intel import (
    MODULE,
    PACKAGE,
    IntelError,
    check_intel,
    intel_is_loaded,
    optimise,
)
from isoloss.trainers.optimizers import build_optimizer, resolve_optimizer

HOUSE = Path(__file__).resolve().parents[2]
VERSIONS = {
    "missing": ({"torch": "2.15.0"}, "which is not installed"),
    "older torch": ({"torch": "2.7.1", PACKAGE: "2.8.0"}, "expected torch 2.8 .* got torch 2.7.1"),
    "newer torch": (
        {"torch": "2.15.0+cpu", PACKAGE: "2.8.10+cpu"},
        r"expected torch 2.8 .* 2.8.10\+cpu, got torch 2.15.0\+cpu",
    ),
}


def installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr("isoloss.trainers.intel.metadata.version", version)


@pytest.mark.parametrize("case", VERSIONS)
def test_an_extension_that_does_not_fit_is_refused_before_it_is_imported(monkeypatch, case):
    versions, message = VERSIONS[case]
    installed(monkeypatch, versions)
    # An import would be an attribute error here, and can be the end of the process elsewhere.
    monkeypatch.setattr("isoloss.trainers.intel.importlib", None)
    model = nn.Linear(2, 1)
    for action in (check_intel, lambda: optimise(model, torch.optim.SGD(model.parameters()),
                                                 fused=True)):  # fmt: skip
        with pytest.raises(IntelError, match=message) as error:
            action()
        assert "pip install -e '.[intel]'" in str(error.value)


def test_a_matching_one_is_accepted_whatever_the_patch_level(monkeypatch):
    installed(monkeypatch, {"torch": "2.8.2+cpu", PACKAGE: "2.8.0"})
    assert check_intel() == "2.8.0"


def available() -> bool:
    try:
        check_intel()
    except IntelError:
        return False
    return True


needs_extension = [
    pytest.mark.intel,
    pytest.mark.skipif(
        not available(), reason=f"needs {PACKAGE} and the torch it was built for: extra `intel`"
    ),
]


def run_train(folder: Path, name: str, *options: str) -> tuple[list[float], dict]:
    """Train 20 full-batch steps in a process of its own; return each step's loss and the facts."""
    command = [
        sys.executable, str(HOUSE / "cli.py"), "train", "--run", name, "--results", str(folder),
        "--batch-size", "full", "--epochs", "20", "--fraction", "0.1", "--device", "cpu",
        "--no-figures", *options,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / name
    history = json.loads((run / "history.json").read_text())
    facts = json.loads((run / "facts.json").read_text())
    return [record["train_loss"] for record in history], facts["intel"]


EQUAL = {
    "sgd": ("--optimizer", "sgd", "--nesterov"),
    "adam": ("--optimizer", "adam", "--weight-decay", "0.01"),
    "sam": ("--optimizer", "sam", "--lr", "0.1"),
    "asam over adam": ("--optimizer", "asam", "--base", "adam", "--m", "40"),
}


class TestWithTheExtension:
    pytestmark = needs_extension

    @pytest.mark.parametrize("case", EQUAL)
    def test_training_equals_the_plain_run_in_its_own_process(self, tmp_path, case):
        plain, without = run_train(tmp_path, "plain", *EQUAL[case])
        with_it, facts = run_train(tmp_path, "intel", "--intel", *EQUAL[case])
        assert without == {"version": None, "loaded": False}
        assert facts == {"version": metadata.version(PACKAGE), "loaded": True}
        assert len(plain) == len(with_it) == 20
        assert plain[-1] < plain[0]
        assert with_it == pytest.approx(plain, abs=1e-4)

    def test_bf16_equals_plain_bf16(self, tmp_path):
        plain, _ = run_train(tmp_path, "plain", "--amp", "bf16", "--optimizer", "adam")
        with_it, _ = run_train(tmp_path, "intel", "--amp", "bf16", "--optimizer", "adam", "--intel")
        # Kernels round intermediate values differently: 2^-9 relative each, losses of order 1.
        assert with_it == pytest.approx(plain, abs=0.01)

    def test_resuming_equals_not_stopping(self, tmp_path):
        for name in ("whole", "cut"):
            options = ("--intel", "--optimizer", "adam", "--epochs")
            run_train(tmp_path, name, *options, "4" if name == "whole" else "2")
        run_train(tmp_path, "cut", "--resume", "--epochs", "4")
        whole, cut = (
            (tmp_path / "runs" / name / "checkpoints" / "last.pt").read_bytes()
            for name in ("whole", "cut")
        )
        assert whole == cut

    def test_sam_keeps_a_step_that_is_not_fused(self):
        steps = {}
        for name in ("sgd", "sam"):
            model = nn.Linear(2, 1)
            optimizer = build_optimizer(
                resolve_optimizer(name),
                model,
                lambda o, m=model, n=name: optimise(m, o, fused=n == "sgd"),
            )
            steps[name] = getattr(optimizer, "base", optimizer).step.__func__
        assert steps["sam"] is not steps["sgd"]
        assert "SGD.step" in steps["sam"].__qualname__
        assert intel_is_loaded()
        assert MODULE in sys.modules
