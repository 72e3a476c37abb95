"""The benchmarks run from the root of the repository; what they find is not judged here."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

HOUSE = Path(__file__).resolve().parent.parent


def benchmarks(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=HOUSE, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def module(monkeypatch):
    """Modules of the benchmarks by name, from this repository."""
    monkeypatch.syspath_prepend(str(HOUSE))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_they_are_listed():
    done = benchmarks()
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert listed == {f.parent.name for f in (HOUSE / "benchmarks").glob("[a-z]*/__init__.py")}
    assert "expected a benchmark among" in benchmarks("none-of-them").stderr


@pytest.mark.slow
def test_coverage_prints_a_table_and_writes_its_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOLOSS_DATA", str(tmp_path))  # without heartbeats
    file = tmp_path / "coverage.json"
    # Five spectra, three methods, two stops; accuracies, areas, losses, tests.
    counts = {"traces": 5 * 3 * 2, "losses": 3, "scores": 2 * 2 + 2 * 5 + 2 + 3 * 3 + 3}
    done = benchmarks(
        "coverage", "--only", ",".join(counts), "--repeats", "2", "--out", str(file)
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    verdicts = ("holds", "falls short", "(holds)", "(falls short)", "skipped")
    lines = [line for line in done.stdout.splitlines() if line.endswith(verdicts)]
    stored = json.loads(file.read_text())
    assert {part: len(stored[part]["rows"]) for part in stored} == counts
    rows = [row for part in stored.values() for row in part["rows"]]
    assert len(lines) == len(rows)
    (skipped,) = (row for row in rows if not row["repeats"])
    assert skipped["case"] == "MIT-BIH, inter-patient"
    assert "ISOLOSS_DATA" in skipped["note"]
    assert all(
        0.01 < row["ratio"] < 100 for row in rows if row["kind"] == "error" and row["repeats"]
    )
    assert "expected parts among" in benchmarks("coverage", "--only", "none").stderr


@pytest.mark.slow
def test_times_and_errors_of_products_are_appended(tmp_path, monkeypatch):
    monkeypatch.delenv("ISOLOSS_DATA", raising=False)  # on digits, which are small
    file = tmp_path / "hessian.json"
    file.write_text("[{}]")
    done = benchmarks(
        "hessian", "--only", "products,density", "--images", "30", "--density-images", "30",
        "--rounds", "2", "--threads", "1", "--out", str(file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "30 images of scikit-learn's digits" in done.stdout
    earlier, run = json.loads(file.read_text())
    assert earlier == {}
    *products, kept, anew = run["rows"]
    assert [(row["kind"].split(":")[0], row["contender"]) for row in products] == [
        (kind, contender)
        for kind in ("hessian", "ggn", "empirical-fisher")
        for contender in ("isoloss", "isoloss_recompute")
    ]
    # float32 products of a small network against its definition in float64.
    assert all(0 < row["error"] < 1e-5 and row["first"] > 0 for row in products)
    assert all(row["ratio"] == row["cpu"] == [1, 1, 1] for row in products[::2])
    # The largest node of 100 Lanczos steps is the largest eigenvalue, to float32.
    assert kept["error"] < 1e-4
    assert anew["error"] < 1e-4
    assert (kept["products"], anew["products"]) == (100, 100)


@pytest.mark.slow
def test_points_memory_and_commands_are_appended(tmp_path, monkeypatch):
    monkeypatch.delenv("ISOLOSS_DATA", raising=False)  # on digits, which are small
    file = tmp_path / "surface.json"
    done = benchmarks(
        "surface", "--images", "30", "--rounds", "1", "--threads", "1", "--side", "2",
        "--contenders", "isoloss, not compiled/loss-landscape/loop, by trial", "--no-compile",
        "--peers", "--out", str(file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(file.read_text())
    assert [row["contender"] for row in run["points"]] == [
        "isoloss", "isoloss, not compiled", "loop, by trial", "loss-landscape",
    ]  # fmt: skip
    # float32 losses of a small network against float64; images through 256 grey levels and back.
    assert all(0 <= row["error"] < 1e-5 for row in run["points"])
    assert run["points"][0]["ratio"] == [1, 1, 1]
    assert run["memory"]["rise"] > 0
    assert set(run["commands"]) == {"isoloss", "loss-landscape"}
    assert all(seconds > 0 for seconds in run["small"].values())


@pytest.mark.slow
def test_points_of_other_code_are_those_of_the_plane(module, monkeypatch):
    monkeypatch.delenv("ISOLOSS_DATA", raising=False)
    plane = module("surface.subject").Plane(images=40, threads=1)
    peers = "surface.peers"
    losses = [
        module(f"{peers}.isoloss").Losses(plane, False),
        module(f"{peers}.loss_landscape").as_run(plane),
        module(f"{peers}.loss_landscape").of_tensors(plane),
    ]
    for at in (module("surface.subject").point(i) for i in range(2)):
        exact = plane.loss_in_double(*at)
        assert [loss(*at) for loss in losses] == pytest.approx([exact] * 3, rel=1e-5)


PEERS = {
    "curvlinops": ("hessian", "ggn", "empirical-fisher"),
    "hessian_eigenthings": ("hessian", "ggn", "empirical-fisher"),
    "pyhessian": ("hessian",),
}


@pytest.mark.parametrize("peer", PEERS)
def test_peers_compute_what_the_references_are(module, monkeypatch, peer):
    pytest.importorskip(peer)
    monkeypatch.delenv("ISOLOSS_DATA", raising=False)
    subject = module("hessian.subject")
    # Two batches of one size: hessian-eigenthings averages batches, not samples.
    monkeypatch.setattr(subject, "BATCH", 10)
    settings = subject.Settings(images=20, threads=1)
    size = sum(p.numel() for p in settings.network().parameters())
    v = subject.vector(size)
    exact = subject.references(settings, v, PEERS[peer])
    products = module(f"hessian.peers.{peer}").products(settings)
    assert set(products) == set(exact)
    for kind, product in products.items():
        error = product(v).detach().double() - exact[kind]
        assert float(error.norm() / exact[kind].norm()) < 1e-5  # float32


@pytest.mark.parametrize("peer", ["curvlinops", "hessian_eigenthings", "pyhessian"])
def test_peers_find_the_largest_eigenvalues(module, monkeypatch, peer):
    pytest.importorskip(peer)
    monkeypatch.delenv("ISOLOSS_DATA", raising=False)
    settings = module("hessian.subject").Settings(images=10, threads=1)
    exact = module("hessian.peers.isoloss").exact_eigenvalues(settings)
    contender = module(f"hessian.peers.{peer}")
    values, products = contender.eigenvalues(settings)
    assert max(values) == pytest.approx(exact[0], rel=1e-2)
    assert 5 * 2 <= products <= 5 * 100
    if hasattr(contender, "density"):
        nodes, products = contender.density(settings)
        assert max(nodes) == pytest.approx(exact[0], rel=1e-2)
        assert products == 100


@pytest.mark.slow
def test_a_peer_that_cannot_run_is_told_of(module, monkeypatch):
    monkeypatch.delenv("ISOLOSS_DATA", raising=False)
    settings = module("hessian.subject").Settings(images=4, threads=1)
    rounds = module("hessian.rounds")
    rows = rounds.of_products(["isoloss", "isoloss_recompute"], settings, 1, ["hessian"], 60)
    assert [row.note for row in rows] == ["", ""]
    (row,) = rounds.of_numbers("eigenvalues", ["isoloss_recompute"], settings, 1, [0.0])
    assert "has none" in row.text()


@pytest.mark.slow
def test_training_takes_the_steps_of_the_loops_by_hand(tmp_path, monkeypatch):
    monkeypatch.delenv("ISOLOSS_DATA", raising=False)
    file = tmp_path / "train.json"
    done = benchmarks(
        "train", "--images", "300", "--rounds", "1", "--threads", "1", "--peers",
        "--out", str(file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(file.read_text())
    names = ["by hand, sgd", "isoloss, sgd", "by hand, sam", "isoloss, sam", "DataLoader, sgd"]
    assert [row["contender"] for row in run["rows"]] == 2 * names
    for row in run["rows"]:
        if row["contender"].startswith("isoloss"):
            # Three steps in float64; in float32 a SAM step enlarges roundings.
            assert row["difference_float64"] < 1e-12
            assert row["difference"] < 1e-2
        else:
            assert row["difference"] is None


def test_coverage_of_networks_and_of_draws_from_their_samples(module):
    sgd = list(itertools.islice(module("coverage.networks").rows(2), 3))
    assert [row.method.split(",")[0] for row in sgd] == ["xtrace", "hutch++", "hutchinson"]
    draws = list(itertools.islice(module("coverage.samples").rows(3), 4))
    assert [row.method for row in draws[:3]] == [
        f"less bias: {x}" for x in ("none", "its own", "mean")
    ]
    # Errors and what is claimed for them are of one size.
    assert all(0.1 < row.ratio < 10 for row in sgd + draws)
    assert all(row.repeats == 3 for row in draws)


def test_errors_of_known_size(module):
    errors = np.random.default_rng(0).normal(size=10_000)
    row = module("coverage.judgement").of_errors("x", "y", errors, np.full(10_000, 0.5))
    # P(|z| < 2 * 0.5), by 10,000 draws to 0.47 %; and P(|z| < 2).
    assert 100 * row.share == pytest.approx(68.27, abs=4 * 0.47)
    assert row.nominal == pytest.approx(0.9545, abs=6e-4)
    assert row.ratio == pytest.approx(0.5, abs=0.02)
    assert (row.by_t, row.verdict) == (None, "falls short")
    # Errors of means of 5 normal values: as often as their t says, and by t as of known width.
    values = np.random.default_rng(1).normal(size=(10_000, 5))
    means, given = values.mean(1), values.std(1, ddof=1) / math.sqrt(5)
    row = module("coverage.judgement").of_errors("x", "y", means, given, freedom=4)
    assert row.share == pytest.approx(row.nominal, abs=4 * 0.0033)
    assert row.nominal == pytest.approx(0.8839, abs=1e-4)
    assert row.by_t == pytest.approx(0.9545, abs=4 * 0.0021)
    assert row.verdict == "holds"


def test_verdicts_are_those_of_the_bound(module):
    judgement = module("coverage.judgement")

    def verdict(hits, repeats=2000, **options):
        return judgement.Row("x", "y", repeats, hits / repeats, 0.95, **options).verdict

    # 0.93 * 2000 - 2.33 sqrt(2000 * 0.93 * 0.07) = 1833.4; 100 + 2.33 sqrt(2000 * 0.05 * 0.95).
    assert (verdict(1834), verdict(1833)) == ("holds", "falls short")
    assert (verdict(122, kind="test"), verdict(123, kind="test")) == ("holds", "falls short")
    assert (verdict(1900, ratio=1.5), verdict(1900, ratio=1.51)) == ("holds", "falls short")
    assert (verdict(1900, by_t=0.9), verdict(1800, by_t=0.95)) == ("falls short", "holds")
    assert judgement.Row("x", "y", 0, 0.0, 0.0).verdict == "skipped"


def test_traces_of_single_samples_are_those_of_their_hessians(module):
    networks, samples = module("coverage.networks"), module("coverage.samples")
    model, split = networks.trained("sam"), networks.digits().subset([3, 700])
    point = torch.nn.utils.parameters_to_vector(model.parameters()).detach().double()
    names, sizes = zip(*((n, w.numel()) for n, w in model.named_parameters()), strict=True)

    def loss(vector, image, target):
        parts = zip(names, vector.split(sizes), model.parameters(), strict=True)
        weights = {name: part.view_as(weight) for name, part, weight in parts}
        return F.cross_entropy(torch.func.functional_call(model, weights, (image,)), target)

    for i, found in enumerate(samples.sample_traces(model, split)):
        one = split.inputs[i : i + 1].double(), split.targets[i : i + 1]
        hessian = torch.func.hessian(lambda vector, one=one: loss(vector, *one))(point)
        assert found == pytest.approx(float(hessian.trace()), rel=1e-10)


@pytest.mark.slow
def test_workers_are_timed_and_simulated(tmp_path):
    file = tmp_path / "scale.json"
    done = benchmarks(
        "scale", "--points", "4", "--rounds", "1", "--largest", "16", "--out", str(file)
    )
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(file.read_text())
    ways = {(row["what"], row["way"]) for row in run["measured"]}
    assert ("speed-up", "two by processes") in ways
    assert ("of what is possible", "processes") in ways
    assert [row["workers"] for row in run["simulated"]] == [1, 4, 16] * 2


def test_simulated_workers_do_what_arithmetic_says(module, monkeypatch):
    simulated = module("scale.simulated")
    for name, value in {
        "MESSAGE": 0.0, "LATENCY": 0.0, "SLOW_SHARE": 0.0, "SPREAD": 0.0, "LIFE": math.inf,
        "POINTS": 400,
    }.items():  # fmt: skip
        monkeypatch.setattr(simulated, name, value)
    one = simulated.simulate("a", lambda left, workers, seconds: 1, 1, 2.0)
    assert (one.seconds, one.efficiency, one.lost, one.again) == (800.0, 1.0, 0, 0.0)
    four = simulated.simulate("a", lambda left, workers, seconds: 1, 4, 2.0)
    assert (four.seconds, four.efficiency) == (200.0, 1.0)
    # Three workers share 400 points: one of them has 134.
    three = simulated.simulate("a", lambda left, workers, seconds: 1, 3, 2.0)
    assert three.seconds == 268.0
    # A driver that needs as long for a message as a worker for a point feeds two of four.
    monkeypatch.setattr(simulated, "MESSAGE", 1.0)
    fed = simulated.simulate("a", lambda left, workers, seconds: 1, 4, 2.0)
    assert fed.seconds == pytest.approx(400.0, rel=0.03)
    monkeypatch.setattr(simulated, "LIFE", 500.0)
    lost = simulated.simulate("a", lambda left, workers, seconds: 1, 4, 2.0)
    assert lost.lost > 0
    assert lost.again == pytest.approx(lost.lost / 400)
