"""What an evaluation leaves in a run's folder, for images, series, graphs and regressions."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from isoloss import cli
from isoloss.datasets import Data, DataInfo, Normalisation, TensorSplit, load_data
from isoloss.evaluation.networks import evaluate_split
from isoloss.experiments import drawing, sample_drawing, scoring
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.sample_drawing import draw_samples
from isoloss.experiments.trained import splits_of
from isoloss.records.runs import find_run, new_run
from isoloss.trainers.losses import build_loss

LOSS = build_loss("cross-entropy", {})
NAMES = ("Ankle boot", "a name that is much too long", "Q")
TABLES = {"evaluation.json", "report.txt", "predictions.csv"}
CLASSIFIER = TABLES | {"roc.csv", "confusion.png", "roc.png"}


def write_evaluation(run, model, loss, data, reporter, splits=("train", "val", "test"), **options):
    chosen = {name: split for name, split in splits_of(data).items() if name in splits}
    return scoring.write_evaluation(run, model, loss, chosen, data.info, reporter, **options)


class Recorder(Reporter):
    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def make_data(shape, count=60, normalisation=None, regression=False, **facts):
    generator = torch.Generator().manual_seed(0)
    # Class Q has no sample.
    y = torch.arange(count) % 2
    x = torch.rand(count, *shape, generator=generator) + 0.1 * y.view(-1, *[1] * len(shape))
    if regression:
        info = DataInfo(shape, None, (), shape[0], "regression")
        splits = TensorSplit(x, x.flatten(1).sum(1, keepdim=True))
    else:
        info = DataInfo(shape, 3, NAMES, shape[0], normalisation=normalisation, **facts)
        splits = TensorSplit(x if normalisation is None else normalisation.apply(x), y)
    train, test = splits.subset(range(40)), splits.subset(range(40, count))
    return Data(train, None, test, info, {}), x


def linear(shape, classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))


def files(run):
    return {path.name for path in run.path.iterdir() if path.suffix in (".json", ".txt", ".csv",
            ".png")} - {"config.json", "facts.json", "run.json"}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    with new_run(tmp_path, "a", {"label": "Run A"}):
        pass
    return find_run(tmp_path, "a")


@pytest.fixture
def blank(monkeypatch):
    """Figures are drawn, and written as empty files: rendering takes most of a test."""

    def save(figure, stem):
        paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf")]
        for path in paths:
            path.touch()
        return paths

    for module in (drawing, sample_drawing):
        monkeypatch.setattr(module, "save_figure", save)


def test_images(run, monkeypatch):
    shape = (1, 6, 6)
    scale = Normalisation((0.3,), (0.5,), "stated")
    data, raw = make_data(shape, normalisation=scale, class_groups=(NAMES[:2],), notes=("A note.",))
    drawn = []
    draw = sample_drawing.samples_figure

    def capture(samples, titles, **texts):
        drawn.append((samples, titles, texts))
        return draw(samples, titles, **texts)

    monkeypatch.setattr(sample_drawing, "samples_figure", capture)
    model, console = linear(shape), Recorder()
    evaluation = write_evaluation(run, model, LOSS, data, console, facts={"loss": "x"})
    assert files(run) == CLASSIFIER | {"predictions.png", "misclassified.png"}
    assert console.lines[-1].startswith("wrote evaluation.json, report.txt, predictions.csv, roc")
    stored = run.evaluation()
    assert stored["loss"] == "x"
    assert set(stored["splits"]) == {"train", "test"}
    scores = stored["splits"]["test"]

    logits = model(data.test.inputs).detach()
    guesses, targets = logits.argmax(1), data.test.targets
    assert scores["accuracy"] == (guesses == targets).double().mean().item()
    assert evaluation.splits["test"].accuracy == scores["accuracy"]
    p = logits.double().softmax(1).numpy()
    expected = roc_auc_score(targets == 0, p[:, 0])
    assert scores["classes"][0]["auc"] == pytest.approx(expected, rel=1e-12)
    assert scores["classes"][2]["auc"] is None
    assert scores["groups"][0]["classes"] == list(NAMES[:2])

    report = (run.path / "report.txt").read_text()
    assert report.startswith("Run A, test split\n")
    assert report.endswith("A note.\n")
    assert "over Ankle boot, a name that is much too long (20 samples)" in report
    with open(run.path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["truth"] for row in rows] == [NAMES[k] for k in targets]
    assert [row["guess"] for row in rows] == [NAMES[k] for k in guesses]
    np.testing.assert_allclose([float(r["confidence"]) for r in rows], p.max(1), atol=5e-7)

    first, titles, texts = drawn[0]
    np.testing.assert_allclose(first, scaled(raw[40:].numpy()), atol=1e-6)
    for i, title in enumerate(titles):
        percent = f"{100 * p[i].max():.0f} %"
        assert title == f"{short(NAMES[targets[i]])} →\n{short(NAMES[guesses[i]])} {percent}"
    assert texts["marked"].tolist() == (guesses != targets).tolist()
    assert texts["title"] == f"Run A, test split: the first {len(titles)} of 20 samples"

    samples, titles, texts = drawn[1]
    assert texts["marked"] is None
    wrong = (guesses != targets).nonzero().flatten()
    order = wrong[np.argsort(-p[wrong].max(1), kind="stable")]
    # As they were: normalising and back is exact to float32 rounding.
    np.testing.assert_allclose(samples, scaled(raw[40:][order].numpy()), atol=1e-6)
    truth, guess = NAMES[targets[order[0]]], NAMES[guesses[order[0]]]
    percent = f"{100 * p[order[0]].max():.0f} %"
    assert titles[0] == f"{short(truth)} →\n{short(guess)} {percent}"
    assert texts["title"] == f"Run A, test split: all {len(wrong)} misclassified samples"


def scaled(images):
    """What is beyond [0, 1] is brought into it."""
    return (images - images.min()) / (images.max() - images.min())


def short(name):
    return name if len(name) <= 14 else f"{name[:13]}…"


def test_what_an_earlier_evaluation_left_does_not_stay(run, blank):
    shape = (1, 4, 4)
    data, _ = make_data(shape)
    write_evaluation(run, linear(shape), LOSS, data, Recorder())
    assert "misclassified.png" in files(run)

    class Oracle(nn.Module):
        def forward(self, x):
            truth = {tuple(row.flatten().tolist()): int(y) for row, y in zip(
                data.test.inputs, data.test.targets, strict=True)}  # fmt: skip
            return torch.eye(3)[[truth.get(tuple(row.flatten().tolist()), 0) for row in x]]

    console = Recorder()
    write_evaluation(run, Oracle(), LOSS, data, console)
    assert files(run) == CLASSIFIER | {"predictions.png"}
    assert console.lines[0] == "no figure of misclassified samples: no sample is"
    write_evaluation(run, Oracle(), LOSS, data, console, figures=False)
    assert files(run) == TABLES | {"roc.csv"}
    write_evaluation(run, Oracle(), LOSS, data, console, splits=("train", "val"))
    assert files(run) == {"evaluation.json"}
    assert set(run.evaluation()["splits"]) == {"train"}


def test_series_are_drawn_and_rows_of_a_table_are_not(run, blank):
    drawn = {"predictions.png", "misclassified.png", "samples.png"}
    for shape, pictures in (((20, 1), drawn), ((20,), set())):
        data, _ = make_data(shape)
        for path in run.path.glob("*.p*"):
            path.unlink()
        console = Recorder()
        write_evaluation(run, linear(shape), LOSS, data, console)
        missing = "no figures of predictions: samples are neither images nor series"
        assert (missing in console.lines) == (not pictures)
        draw_samples(run, data.train, data.info)
        assert files(run) == CLASSIFIER | pictures


@pytest.mark.parametrize(("shape", "count"), [((20, 1), 12), ((3, 4, 4), 32)])
def test_samples_of_training_have_the_names_of_their_classes(run, monkeypatch, shape, count):
    data, _ = make_data(shape)
    drawn = []
    monkeypatch.setattr(
        sample_drawing, "samples_figure", lambda *arguments, **texts: drawn.append(arguments)
    )
    monkeypatch.setattr(sample_drawing, "save_figure", lambda *arguments: [])
    draw_samples(run, data.train, data.info)
    samples, titles = drawn[0]
    assert titles == [short(name) for name in NAMES[:2] for _ in range(count // 2)]
    y = data.train.targets
    of_class = [data.train.inputs[y == k][: count // 2] for k in (0, 1)]
    expected = torch.cat(of_class).numpy()
    np.testing.assert_allclose(samples, expected if len(shape) == 2 else scaled(expected))


def test_a_regression_has_its_loss_and_its_predictions(run):
    data, _ = make_data((5,), regression=True)
    model = linear((5,), classes=1)
    write_evaluation(run, model, build_loss("mse", {}), data, Recorder())
    assert files(run) == TABLES
    assert run.evaluation()["splits"]["test"]["accuracy"] is None
    lines = (run.path / "predictions.csv").read_text().splitlines()
    assert lines[0] == "index,truth,guess"
    expected = [0, data.test.targets[0].item(), model(data.test.inputs)[0].item()]
    np.testing.assert_allclose([float(x) for x in lines[1].split(",")], expected, rtol=1e-6)


def test_graphs_are_scored_and_have_no_picture(run, blank):
    pytest.importorskip("torch_geometric")

    class Sum(nn.Module):
        def __init__(self, features):
            super().__init__()
            self.linear = nn.Linear(features, 2)

        def forward(self, x, edge_index, batch):
            total = torch.zeros(int(batch.max()) + 1, x.shape[1]).index_add_(0, batch, x)
            return self.linear(total)

    data = load_data("synthetic-graphs", fraction=0.2)
    torch.manual_seed(0)
    console = Recorder()
    model = Sum(data.info.num_features)
    write_evaluation(run, model, LOSS, data, console)
    assert files(run) == CLASSIFIER
    assert console.lines[0].endswith("samples are neither images nor series")
    assert draw_samples(run, data.train, data.info) == []
    again = evaluate_split(model, LOSS, data.test)
    assert again.accuracy == run.evaluation()["splits"]["test"]["accuracy"]


def test_the_command_scores_a_run_and_weights_from_elsewhere(tmp_path, capsys):
    results = ("--results", str(tmp_path))
    train = ("train", "--run", "a", "--fraction", "0.1", "--epochs", "1", "--model", "classifier")
    assert cli.main([*train, *results, "--no-figures"]) == 0
    before = json.loads((tmp_path / "runs/a/evaluation.json").read_text())
    assert set(before["splits"]) == {"train", "val", "test"}
    assert (tmp_path / "runs/a/report.txt").is_file()
    capsys.readouterr()
    assert cli.main(["evaluate", "a", *results, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    after = json.loads((tmp_path / "runs/a/evaluation.json").read_text())
    assert printed == {"run": "a", **after}
    assert after["splits"]["test"] == before["splits"]["test"]
    assert after["loss"] == before["loss"] == {
        "spec": "cross-entropy", "arguments": {}, "sha256": None,
    }  # fmt: skip
    assert (tmp_path / "runs/a/misclassified.png").is_file()
    weights = tmp_path / "runs/a/checkpoints/last.pt"
    foreign = ("--checkpoint", str(weights), "--model", "classifier", "--dataset", "digits")
    assert cli.main(["evaluate", "b", *foreign, *results, "--no-figures"]) == 0
    out = capsys.readouterr().out
    assert "macro average" in out
    imported = json.loads((tmp_path / "runs/b/evaluation.json").read_text())
    assert imported["splits"]["test"] == before["splits"]["test"]


def test_weights_of_an_epoch_are_named_by_its_number(tmp_path, capsys):
    results = ("--results", str(tmp_path), "--no-figures")
    train = ("train", "--run", "a", "--fraction", "0.1", "--epochs", "2", "--model", "classifier")
    assert cli.main([*train, "--checkpoint-every", "1", *results]) == 0
    losses = []
    for which in ("epoch-1", "epoch-0001", "epoch-2", "last"):
        assert cli.main(["evaluate", "a", "--checkpoint", which, *results]) == 0
        stored = json.loads((tmp_path / "runs/a/evaluation.json").read_text())
        losses.append(stored["splits"]["test"]["loss"])
    assert losses[0] == losses[1] != losses[2] == losses[3]
    capsys.readouterr()
    assert cli.main(["evaluate", "a", "--checkpoint", "epoch-7", *results]) == 1
    assert "no checkpoint epoch-0007.pt" in capsys.readouterr().err
