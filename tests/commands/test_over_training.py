"""`hessian --epochs`: along a training from the command line, interrupted, continued, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from isoloss import cli
from isoloss.experiments import Subject, over_training
from isoloss.landscape import Problem
from isoloss.records.over_training import read_over_training
from isoloss.records.runs import Run

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"
SMALL = ("--dataset", "digits", "--dataset-arg", "size=8", "--fraction", "0.1", "--model", "mlp",
         "--model-arg", "width=4", "--loss", "mse", "--device", "cpu", "--no-figures")  # fmt: skip
FULL = ("--batch-size", "full", "--momentum", "0", "--lr", "0.4")


def train(results, *arguments, name="a"):
    code = cli.main(["train", "--run", name, *SMALL, *arguments, "--results", str(results)])
    assert code == 0
    return Run(results / "runs" / name)


def hessian(results, *arguments, name="a"):
    return cli.main(
        ["hessian", name, "--device", "cpu", "--results", str(results), *map(str, arguments)]
    )


def contents(file):
    return file.read_bytes(), file.with_suffix(".json").read_bytes()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    schedule = ("--schedule", "halve", "--schedule-arg", "every=2")
    train(folder, *FULL, "--epochs", "4", "--checkpoint-every", "1", *schedule)
    return folder


def test_all_checkpoints_with_thresholds_that_follow_the_schedule(results, tmp_path, capsys):
    out = tmp_path / "c.h5"
    assert hessian(results, "--epochs", "all", "--top", 2, "--out", out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    data = read_over_training(out)
    assert data.column("epoch").tolist() == data.column("step").tolist() == [0, 1, 2, 3, 4]
    # Epochs 1 and 2 at 0.4, epochs 3 and 4 at 0.2: from epoch 2 on, steps leave at 0.2.
    assert data.column("learning_rate").tolist() == [0.4, 0.4, 0.2, 0.2, 0.2]
    assert data.column("threshold").tolist() == pytest.approx([5, 5, 10, 10, 10])
    assert data.column("converged").all()
    assert data.settings["stability"]["for_reference"] == []
    assert data.cold is not None
    bound = data.cold.residuals + data.rows[-1].residuals
    assert (np.abs(data.cold.eigenvalues - data.rows[-1].eigenvalues) <= bound).all()
    assert [row["epoch"] for row in printed["rows"]] == [0, 1, 2, 3, 4]
    assert json.loads(out.with_suffix(".json").read_text())["rows"] == printed["rows"]
    assert {Path(f).name for f in printed["figures"]} == {"c.png", "c.pdf"}
    # The history's loss of a full-batch epoch is that of the weights it starts from.
    history = Run(results / "runs" / "a").history()["train_loss"]
    assert data.column("loss")[:4] == pytest.approx(history, rel=1e-5)
    # The same eigenvalue as at one checkpoint alone.
    last = tmp_path / "last.h5"
    assert hessian(results, "--top", 1, "--probes", 0, "--trace-budget", 0, "--out", last) == 0
    summary = json.loads(last.with_suffix(".json").read_text())
    expected = summary["eigenvalues"][0]["value"]
    assert data.rows[-1].eigenvalues[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("after", [1, 3, 5])
def test_interrupted_and_given_again_makes_the_same_bytes(results, tmp_path, monkeypatch, after):
    file = tmp_path / "c.h5"  # of one name: the command line is stored
    options = ("--epochs", "all", "--top", 2, "--trace-budget", 30, "--no-figures", "--out", file)
    assert hessian(results, *options) == 0
    whole = contents(file)
    assert (read_over_training(file).column("trace_standard_error") >= 0).all()
    file.unlink()
    kept, calls = over_training.OverTrainingExperiment._keep, 0

    def interrupt(self, data):
        nonlocal calls
        kept(self, data)
        calls += 1
        if calls == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(over_training.OverTrainingExperiment, "_keep", interrupt)
        assert hessian(results, *options) == 1
    assert len(read_over_training(file).rows) == after
    assert hessian(results, *options) == 0
    assert contents(file) == whole


def test_a_longer_training_adds_checkpoints_and_others_are_refused(tmp_path, capsys):
    train(tmp_path, *FULL, "--epochs", "2", "--checkpoint-every", "1")
    assert hessian(tmp_path, "--epochs", "all", "--no-figures") == 0
    assert hessian(tmp_path, "--epochs", "all", "--no-figures") == 0
    assert "complete, nothing to do" in capsys.readouterr().out
    train(tmp_path, *FULL, "--epochs", "4", "--checkpoint-every", "1", "--resume")
    assert hessian(tmp_path, "--epochs", "all", "--no-figures") == 0
    file = tmp_path / "runs" / "a" / "hessian-over-training.h5"
    longer = contents(file)
    file.unlink()
    assert hessian(tmp_path, "--epochs", "all", "--no-figures") == 0
    assert contents(file) == longer
    capsys.readouterr()
    for options, what in (
        (("--epochs", "0,2"), "epochs (stored 0, 1, 2, .., 4, now 0, 2)"),
        (("--epochs", "all", "--seed", 1), "seed"),
        (("--epochs", "all", "--operator", "ggn"), "operator"),
    ):
        assert hessian(tmp_path, *options, "--out", file) == 1
        assert what in capsys.readouterr().err
    kept = file.rename(tmp_path / "kept.h5")
    train(tmp_path, *FULL, "--seed", "1", "--epochs", "4", "--checkpoint-every", "1", "--force")
    assert hessian(tmp_path, "--epochs", "all", "--out", kept) == 1
    assert "checkpoint" in capsys.readouterr().err


def test_mini_batches_momentum_and_decay(tmp_path, capsys):
    settings = ("--batch-size", "16", "--weight-decay", "0.01", "--lr", "0.1")
    train(tmp_path, *settings, "--epochs", "2", "--checkpoint-every", "2")
    assert hessian(tmp_path, "--epochs", "::2", "--samples", "50", "--no-figures") == 0
    said = capsys.readouterr().out
    assert "heavy ball: (2 + 2 b) / lr, b = 0.9 (for reference: mini-batches of 16" in said
    assert "of H + 0.01 I" in said
    data = read_over_training(tmp_path / "runs" / "a" / "hessian-over-training.h5")
    assert data.column("step").tolist() == [0, 2 * 9]
    assert data.column("threshold").tolist() == pytest.approx([38, 38])
    reasons = data.settings["stability"]["for_reference"]
    assert reasons == ["mini-batches of 16", "measured on a part of the samples or parameters"]


def test_what_does_not_go_together_is_refused(results, tmp_path, capsys):
    train(tmp_path, *FULL, "--epochs", "1", name="none-kept")
    capsys.readouterr()
    for options, code, what in (
        (("--epochs", "all", "--probes", 3), 2, "--probes"),
        (("--epochs", "all", "--checkpoint", "best"), 2, "--checkpoint"),
        (("--epochs", "9"), 2, "expected some of those kept, 0, 1, 2, 3, 4; got 9"),
        (("--epochs", "all", "--operator", "hessian,ggn"), 2, "--operator"),
        (("--epochs", "all", "--top", 0), 2, "--top"),
    ):
        assert hessian(results, *options) == code
        assert what in capsys.readouterr().err
    assert hessian(tmp_path, "--epochs", "all", name="none-kept") == 1
    assert "checkpoint_every" in capsys.readouterr().err
    assert hessian(results, "--epochs", "all", "--estimate", "--json") == 0
    assert json.loads(capsys.readouterr().out)["products"] > 0


def test_drawn_again_alone_and_together_and_in_python(results, tmp_path, capsys):
    files = [tmp_path / "one.h5", tmp_path / "two.h5"]
    subject = Subject.from_run("a", results=results)
    for file, operator in zip(files, ("hessian", "ggn"), strict=True):
        data = subject.over_training(file, epochs="::2", operator=operator, device="cpu")
        assert data.column("epoch").tolist() == [0, 2, 4]
    assert np.isnan(data.column("threshold")).all()  # one of the Hessian alone
    assert cli.main(["plot", str(files[0]), "--log", "--out", str(tmp_path / "drawn")]) == 0
    assert (tmp_path / "drawn.png").is_file()
    assert cli.main(["plot", *map(str, files)]) == 0
    assert (tmp_path / "one-several.png").is_file()
    assert cli.main(["plot", str(files[0]), "--column", "train_loss"]) == 2
    assert "--column" in capsys.readouterr().err


def test_reproduced(tmp_path, capsys):
    train(tmp_path, *FULL, "--epochs", "1", "--checkpoint-every", "1")
    assert hessian(tmp_path, "--epochs", "all", "--no-figures") == 0
    capsys.readouterr()
    assert cli.main(["reproduce", "a", "--results", str(tmp_path)]) == 0
    assert "hessian-over-training.h5: the same, bit for bit" in capsys.readouterr().out


@pytest.mark.slow
def test_full_batch_gradient_descent_sharpens_up_to_2_over_lr_and_stays_there(tmp_path):
    name = "digits-progressive-sharpening"
    recipe = str(RECIPES / f"{name}.toml")
    train_it = ["train", "--config", recipe, "--results", str(tmp_path), "--device", "cpu"]
    assert cli.main([*train_it, "--no-figures"]) == 0
    assert hessian(tmp_path, "--epochs", "all", name=name) == 0
    data = read_over_training(tmp_path / "runs" / name / "hessian-over-training.h5")
    sharpness, (threshold,) = data.column("eigenvalues")[:, 0], set(data.column("threshold"))
    assert threshold == pytest.approx(2 / 0.8)
    assert sharpness[0] < 0.7 * threshold
    above = sharpness > 0.9 * threshold
    assert above.any()
    # Progressive: it takes many steps, and rises at nearly each checkpoint up to the threshold.
    rise = sharpness[1 : above.argmax() + 1]
    assert len(rise) > 8
    assert (np.diff(rise) > 0).all()
    late = sharpness[2 * len(sharpness) // 3 :]
    assert np.median(late) == pytest.approx(threshold, rel=0.1)
    assert data.rows[-1].loss < data.rows[above.argmax()].loss  # it goes on learning there


def test_a_plan_that_changed_is_noted_and_gone_on_with(results, tmp_path, monkeypatch, capsys):
    roomy, crowded = tmp_path / "roomy.h5", tmp_path / "crowded.h5"
    assert hessian(results, "--epochs", "all", "--no-figures", "--out", roomy) == 0
    most, failed = [10**9], []
    evaluate, measure = Problem._evaluate, over_training.curvature_at

    def short(self, *args, **kwargs):
        if self.plan.micro_batch > most[0]:
            failed.append(self.plan.micro_batch)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(self, *args, **kwargs)

    def measured(*args, index=0, **kwargs):
        most[0] = 50 if index else 10**9  # somebody else takes the memory after the first
        return measure(*args, index=index, **kwargs)

    monkeypatch.setattr(Problem, "_evaluate", short)
    monkeypatch.setattr(over_training, "curvature_at", measured)
    capsys.readouterr()
    assert hessian(results, "--epochs", "all", "--no-figures", "--out", crowded) == 0
    assert "memory ran out: went on with" in capsys.readouterr().err
    assert failed == sorted(set(failed), reverse=True)  # at one checkpoint alone
    one, other = read_over_training(roomy), read_over_training(crowded)
    left = other.settings["plan_after_running_out_of_memory"]
    assert left["micro_batch"] <= 50 < other.settings["plan"]["micro_batch"]
    assert "plan_after_running_out_of_memory" not in one.settings
    np.testing.assert_allclose(other.column("eigenvalues"), one.column("eigenvalues"), rtol=1e-4)
    monkeypatch.undo()
    assert hessian(results, "--epochs", "all", "--no-figures", "--out", crowded) == 0
    assert "complete, nothing to do" in capsys.readouterr().out
