"""`sharpness` from the command line: kept as it comes, continued, marked, drawn."""

from __future__ import annotations

import csv
import json

import pytest

from isoloss import cli
from isoloss.experiments import Subject, sharpness
from isoloss.experiments.sharpness_settings import SharpnessSettings
from isoloss.landscape.sharpness import adaptive_ball, one_step_rise
from isoloss.records.files import FileError
from isoloss.records.sharpness import Measured, SharpnessData, read_sharpness, write_sharpness

SMALL = ("--dataset", "digits", "--dataset-arg", "size=8", "--fraction", "0.1", "--epochs", "1",
         "--model", "mlp", "--model-arg", "width=4", "--model-arg", "activation=relu",
         "--device", "cpu", "--no-figures")  # fmt: skip
FEW = ("--rho", "0.1", "--adaptive-rho", "0.2,0.5", "--starts", "2", "--ascent-steps", "2",
       "--draws", "2", "--m", "20", "--subsets", "3", "--probes", "4", "--trace-budget", "20",
       "--dtype", "float64", "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for seed in ("0", "1"):
        line = ["train", "--run", f"a{seed}", "--seed", seed, *SMALL, "--results", str(folder)]
        assert cli.main(line) == 0
    return folder


def measure(results, *arguments):
    return cli.main(["sharpness", *arguments, *FEW, "--results", str(results)])


def test_two_runs_in_one_table_and_figure(results, tmp_path, capsys):
    assert measure(results, "a0", "a1", "--out", str(tmp_path / "both"), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["runs"]) == ["a0", "a1"]
    data = read_sharpness(tmp_path / "both" / "a0.json")
    # Four measures of three balls, and three of none.
    assert len(data.rows) == 15
    problem = Subject.from_run("a0", results=results).problem(
        "train", None, SharpnessSettings(dtype="float64", device="cpu")
    )
    row = data.find("one step", "adaptive")[1]
    assert row.radius == 0.5
    ball = adaptive_ball(problem.parameters, 0.5)
    assert row.value == pytest.approx(one_step_rise(problem, ball), rel=1e-9)
    assert data.find("worst case", "adaptive")[1].value >= row.value
    with (tmp_path / "both" / "sharpness.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["run"] for line in table] == ["a0"] * 15 + ["a1"] * 15
    marks = {line["ball"]: line["unchanged_by_rescaling"] for line in table if line["ball"]}
    assert marks == {"l2": "no", "adaptive": "yes"}
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        "a0.json", "a1.json", "sharpness.csv", "sharpness.png", "sharpness.pdf",
    }  # fmt: skip


def test_a_run_keeps_its_own(results, capsys):
    file = results / "runs" / "a1" / "sharpness.json"
    assert measure(results, "a1", "--no-figures") == 0
    before = file.read_bytes()
    assert measure(results, "a1", "--no-figures") == 0
    assert "is complete, nothing to do" in capsys.readouterr().out
    assert cli.main(["sharpness", "a1", "--rho", "0.3", "--results", str(results)]) == 1
    assert "differs in" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_an_interrupted_measurement_goes_on(results, tmp_path, monkeypatch):
    subject = Subject.from_run("a1", results=results)
    settings = SharpnessSettings(
        rho="0.1", adaptive_rho="none", starts=1, ascent_steps=1, draws=2, m=0, probes=4,
        dtype="float64", device="cpu",
    )  # fmt: skip
    whole = sharpness.SharpnessExperiment(subject, settings, tmp_path / "whole.json").run()
    assert whole.computed == 6
    average = sharpness.average_rise

    def stop(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(sharpness, "average_rise", stop)
    experiment = sharpness.SharpnessExperiment(subject, settings, tmp_path / "cut.json")
    with pytest.raises(sharpness.ExperimentError, match="2 of 6 measures are kept"):
        experiment.run()
    monkeypatch.setattr(sharpness, "average_rise", average)
    assert experiment.run().computed == 4
    assert (tmp_path / "cut.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_measures_are_marked_by_what_rescaling_does(results, tmp_path):
    subject = Subject.from_run("a0", results=results)
    settings = SharpnessSettings(
        rho="0.1", adaptive_rho="0.3", starts=2, ascent_steps=3, draws=2, m=20, subsets=2,
        probes=40, rescale_check=5.0, dtype="float64", device="cpu",
    )  # fmt: skip
    data = sharpness.SharpnessExperiment(subject, settings, tmp_path / "s.json").run().data
    assert data.rescaling == {"first": "1", "second": "3", "factor": 5.0}
    marks = {(row.measure, row.ball): row.mark for row in data.rows}
    for name in ("one step", "worst case", "average", "m-sharpness"):
        assert marks[name, "l2"] == "no, measured"
        assert marks[name, "adaptive"] == "yes, measured"
    assert marks["lambda_max", ""] == marks["trace", ""] == "no, measured"
    assert marks["relative flatness", ""] == "yes, measured"
    for row in data.rows:  # by theory, too
        assert Measured(row.measure, row.ball, 0.1, 1.0, eta=row.eta).invariant == row.invariant


@pytest.mark.parametrize("text", ["", "a", "0.1,-1", "0.1,,2", "nan", "inf", "0"])
def test_radii_that_are_none(results, text, capsys):
    line = ["sharpness", "a0", f"--rho={text}", "--results", str(results)]
    assert cli.main(line) == 2
    assert "--rho: expected numbers above 0" in capsys.readouterr().err


def test_nothing_asked_for(results, capsys):
    arguments = ("--rho", "none", "--adaptive-rho", "none", "--probes", "0")
    line = ["sharpness", "a0", *arguments, "--results", str(results)]
    assert cli.main(line) == 2
    assert "nothing is asked for" in capsys.readouterr().err


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "s.json"
    write_sharpness(path, SharpnessData({}, (Measured("average", "l2", 0.1, 1.0),)))
    assert read_sharpness(path).rows[0].key == ("average", "l2", 0.1)
    content = json.loads(path.read_text())
    for change in ({"kind": "other"}, {"rows": [1]}, {"rows": [{"measure": 1}]}, {"settings": 3}):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(FileError):
            read_sharpness(path)
