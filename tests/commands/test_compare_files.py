"""Files of weights, and runs that nothing was measured of, compared by one command."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from torch import nn

from isoloss import cli
from isoloss.experiments.measuring import Named, measure_all, name_all
from isoloss.experiments.options import OptionError
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.settings import Around, ComparisonSettings, SpectrumSettings
from isoloss.records.runs import Run
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import journal_path, read_surface

NET = """
from torch import nn
def build(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""
# As little as makes all parts.
QUICK = (
    "--x=-1:1:3", "--y=-1:1:3", "--samples", "40", "--max-products", "60", "--trace-budget", "4",
    "--probes", "1", "--steps", "3",
)  # fmt: skip
KINDS = ("surface-2d.h5", "hessian.h5", "evaluation.json")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two files of one name, as trainings elsewhere leave them, and the network's source."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "net.py").write_text(NET)
    for seed, name in enumerate(("sgd", "sam")):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        (folder / name).mkdir()
        torch.save(model.state_dict(), folder / name / "last.pt")
    return folder


@pytest.fixture
def compare(weights, tmp_path, capsys):
    """Run `compare` on some names, and return exit code, output and errors."""

    def run(*names, data=True, options=QUICK):
        what = ("--model", f"{weights / 'net.py'}:build", "--dataset", "digits",
                "--dataset-arg", "size=8") if data else ()  # fmt: skip
        argv = ("compare", *names, *what, *options, "--results", tmp_path)
        capsys.readouterr()
        code = cli.main([*map(str, argv)])
        return code, *capsys.readouterr()

    run.sgd, run.sam = weights / "sgd" / "last.pt", weights / "sam" / "last.pt"
    run.runs = tmp_path / "runs"
    return run


@pytest.fixture
def refuse_computing(monkeypatch):
    from isoloss.experiments import scoring
    from isoloss.hessian.operators.hessian import HessianOperator
    from isoloss.landscape.surface import Surface

    def refuse(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(HessianOperator, "matvec", refuse)
    monkeypatch.setattr(scoring, "write_evaluation", refuse)
    evaluate_at = Surface.evaluate_at

    def at_the_weights_only(self, *coordinates, **rest):  # which tells whether the code changed
        assert not any(coordinates), "computed again"
        return evaluate_at(self, *coordinates, **rest)

    monkeypatch.setattr(Surface, "evaluate_at", at_the_weights_only)


def test_files_are_imported_evaluated_measured_and_drawn(compare, tmp_path):
    code, out, err = compare(compare.sgd, compare.sam, options=(*QUICK, "--json"))
    assert code == 0, err
    printed = json.loads(out)
    assert [row["run"] for row in printed["runs"]] == ["sgd-last", "sam-last"]
    for row in printed["runs"]:
        run = Run(compare.runs / row["run"])
        surface, spectrum = (read_surface(run.path / KINDS[0]), read_spectrum(run.path / KINDS[1]))
        assert surface.done.shape == (3, 3)
        assert surface.done.all()
        assert surface.settings["samples"] == {"train": 40}
        assert row["lambda_max"] == spectrum.eigenpairs.eigenvalues[0]
        assert row["accuracy"] == run.evaluation()["splits"]["test"]["accuracy"]
        assert run.facts().imported_from is not None
    folder = tmp_path / "comparisons" / "sgd-last_sam-last"
    assert (folder / "comparison.png").stat().st_size > 1000


@pytest.mark.slow
def test_what_is_there_is_not_measured_again(compare, request):
    assert compare(compare.sgd, compare.sam)[0] == 0
    kept = {p: p.read_bytes() for p in compare.runs.rglob("*") if p.name in KINDS}
    assert len(kept) == 6
    request.getfixturevalue("refuse_computing")
    code, out, err = compare(compare.sgd, compare.sam)
    assert code == 0, err
    assert "as run" not in out
    assert {p: p.read_bytes() for p in kept} == kept
    # A run that one of them became, and a file; the run of one elsewhere is another.
    code, _, err = compare("sgd-last", f"sam-last={compare.sam}")
    assert code == 0, err


@pytest.mark.slow
def test_an_interrupted_measurement_goes_on(compare, monkeypatch):
    from isoloss.landscape.surface import Surface

    evaluate_at, left = Surface.evaluate_at, [5]

    def interrupted(self, *coordinates, **rest):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return evaluate_at(self, *coordinates, **rest)

    monkeypatch.setattr(Surface, "evaluate_at", interrupted)
    code, _, err = compare(compare.sgd, compare.sam)
    assert code == 1
    assert "the same command goes on from there" in err
    assert journal_path(compare.runs / "sgd-last" / "surface-2d.h5").exists()
    assert (compare.runs / "sam-last").is_dir(), "files are imported before anything is measured"
    monkeypatch.undo()
    code, out, _ = compare(compare.sgd, compare.sam)
    assert code == 0
    assert "going on after 5 of 10 points" in out


@pytest.mark.slow
def test_other_options_are_refused_and_measured_in_place_when_asked(compare):
    assert compare(compare.sgd, compare.sam)[0] == 0
    other = ("--samples", "60")
    path = compare.runs / "sgd-last" / "surface-2d.h5"
    before = path.read_bytes()
    options = [*QUICK[:2], *other, *QUICK[4:]]
    code, _, err = compare(compare.sgd, compare.sam, options=options)
    assert code == 1
    assert "samples.train (stored 40, now 60)" in err
    assert "--again" in err
    assert len(err.splitlines()) <= 3
    assert path.read_bytes() == before
    code, _, err = compare(compare.sgd, compare.sam, options=(*options, "--again"))
    assert code == 0, err
    assert read_surface(path).settings["samples"] == {"train": 60}


def test_runs_without_measurements_are_measured_when_asked(compare):
    assert compare(compare.sgd, compare.sam)[0] == 0
    for path in compare.runs.rglob("*"):
        if path.name in KINDS:
            path.unlink()
    runs = ("sgd-last", "sam-last")
    code, _, err = compare(*runs, data=False, options=())
    assert code == 1
    assert "python cli.py compare sgd-last sam-last --measure" in err
    code, out, err = compare("--measure", data=False)  # the newest two, which are these
    assert code == 0, err
    assert "surface of sgd-last: 650 parameters, 40 train samples, 9 points" in out
    assert all((compare.runs / run / kind).exists() for run in runs for kind in KINDS)


@pytest.mark.slow
def test_a_file_is_named_where_its_own_name_will_not_do(compare):
    shutil.copy(compare.sgd, compare.sgd.parent / "epoch=3 (best).ckpt")
    odd = compare.sgd.parent / "epoch=3 (best).ckpt"
    code, _, err = compare(f"mine={compare.sgd}", odd)
    assert code == 0, err
    assert {path.name for path in compare.runs.iterdir() if path.is_dir()} == {
        "mine", "epoch-3-best",
    }  # fmt: skip
    # Trained on, under the same name: it is not the run that is there.
    torch.save({"1.weight": torch.ones(10, 64), "1.bias": torch.zeros(10)}, odd)
    code, _, err = compare(f"mine={compare.sgd}", odd)
    assert code == 1
    assert "run epoch-3-best exists" in err
    assert "NAME=FILE" in err
    code, _, err = compare(f"mine={compare.sgd}", f"later={odd}")
    assert code == 0, err


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("gone/last.pt",), (), "found no gone/last.pt"),
        (("a=gone.pt",), (), "found no gone.pt"),
        (("{sgd}", "a={sgd}", "a={sam}"), (), "expected each run once"),
        (("a", "b"), ("--samples", "9"), "--samples: says how to measure: give --measure"),
        (("a", "b"), ("--model", "mlp"), "--model: is for files of weights"),
        (("{sgd}", "{sam}"), (), "expected last or best, or a file together with --model"),
        (("{sgd}",), ("--split", "both"), "--split: expected train, val, test, got 'both'"),
        (("{sgd}",), ("--top", "0", "--trace-budget", "0", "--probes", "0"), "nothing to compute"),
    ],
)
def test_what_cannot_be_is_a_matter_of_usage(compare, names, options, message):
    given = [name.format(sgd=compare.sgd, sam=compare.sam) for name in names]
    code, _, err = compare(*given, data=False, options=options)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) <= 3
    assert not compare.runs.exists()


def test_a_file_that_does_not_fit_stops_before_anything_is_measured(compare, tmp_path):
    torch.save({"1.weight": torch.zeros(3, 3)}, tmp_path / "bad.pt")
    code, _, err = compare(compare.sgd, tmp_path / "bad.pt")
    assert code == 1
    assert "bad.pt" in err
    assert not (compare.runs / "last" / "surface-2d.h5").exists()


def test_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/net.pt", "b/net.pt", "c.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = name_all(["a/net.pt", "b/net.pt", "c.safetensors", "x=a/net.pt", "run"])
    assert [one.run for one in found] == ["a-net", "b-net", "c", "x", "run"]
    assert [one.file is None for one in found] == [False, False, False, False, True]
    os.chdir("a")
    assert [one.run for one in name_all(["net.pt", "../b/net.pt"])] == ["a-net", "b-net"]


def test_each_part_keeps_its_own_declaration():
    settings = ComparisonSettings(top=3, y=None)
    assert settings.top == 3
    assert ComparisonSettings(y="none").y is None
    assert SpectrumSettings().top != ComparisonSettings().top, "quick where nothing is given"
    for given in ({"also": ("grad_norm",)}, {"layers": True}, {"metric": ("a.py:f",)}):
        with pytest.raises(OptionError, match="does not show it"):
            ComparisonSettings(**given)


def test_what_the_first_takes_is_said_for_all(compare, weights, tmp_path, monkeypatch):
    from isoloss.experiments import reporting

    monkeypatch.setattr(reporting, "_LONG", 0.0)  # everything is long
    monkeypatch.setattr(reporting, "_SECONDS", 0.0)

    said = []

    class Heard(Reporter):
        def expect(self, unit, text):
            said.append((unit, text))

    around = Around(model=f"{weights / 'net.py'}:build", dataset="digits",
                    dataset_arg={"size": 8}, results=tmp_path)  # fmt: skip
    settings = ComparisonSettings(
        x="-1:1:3", y=None, samples=40, trace_budget=4, probes=1, steps=3, max_products=60
    )
    files = [Named("a", compare.sgd), Named("b", compare.sam)]
    measure_all(files, settings, around, Heard())
    assert [unit for unit, _ in said] == ["points", "products"]
    assert all("as much for each of 2 networks" in text for _, text in said)
    # 36 for the largest and the smallest, 4 and 10 for the traces, 3 for the density.
    assert ": 53 products of " in said[1][1]
