"""The command line end to end on the embedded digits, in small."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isoloss import cli
from isoloss.records.runs import Run
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import journal_path, read_surface

HOUSE = Path(__file__).resolve().parents[2]
GRID = ("--x=-1:1:5", "--y=-1:1:3", "--samples", "60")
CURVATURE = (
    "--samples",
    "60",
    "--top",
    "2",
    "--probes",
    "2",
    "--steps",
    "8",
    "--trace-budget",
    "16",
)


def run_command(*arguments, results):
    return cli.main([*map(str, arguments), "--results", str(results)])


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Two small runs with surface and curvature; copied by what changes them."""
    results = tmp_path_factory.mktemp("results")
    for optimizer in ("sgd", "sam"):
        name = f"digits-{optimizer}"
        train = ("train", "--optimizer", optimizer, "--epochs", 2, "--batch-size", 64)
        assert run_command(*train, results=results) == 0
        assert run_command("surface", name, *GRID, results=results) == 0
        assert run_command("hessian", name, *CURVATURE, "--no-figures", results=results) == 0
    return results


@pytest.fixture
def results(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "results")


def test_classes_are_printed_stored_and_drawn(trained, tmp_path, capsys):
    few = ("--samples", 60, "--top", 3, "--smallest", 0, "--probes", 0, "--trace-budget", 16)
    asked = ("hessian", "digits-sgd", *few, "--classes", "--out", tmp_path / "g.h5")
    assert run_command(*asked, results=trained) == 2
    assert "--classes: expected --operator with ggn" in capsys.readouterr().err
    assert run_command(*asked, "--operator", "ggn", results=trained) == 0
    said = capsys.readouterr().out
    assert "of the trace, by classes: class " in said
    assert (tmp_path / "g-classes.png").is_file()
    data = read_spectrum(tmp_path / "g.h5")
    rows = [line.split() for line in said.splitlines() if "%" in line][-3:]
    for row, value in zip(rows, data.eigenpairs.eigenvalues, strict=True):
        assert float(row[0]) == pytest.approx(value, rel=1e-5)
        assert sum(float(share.rstrip("%")) for share in row[1:]) == pytest.approx(100, abs=0.3)


def test_spectra_of_different_networks_have_panels(trained, tmp_path, capsys):
    files = [trained / "runs" / f"digits-{name}" / "hessian.h5" for name in ("sgd", "sam")]
    out = tmp_path / "both.png"
    assert cli.main(["plot", *map(str, files), "--panels", "--out", str(out)]) == 0
    assert out.is_file()
    assert cli.main(["plot", str(files[0]), "--panels"]) == 2
    assert "--panels: is for several spectra" in capsys.readouterr().err


def test_a_run_describes_itself(trained):
    run = Run(trained / "runs" / "digits-sam")
    config = run.config()
    assert config["optimizer"] == "sam"
    assert config["base"] == "sgd"
    assert run.facts().parameters == 206_922
    assert len(run.history()["train_loss"]) == 2
    assert run.status == "finished"
    test = run.evaluation()["splits"]["test"]
    assert np.sum(test["confusion"]) == test["count"] == 359
    names = {path.name for path in run.path.iterdir()}
    assert {"training.png", "training.pdf", "confusion.png", "surface-2d-contour.png",
            "surface-2d-filled.png", "surface-2d-heatmap.png", "surface-2d-3d.png",
            "surface-2d.json", "hessian.h5", "hessian.json"} <= names  # fmt: skip
    assert not [name for name in names if name.startswith(".") or "journal" in name]


def test_the_surface_at_the_origin_is_the_loss_of_the_checkpoint(results):
    run = results / "runs" / "digits-sgd"
    assert (
        run_command("surface", "digits-sgd", "--x=-1:1:3", "--samples", "all", "--split", "both",
                    "--no-figures", results=results) == 0
    )  # fmt: skip
    data = read_surface(run / "surface-1d.h5")
    splits = Run(run).evaluation()["splits"]
    for split in ("train", "test"):
        for at in (data.origin[f"{split}_loss"], data.values[f"{split}_loss"][1]):
            assert at == pytest.approx(splits[split]["loss"], rel=1e-6)
        assert data.origin[f"{split}_acc"] == pytest.approx(100 * splits[split]["accuracy"])


def test_compare_writes_one_figure_and_one_table(results, capsys):
    assert run_command("compare", "digits-sgd", "digits-sam", "--json", results=results) == 0
    printed = json.loads(capsys.readouterr().out)
    folder = results / "comparisons" / "digits-sgd_digits-sam"
    assert {path.name for path in folder.iterdir()} == {
        "comparison.png", "comparison.pdf", "table.csv", "table.json", "table.md",
    }  # fmt: skip
    for row in printed["runs"]:
        run = results / "runs" / row["run"]
        data = read_spectrum(run / "hessian.h5")
        assert row["lambda_max"] == data.eigenpairs.eigenvalues[0]
        assert row["trace_se"] == data.trace.standard_error
        assert row["accuracy"] == Run(run).evaluation()["splits"]["test"]["accuracy"]


@pytest.mark.slow
def test_runs_are_compared_by_a_setting_of_their_training(results, capsys):
    shutil.copytree(results / "runs" / "digits-sam", results / "runs" / "digits-sam-1")
    path = results / "runs" / "digits-sam-1" / "config.json"
    config = {**json.loads(path.read_text()), "run": "digits-sam-1", "seed": 1, "rho": 0.2}
    path.write_text(json.dumps(config))
    compare = ("compare", "digits-sgd", "digits-sam", "digits-sam-1")
    assert run_command(*compare, "--by", "optimizer", "--json", results=results) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [group["runs"] for group in printed["groups"]] == [
        ["digits-sgd"],
        ["digits-sam", "digits-sam-1"],
    ]
    assert [row["group"] for row in printed["runs"]] == ["digits-sgd", "sam", "sam"]
    assert printed["pairs"] == []
    out = results / "by-rho"
    assert run_command(*compare, "--by", "rho", "--out", out, results=results) == 0
    assert "runs of" not in capsys.readouterr().out
    assert run_command(*compare, "--by", "optimizer", "--out", out, results=results) == 0
    assert "runs of sam differ in rho: 0.05, 0.2" in capsys.readouterr().out
    assert run_command(*compare, "--by", "optimiser", results=results) == 2
    assert "--by: expected a setting of the runs, got 'optimiser'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--seed", "1"), "seed of x"),
        (("--repeat", "2"), "surface repeat: digits-sgd 1, digits-sam 2"),
        (("--norm", "layer"), "normalisation of x"),
        (("--split", "test"), "split"),
        (("--dtype", "float64"), "dtype"),
        (("--loss", "mse"), "loss"),
        (("--samples", "50"), "sample digest"),
        (("--bn", "train"), "batch-norm policy"),
    ],
)
def test_what_was_measured_differently_is_not_compared(results, capsys, options, named):
    other = ("surface", "digits-sam", "--x=-1:1:3", "--y=-1:1:3", "--samples", "60", *options)
    assert run_command(*other, "--force", "--no-figures", results=results) == 0
    capsys.readouterr()
    assert run_command("compare", "digits-sgd", "digits-sam", results=results) == 1
    error = capsys.readouterr().err
    assert named in error
    assert len(error.splitlines()) <= 3
    assert not (results / "comparisons").exists()
    assert run_command("compare", "digits-sgd", "digits-sam", "--force", results=results) == 0
    assert named in capsys.readouterr().out


def test_a_rerun_of_a_finished_file_says_so(results, capsys):
    path = results / "runs" / "digits-sgd" / "surface-2d.h5"
    before = path.read_bytes()
    assert run_command("surface", "digits-sgd", *GRID, results=results) == 0
    assert "is complete" in capsys.readouterr().out
    assert run_command("hessian", "digits-sgd", *CURVATURE, results=results) == 0
    assert "is complete" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert run_command("surface", "digits-sgd", "--x=-1:1:3", "--y=-1:1:3", results=results) == 1
    error = capsys.readouterr().err
    assert "grid.x" in error
    assert "--force" in error
    assert path.read_bytes() == before


@pytest.mark.slow
def test_several_planes_are_drawn_as_their_median_and_range(results, capsys):
    run = results / "runs" / "digits-sgd"
    before = read_surface(run / "surface-2d.h5")
    arguments = ("surface", "digits-sgd", *GRID, "--repeat", "3")
    assert run_command(*arguments, results=results) == 1  # one plane is there
    assert "repeat (stored 1, now 3)" in capsys.readouterr().err
    assert run_command(*arguments, "--force", results=results) == 0
    output = capsys.readouterr().out
    assert "3 planes differ most at x = " in output
    assert (run / "surface-2d-range.png").exists()
    data = read_surface(run / "surface-2d.h5")
    assert data.repeats.done.all()
    each = data.repeats.values["train_loss"]
    summary = json.loads((run / "surface-2d.json").read_text())
    assert (summary["repeat"], summary["points"], summary["points_computed"]) == (3, 45, 46)
    widest = summary["columns"]["train_loss"]["widest"]
    ratio = each.max(axis=0) / each.min(axis=0)
    assert widest["high"] / widest["low"] == ratio.max()
    assert summary["columns"]["train_loss"]["max"] == each.max()
    assert run_command(*arguments, results=results) == 0
    assert "all 45 points are done" in capsys.readouterr().out
    # The first is the plane that was there before.
    np.testing.assert_array_equal(data.values["train_loss"], before.values["train_loss"])
    np.testing.assert_array_equal(each[0], before.values["train_loss"])
    assert run_command("surface", "digits-sam", *GRID, "--repeat", "3", "--force", "--no-figures",
                       results=results) == 0  # fmt: skip
    assert run_command("compare", "digits-sgd", "digits-sam", results=results) == 0


def test_a_finished_stage_of_the_curvature_is_not_computed_again(results, capsys):
    path = results / "runs" / "digits-sgd" / "hessian.h5"
    whole = path.read_bytes()
    data = read_spectrum(path)
    from isoloss.records.spectra import SpectrumData, write_spectrum

    write_spectrum(path, SpectrumData(data.settings, data.eigenpairs))  # as after an interruption
    assert run_command("hessian", "digits-sgd", *CURVATURE, "--no-figures", results=results) == 0
    again = read_spectrum(path)
    assert again.eigenpairs.account == data.eigenpairs.account
    assert again.trace == data.trace
    np.testing.assert_array_equal(again.density.curve, data.density.curve)
    assert path.read_bytes() == whole


def command_process(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(HOUSE / "cli.py"), *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_at_a_random_moment_and_run_again_gives_the_same_bytes(results):
    path = results / "runs" / "digits-sgd" / "killed.h5"
    journal = journal_path(path)

    def surface():
        return command_process(
            "surface", "digits-sgd", "--x=-1:1:9", "--y=-1:1:7", "--samples", "300",
            "--no-figures", "--out", path, "--results", results,
        )  # fmt: skip

    assert surface().wait(120) == 0
    whole = path.read_bytes()
    path.unlink()
    process = surface()
    # Each record is an index, two values and a checksum; the header line comes first.
    stop_at, record = random.SystemRandom().randint(2, 50), 8 + 2 * 8 + 4
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        content = journal.read_bytes() if journal.exists() else b""
        if len(content) - (content.find(b"\n") + 1) >= stop_at * record and b"\n" in content:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait(60)
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    assert journal.exists()
    again = surface()
    output, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert "going on after" in output
    assert path.read_bytes() == whole
    assert not journal.exists()


def test_measurements_of_other_weights_of_the_same_run_are_not_compared(results, capsys):
    runs = results / "runs"
    # As after training on: the weights of the other run, with the surfaces of the old ones.
    for name in ("last.pt", "digests.json"):
        shutil.copy(runs / "digits-sam/checkpoints" / name, runs / "digits-sgd/checkpoints" / name)
    assert run_command("evaluate", "digits-sgd", "--no-figures", results=results) == 0
    capsys.readouterr()
    assert run_command("compare", "digits-sgd", "digits-sam", results=results) == 1
    assert "weights measured of digits-sgd" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("surface", "--x=-1:1:3", "--y=-1:1:3", "--samples", "60", "--no-orthogonal"),
         "orthogonal of y"),
        (("hessian", "--samples", "50", "--top", "1", "--probes", "0", "--trace-budget", "0"),
         "hessian sample digest"),
        (("evaluate", "--loss", "mse"), "loss of the test scores"),
    ],
)  # fmt: skip
def test_pairs_spectra_and_scores_measured_differently_are_not_compared(
    results, capsys, command, named
):
    verb, *options = command
    force = [] if verb == "evaluate" else ["--force"]
    arguments = (verb, "digits-sam", *options, *force, "--no-figures")
    assert run_command(*arguments, results=results) == 0
    capsys.readouterr()
    assert run_command("compare", "digits-sgd", "digits-sam", results=results) == 1
    assert named in capsys.readouterr().err


def test_summaries_that_are_gone_are_made_again(results):
    run = results / "runs" / "digits-sgd"
    for name in ("surface-2d.json", "hessian.json"):
        (run / name).unlink()
    assert run_command("surface", "digits-sgd", *GRID, "--no-figures", results=results) == 0
    assert run_command("hessian", "digits-sgd", *CURVATURE, "--no-figures", results=results) == 0
    assert (run / "surface-2d.json").exists()
    assert (run / "hessian.json").exists()
