"""`train` from the command line: killed and resumed, on two processes, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from isoloss import cli
from isoloss.datasets import load_data
from isoloss.experiments import TrainOptions
from isoloss.experiments import train as train_run
from isoloss.experiments.train_record import write_summary
from isoloss.records.runs import Run, new_run
from isoloss.trainers.checkpoints import load_weights
from isoloss.trainers.trainer import TrainingDiverged

HOUSE = Path(__file__).resolve().parents[2]
SMALL = ("--fraction", "0.15", "--batch-size", "32", "--no-figures", "--device", "cpu")
# A loss that ends the process at a given call, as nothing else can.
DEADLY = """
import os, signal
import torch.nn.functional as F

calls = 0

def loss(outputs, targets):
    global calls
    calls += 1
    if calls == int(os.environ.get("KILL_AT_CALL", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return F.cross_entropy(outputs, targets, reduction="none")
"""


def launch(*arguments, results, prefix=(), **environment):
    return subprocess.run(
        [sys.executable, *prefix, str(HOUSE / "cli.py"), "train", *map(str, arguments), *SMALL,
         "--results", str(results)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=300,
    )  # fmt: skip


def train(*arguments, results):
    return cli.main(["train", *map(str, arguments), *SMALL, "--results", str(results)])


@pytest.mark.slow
def test_killed_in_an_epoch_and_resumed_is_as_if_never_stopped(tmp_path):
    plugin = tmp_path / "deadly.py"
    plugin.write_text(DEADLY)
    # 194 samples: 7 steps an epoch, the last of 2, with 2 calls each and one for validation.
    settings = ("--run", "a", "--epochs", 4, "--loss", f"{plugin}:loss", "--optimizer", "sam",
                "--schedule", "plateau", "--schedule-arg", "patience=0", "--schedule-arg",
                "threshold=0.5", "--warmup", "3steps", "--patience", 3, "--clip", 1, "--augment",
                "affine", "--checkpoint-every", 2)  # fmt: skip
    killed = launch(*settings, results=tmp_path / "cut", KILL_AT_CALL="35")
    assert killed.returncode == -signal.SIGKILL
    run, whole = (Run(tmp_path / name / "runs" / "a") for name in ("cut", "whole"))
    assert run.manifest()["status"] == "training"
    assert run.status == "interrupted"
    done = len(run.history()["epoch"])
    assert 0 < done < 4
    refused = launch("--run", "a", "--resume", "--lr", "0.5", results=tmp_path / "cut")
    assert refused.returncode == 2
    assert "--lr 0.05 (now 0.5)" in refused.stderr
    resumed = launch("--run", "a", "--resume", results=tmp_path / "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on after epoch {done} of 4" in resumed.stdout
    assert launch(*settings, results=tmp_path / "whole").returncode == 0
    names = sorted(path.name for path in whole.checkpoints.iterdir())
    assert names == ["best.pt", "digests.json", "epoch-0000.pt", "epoch-0002.pt", "epoch-0004.pt",
                     "last.pt", "state.pt"]  # fmt: skip
    for name in set(names) - {"state.pt", "digests.json"}:  # which hold wall times, and of them
        assert (run.checkpoints / name).read_bytes() == (whole.checkpoints / name).read_bytes()
    assert run.epoch_checkpoints().keys() == {0, 2, 4}
    assert run.status == "finished"
    assert run.evaluation()["splits"] == whole.evaluation()["splits"]
    log = (run.path / "log.txt").read_text()
    assert log.count("# 20") == 2  # one heading a start
    assert all(f"epoch {epoch}/4" in log for epoch in (1, 2, 3, 4))


def test_killed_before_the_first_epoch_begins_again(tmp_path):
    arguments = ("--run", "a", "--epochs", 1)
    assert train(*arguments, results=tmp_path / "whole") == 0
    assert train(*arguments, results=tmp_path / "cut") == 0
    run, whole = (Run(tmp_path / name / "runs" / "a") for name in ("cut", "whole"))
    for file in (*run.checkpoints.iterdir(), run.path / "summary.txt"):
        file.unlink()
    assert train("--run", "a", "--resume", results=tmp_path / "cut") == 0
    assert run.checkpoint().read_bytes() == whole.checkpoint().read_bytes()
    assert (run.path / "summary.txt").is_file()


@pytest.mark.slow
def test_two_processes_leave_one_run_equal_to_that_of_one(tmp_path):
    arguments = ("--run", "a", "--epochs", 2, "--optimizer", "sam", "--json")
    # After "--", or torchrun takes --run for an abbreviation of options of its own.
    prefix = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--")
    two = launch(*arguments, results=tmp_path / "two", prefix=prefix)
    assert two.returncode == 0, two.stderr
    assert json.loads(two.stdout)["run"] == "a"
    assert launch(*arguments, results=tmp_path / "one").returncode == 0
    run, alone = (Run(tmp_path / name / "runs" / "a") for name in ("two", "one"))
    assert run.status == "finished"
    assert run.facts().processes == 2
    for name in ("train_loss", "val_loss"):
        # float32 sums in another order: 6e-8 each, 14 steps.
        assert run.history()[name] == pytest.approx(alone.history()[name], abs=1e-5)
    assert "2 processes" in (run.path / "log.txt").read_text()
    assert (run.path / "log.txt").read_text().count("epoch 1/2") == 1


def test_what_a_run_holds_before_training(tmp_path, monkeypatch):
    found = {}

    def stop(trainer, folder, **kwargs):
        found["files"] = {path.name for path in folder.parent.iterdir()}
        found["facts"] = Run(folder.parent).facts()
        raise KeyboardInterrupt

    monkeypatch.setattr("isoloss.trainers.loop.train", stop)
    arguments = ["train", "--run", "a", "--model", "mnist-baseline", "--fraction", "0.1"]
    assert cli.main([*arguments, "--results", str(tmp_path)]) == 1
    assert {"config.json", "summary.txt", "samples.png", "samples.pdf", "log.txt"} <= found["files"]
    facts = found["facts"]
    assert facts.parameters == 21_538
    assert facts.receptive_field > 1
    assert facts.intel == {"version": None, "loaded": False}
    summary = (tmp_path / "runs" / "a" / "summary.txt").read_text()
    assert "Total params: 21,538" in summary
    run = Run(tmp_path / "runs" / "a")
    assert run.status == "interrupted"
    assert "python cli.py train --run a --resume" in (run.path / "log.txt").read_text()


class Noisy(nn.Module):
    """Draws random numbers in evaluation mode too, and keeps running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(1), nn.Linear(28 * 28, 10)

    def forward(self, x):
        x = self.norm(x) + 0 * torch.randn(1)
        return self.last(x.flatten(1))


def test_the_summary_disturbs_neither_generator_nor_network(tmp_path):
    data = load_data("digits", fraction=0.1)
    with new_run(tmp_path, "a", {}):
        pass
    run = Run(tmp_path / "runs" / "a")
    model = Noisy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    write_summary(run, model, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert model.norm.training
    assert not model.norm._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "BatchNorm2d (norm)" in (run.path / "summary.txt").read_text()


def test_options_reach_the_training_and_the_stored_configuration(tmp_path):
    assert train("--run", "a", "--epochs", 2, "--optimizer", "asam-elementwise", "--base",
                 "rmsprop", "--m", 16, "--schedule", "halve", "--schedule-arg", "every=1",
                 "--warmup", "2steps", "--clip", 0.5, "--amp", "bf16",
                 results=tmp_path) == 0  # fmt: skip
    run = Run(tmp_path / "runs" / "a")
    expected = {"optimizer": "asam-elementwise", "base": "rmsprop", "rho": 2.0, "m": 16,
                "lr": 1e-3, "momentum": 0.0, "schedule": "halve", "schedule_arg": {"every": 1},
                "warmup": "2steps", "clip": 0.5, "amp": "bf16", "patience": None,
                "augment": None, "intel": False}  # fmt: skip
    assert {key: run.config()[key] for key in expected} == expected
    # Epoch 1 starts at half the rate of the warm-up's two steps, epoch 2 at the first halving.
    assert run.history()["lr"] == pytest.approx([0.5e-3, 0.5e-3])
    # A run's configuration is one to train from: the same weights again.
    again = ("--config", run.path / "config.json", "--run", "b")
    assert train(*again, results=tmp_path) == 0
    twin = Run(tmp_path / "runs" / "b")
    assert twin.checkpoint().read_bytes() == run.checkpoint().read_bytes()


def test_a_toml_file_gives_options_and_the_command_line_wins(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('optimizer = "adamw"\nwarmup = 1\nweight-decay = 0.02\nepochs = 7\n'
                      '[schedule_arg]\nevery = 2\n')  # fmt: skip
    arguments = ("--config", recipe, "--run", "a", "--schedule", "halve", "--epochs", 1)
    assert train(*arguments, results=tmp_path) == 0
    config = Run(tmp_path / "runs" / "a").config()
    assert (config["optimizer"], config["weight_decay"]) == ("adamw", 0.02)
    assert (config["warmup"], config["epochs"]) == ("1", 1)


def test_resuming_compares_settings_and_data(tmp_path, capsys):
    assert train("--run", "a", "--epochs", 1, results=tmp_path) == 0
    run = tmp_path / "runs" / "a"
    cases = {
        ("--schedule-arg", "every=3"): (2, "--schedule-arg {} (now {'every': 3})"),
        ("--weight-decay", "0.1"): (2, "--weight-decay 0.0 (now 0.1)"),
        ("--intel",): (2, "--intel False (now True)"),
    }
    for options, (code, message) in cases.items():
        assert train("--run", "a", "--resume", *options, results=tmp_path) == code
        assert message in capsys.readouterr().err
    assert train("--run", "a", "--resume", "--epochs", 2, results=tmp_path) == 0
    assert Run(run).config()["epochs"] == 2
    assert len(Run(run).history()["epoch"]) == 2
    facts = json.loads((run / "facts.json").read_text())
    facts["data_digest"] = "0" * 64
    (run / "facts.json").write_text(json.dumps(facts))
    assert train("--run", "a", "--resume", "--epochs", 3, results=tmp_path) == 1
    assert "begun on data with digest 000000000000" in capsys.readouterr().err
    assert Run(run).config()["epochs"] == 2


def test_a_planned_schedule_refuses_another_length_and_leaves_the_run(tmp_path, capsys):
    assert train("--run", "a", "--epochs", 1, "--schedule", "cosine", results=tmp_path) == 0
    assert train("--run", "a", "--resume", "--epochs", 2, results=tmp_path) == 1
    assert "epochs 1 (now 2)" in capsys.readouterr().err
    assert Run(tmp_path / "runs" / "a").config()["epochs"] == 1
    assert Run(tmp_path / "runs" / "a").status == "finished"


WRONG = {
    "unknown schedule": (("--schedule", "cosin"), "did you mean cosine"),
    "schedule argument": (("--schedule", "halve", "--schedule-arg", "evry=2"), "every"),
    "warm-up": (("--warmup", "soon"), "warmup in epochs, as 3, or in steps"),
    "precision": (("--amp", "fp16"), "amp among bf16, got 'fp16'"),
    "m of sgd": (("--optimizer", "sgd", "--m", "4"), "sgd takes no m"),
    "augmentation": (("--augment", "afine"), "did you mean affine"),
    "clip": (("--clip", "-1"), "clip above 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_said_before_anything_is_written(tmp_path, capsys, case):
    options, message = WRONG[case]
    assert train("--run", "a", *options, results=tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert 1 <= len(error.strip().splitlines()) <= 3
    assert not (tmp_path / "runs").exists()


def test_early_stopping_is_said_and_stored(tmp_path):
    options = TrainOptions(
        run="a", fraction=0.15, epochs=50, lr=1.5, patience=2, batch_size=32, model="fashion-cnn"
    )
    run = train_run(options, results=tmp_path, device="cpu", figures=False)
    manifest = run.manifest()
    assert manifest["stopped_early"]
    assert manifest["epochs"] == manifest["best_epoch"] + 2 == len(run.history()["epoch"])
    assert "stopped after epoch" in (run.path / "log.txt").read_text()


def test_the_training_figure_says_how_it_ended(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "isoloss.experiments.drawing.draw_training", lambda run: seen.append(run.status) or []
    )
    arguments = ["train", "--run", "a", "--fraction", "0.1", "--epochs", "1"]
    assert cli.main([*arguments, "--results", str(tmp_path)]) == 0
    assert seen == ["finished"]


def test_a_run_of_several_sources_has_a_name_by_default(tmp_path):
    file = tmp_path / "my data.py"
    file.write_text(
        "import torch\n"
        "def make(data_dir):\n"
        "    x = torch.randn(40, 1, 8, 8)\n"
        "    y = torch.arange(40) % 2\n"
        "    return {'train': (x, y), 'test': (x, y)}\n"
    )
    spec = f"{file}:make"
    arguments = ("--dataset", spec, "--model", "classifier", "--epochs", 1, "--fraction", "1")
    code = cli.main(["train", *map(str, arguments), "--no-figures", "--results", str(tmp_path)])
    names = [path.name for path in (tmp_path / "runs").iterdir()] if code == 0 else code
    assert names == ["my-data.py-make-sgd"]


@pytest.mark.parametrize(
    "line",
    ['epochs = "three"', 'lr = "0.1"', "model-arg = 3", "schedule = 3", "batch-size = 64.5",
     "intel = 1", "epochs = 2.5"],
)  # fmt: skip
def test_a_configuration_with_values_of_other_types_is_refused(tmp_path, capsys, line):
    (tmp_path / "a.toml").write_text(line + "\n")
    train = ["train", "--config", str(tmp_path / "a.toml"), "--results", str(tmp_path)]
    assert cli.main(train) == 2
    error = capsys.readouterr().err
    assert line.split(" ")[0].replace("-", "_") in error.replace("-", "_")
    assert len(error.splitlines()) <= 3


@pytest.mark.parametrize(
    ("options", "resolved"),
    [
        ({}, ("fashion-cnn", "sgd", None)),
        ({"optimizer": "sam"}, ("fashion-cnn", "sam", "sgd")),
        ({"dataset": "synthetic-graphs"}, ("gcn", "adam", None)),
        ({"dataset": "synthetic-ecg", "optimizer": "asam"}, ("ecg-attention", "asam", "adam")),
        ({"dataset": "synthetic-ecg", "optimizer": "sam", "base": "sgd"},
         ("ecg-attention", "sam", "sgd")),
        ({"model": "net.py:build"}, ("net.py:build", "sgd", None)),
    ],
)  # fmt: skip
def test_the_data_name_the_network_and_the_network_its_optimizer(options, resolved):
    from isoloss.experiments.train_options import TrainOptions
    from isoloss.experiments.training import with_defaults

    found = with_defaults(TrainOptions(**options))
    assert (found.model, found.optimizer, found.base) == resolved


@pytest.mark.parametrize("ended", [KeyboardInterrupt, TrainingDiverged("too high")])
def test_a_finished_run_stays_so_where_no_epoch_comes_of_going_on(tmp_path, monkeypatch, ended):
    assert train("--run", "a", "--epochs", 1, results=tmp_path) == 0
    run = Run(tmp_path / "runs" / "a")
    before = {name: (run.path / name).read_bytes() for name in ("config.json", "run.json")}

    def end(*arguments):
        raise ended

    with monkeypatch.context() as patched:
        patched.setattr("isoloss.trainers.trainer.Trainer.train_epoch", end)
        assert train("--run", "a", "--resume", "--epochs", 2, results=tmp_path) == 1
    assert run.status == "finished"
    assert {name: (run.path / name).read_bytes() for name in before} == before
    assert train("--run", "a", "--resume", "--epochs", 2, results=tmp_path) == 0
    assert len(run.history()["epoch"]) == run.manifest()["epochs"] == 2


@pytest.mark.parametrize("content", ["{}", None])
def test_a_run_without_its_settings_has_a_way_out(tmp_path, capsys, content):
    for name in ("a", "b"):
        assert train("--run", name, "--epochs", 1, results=tmp_path) == 0
    config = tmp_path / "runs" / "a" / "config.json"
    config.unlink()
    if content is not None:
        config.write_text(content)
    capsys.readouterr()
    for way in ([], ["--resume"]):
        assert train("--run", "a", "--epochs", 1, *way, results=tmp_path) == 1
        error = capsys.readouterr().err
        assert "--force" in error
        assert len(error.splitlines()) <= 3
    assert cli.main(["list", "runs", "--results", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["name", "a", "b"]
    assert "finished" in rows[2]
    assert train("--run", "a", "--epochs", 1, "--force", results=tmp_path) == 0
    assert Run(tmp_path / "runs" / "a").status == "finished"


def test_a_training_that_explodes_keeps_the_last_good_epoch(tmp_path, capsys):
    """The loss is 2.3 at first; the second step, at a learning rate of 1e9, finds 1e27."""
    line = ("--run", "a", "--lr", "1e9", "--epochs", 3, "--fraction", 0.1, "--no-figures")
    assert train(*line, results=tmp_path) == 1
    said = capsys.readouterr().err
    assert "at epoch 1, step 2 of " in said
    assert "1e+09 times the first, 2.3" in said
    assert "a lower --lr; the checkpoints hold the last finished epoch" in said
    run = Run(tmp_path / "runs" / "a")
    assert run.status == "diverged"
    assert "epoch 1, step 2 of" in run.manifest()["reason"]
    kept = load_weights(run.checkpoint())
    assert all(bool(t.isfinite().all()) for t in kept.values())
    assert train("--run", "a", "--resume", results=tmp_path) == 1
    said = capsys.readouterr().err
    assert "warning: training diverged: loss " in said
    assert "train a anew with a lower learning rate (lr)" in said
    assert run.status == "diverged"
