"""Batches of every structure through train, evaluate, surface and hessian, against plain torch.

Each case has a plain evaluation of its own, written as its user would, without a word of ours. A
step of gradient descent, the loss at the origin, a surface (the weights moved by hand along the
stored direction) and the largest eigenvalue (dense, by torch.func) must agree.
"""

from __future__ import annotations

import copy
import csv
import functools

import h5py
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, hessian

from isoloss import cli
from isoloss.experiments.subject import Subject
from isoloss.records.runs import Run
from isoloss.records.surfaces import read_surface

THEIRS = '''
from collections import namedtuple
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Output:
    logits: torch.Tensor
    loss: None = None


class Tagger(nn.Module):
    def __init__(self, classes, each, kind=Output):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 3), nn.Linear(3, classes)
        self.each, self.kind = each, kind

    def forward(self, input_ids, attention_mask=None):
        hidden = self.embedding(input_ids).tanh()
        if not self.each:
            share = attention_mask / attention_mask.sum(1, keepdim=True)
            hidden = (share[..., None] * hidden).sum(1)
        return self.kind(logits=self.head(hidden))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 3), nn.Linear(2, 3), nn.Linear(3, 3)

    def forward(self, x, z):
        return self.head(torch.tanh(self.a(x) + self.b(z)))


class Convolution(nn.Module):
    """Symmetric, each node with itself."""

    def __init__(self, features=5, classes=3):
        super().__init__()
        self.first, self.second = nn.Linear(features, 4), nn.Linear(4, classes)

    def forward(self, x, edge_index):
        def spread(h):
            return h + torch.zeros_like(h).index_add(0, edge_index[1], h[edge_index[0]])

        return self.second(spread(torch.tanh(self.first(spread(x)))))


class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(2, 4)


def sentences(num_classes):
    return Tagger(num_classes, each=False)


def words(num_classes):
    return Tagger(num_classes, each=True, kind=dict)


def two(): return Two()
def convolution(num_features, num_classes): return Convolution(num_features, num_classes)
def line(): return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
def three(): return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
def coder(): return Coder()


def pixels(num_classes):
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, num_classes, 1))


def draws():
    return torch.Generator().manual_seed(0)


def ids():
    return torch.randint(9, (40, 6), generator=draws())


def sentence_rows():
    mask = (torch.arange(6) < torch.arange(40)[:, None] % 6 + 1).long()
    return {"input_ids": ids(), "attention_mask": mask, "labels": ids()[:, 0] % 3}


def whole_dict(data_dir):
    rows = sentence_rows()
    return {name: {k: v[part] for k, v in rows.items()} for name, part in PARTS.items()}


class HuggingFace:
    """Lists of numbers, and tensors once the format is set."""

    def __init__(self, rows, torch_format=False):
        self.rows, self.torch_format = rows, torch_format

    def __len__(self):
        return len(self.rows["labels"])

    def __getitem__(self, i):
        row = {k: v[i] for k, v in self.rows.items()}
        return row if self.torch_format else {k: v.tolist() for k, v in row.items()}

    def with_format(self, kind):
        assert kind == "torch"
        return HuggingFace(self.rows, True)


PARTS = {"train": slice(30), "test": slice(30, 40)}


def hugging_face(data_dir):
    return {k: HuggingFace(v) for k, v in whole_dict(data_dir).items()}


def list_of_dicts(data_dir):
    made = whole_dict(data_dir)
    return {
        k: [{n: c[i].tolist() for n, c in v.items()} for i in range(len(v["labels"]))]
        for k, v in made.items()
    }


def word_dict(data_dir):
    labels = ids() % 4
    labels[ids() % 3 == 0] = -100
    rows = {"input_ids": ids(), "labels": labels}
    return {name: {k: v[part] for k, v in rows.items()} for name, part in PARTS.items()}


def several():
    g = draws()
    x, z = torch.randn(40, 4, generator=g), torch.randn(40, 2, generator=g)
    return x, z, (x[:, 0] + z[:, 0] > 0).long() + (x[:, 1] > 1).long()


def triples(data_dir):
    return {name: tuple(v[part] for v in several()) for name, part in PARTS.items()}


Row = namedtuple("Row", "label x z")


def named(data_dir):
    x, z, y = several()
    return {n: [Row(y[i], x[i], z[i]) for i in range(40)[part]] for n, part in PARTS.items()}


def nested(data_dir):
    x, z, y = several()
    return {name: ((x[part], z[part]), y[part]) for name, part in PARTS.items()}


def nodes(data_dir):
    from torch_geometric.data import Data

    g = draws()
    edges = torch.randint(40, (2, 60), generator=g)
    data = Data(x=torch.randn(40, 5, generator=g), edge_index=torch.cat([edges, edges.flip(0)], 1))
    data.y = torch.arange(40) % 3
    for k, name in enumerate(("train", "val", "test")):
        data[f"{name}_mask"] = torch.arange(40) % 4 == k
    return {"train": data, "test": [data]}


def segmentation(data_dir):
    x = torch.randn(40, 1, 4, 4, generator=draws())
    y = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
    y[:, 0] = -100
    return {name: (x[part], y[part]) for name, part in PARTS.items()}


def numbers(data_dir):
    x, z, _ = several()
    return {name: (x[part], z[part]) for name, part in PARTS.items()}


def shares(data_dir):
    x, z, _ = several()
    return {name: (x[part], z.softmax(1)[part]) for name, part in PARTS.items()}


def some_ignored(data_dir):
    x, z, y = several()
    y[::5] = -100
    return {name: (x[part], y[part]) for name, part in PARTS.items()}


def alone(data_dir):
    return {name: several()[0][part] for name, part in PARTS.items()}


def rows_alone(data_dir):
    from torch.utils.data import TensorDataset
    return {name: TensorDataset(part) for name, part in alone(data_dir).items()}


def squared(model, batch):
    x = batch if torch.is_tensor(batch) else batch[0]
    return (model.decoder(torch.tanh(model.encoder(x))) - x).square().sum(1)


def points(data_dir):
    """With a tensor that belongs to all samples alike."""
    made = alone(data_dir)
    return {k: {"x": v, "edge": torch.ones(2, 4)} for k, v in made.items()}


def with_edge(model, batch):
    return squared(model, batch["x"]) + model.encoder(batch["edge"]).square().mean()


def of_nodes(model, graph):
    logits = model(graph.x, graph.edge_index)
    chosen = graph.sample_index
    return nn.functional.cross_entropy(logits[chosen], graph.y[chosen], reduction="none")
'''
SPACE: dict = {}
exec(THEIRS, SPACE)


def plain_dict(model, whole):
    out = model(input_ids=whole["input_ids"], attention_mask=whole["attention_mask"]).logits
    return F.cross_entropy(out, whole["labels"])


def plain_words(model, whole):
    logits, labels = model(input_ids=whole["input_ids"])["logits"], whole["labels"]
    counted = labels != -100
    return F.cross_entropy(logits[counted], labels[counted])


def plain_two(model, whole):
    x, z, y = whole
    return F.cross_entropy(model(x, z), y)


def plain_nodes(model, data):
    return F.cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask])


def plain_pixels(model, whole):
    x, y = whole
    logits = model(x).permute(0, 2, 3, 1)
    return F.cross_entropy(logits[y >= 0], y[y >= 0])


def plain_mse(model, whole):
    return (model(whole[0]) - whole[1]).square().mean()


def plain_shares(model, whole):
    return -(whole[1] * model(whole[0]).log_softmax(1)).sum(1).mean()


def plain_labels(model, whole):
    counted = whole[1] >= 0
    return F.cross_entropy(model(whole[0][counted]), whole[1][counted])


def plain_closure(name, model, whole):
    return SPACE[name](model, whole).mean()


# model, data set, options, where the plain samples are from, the plain loss, train and test samples
SQUARED = ("--closure", "squared")
CLOSURES = ("squared", "with_edge", "of_nodes")
CASES = {
    "dict": ("sentences", "whole_dict", (), "whole_dict", plain_dict, 30, 10),
    "Hugging Face": ("sentences", "hugging_face", (), "whole_dict", plain_dict, 30, 10),
    "list of dicts": ("sentences", "list_of_dicts", (), "whole_dict", plain_dict, 30, 10),
    "tokens": ("words", "word_dict", (), "word_dict", plain_words, 30, 10),
    "triples": ("two", "triples", (), "triples", plain_two, 30, 10),
    "named tuples": ("two", "named", (), "triples", plain_two, 30, 10),
    "nested": ("two", "nested", (), "triples", plain_two, 30, 10),
    "nodes": ("convolution", "nodes", (), "nodes", plain_nodes, 10, 10),
    "closure of nodes": (
        "convolution",
        "nodes",
        ("--closure", "of_nodes"),
        "nodes",
        plain_nodes,
        10,
        10,
    ),
    "pixels": ("pixels", "segmentation", (), "segmentation", plain_pixels, 30, 10),
    "numbers": ("line", "numbers", ("--loss", "mse"), "numbers", plain_mse, 30, 10),
    "shares": ("line", "shares", ("--loss", "cross-entropy"), "shares", plain_shares, 30, 10),
    "labels": ("three", "some_ignored", (), "some_ignored", plain_labels, 30, 10),
    "alone": ("coder", "alone", SQUARED, "alone", "squared", 30, 10),
    "rows alone": ("coder", "rows_alone", SQUARED, "alone", "squared", 30, 10),
    "shared": ("coder", "points", ("--closure", "with_edge"), "points", "with_edge", 30, 10),
}


def double(part):
    if isinstance(part, dict):
        return {name: double(value) for name, value in part.items()}
    if isinstance(part, tuple):
        return tuple(map(double, part))
    if isinstance(part, torch.Tensor):
        return part.double() if part.is_floating_point() else part
    return copy.copy(part).apply(double)  # a graph


def trained(tmp_path, case, *more):
    """Train, and return the run's results, the network and its plain loss in float64."""
    build, load, options, source, plain, *_ = CASES[case]
    file = tmp_path / "theirs.py"
    file.write_text(THEIRS)
    options = [f"{file}:{o}" if o in CLOSURES else o for o in options]
    command = [
        "train", "--model", f"{file}:{build}", "--dataset", f"{file}:{load}", "--run", "r",
        "--epochs", "1", "--batch-size", "full", "--val-fraction", "0", "--lr", "0.1",
        "--momentum", "0", "--checkpoint-every", "1", "--optimizer", "sgd",
        "--results", str(tmp_path / "results"), *options, *more,
    ]  # fmt: skip
    assert cli.main(command) == 0
    run = Run(tmp_path / "results" / "runs" / "r")
    subject = Subject.from_run("r", results=tmp_path / "results")
    whole = double(SPACE[source](None)["train"])
    if isinstance(plain, str):
        plain = functools.partial(plain_closure, plain)
    return run, subject.model.double(), lambda model: plain(model, whole)


@pytest.mark.parametrize("case", CASES)
def test_commands_agree_with_plain_torch(case, tmp_path):
    figures = [] if case in ("dict", "pixels", "nodes", "alone") else ["--no-figures"]
    run, model, plain = trained(tmp_path, case, *figures)
    results = ["--dtype", "float64", "--results", str(tmp_path / "results")]
    begun = copy.deepcopy(model)
    begun.load_state_dict(torch.load(run.checkpoints / "epoch-0000.pt", weights_only=True))
    plain(begun).backward()
    for last, first in zip(model.parameters(), begun.parameters(), strict=True):
        torch.testing.assert_close(last, first - 0.1 * first.grad, rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = float(plain(model))
    scores = run.evaluation()["splits"]
    assert [scores[name]["count"] for name in ("train", "test")] == [*CASES[case][5:]]
    assert scores["train"]["loss"] == pytest.approx(expected, rel=1e-5)  # in float32
    assert cli.main(["evaluate", "r", "--no-figures", *results[2:]]) == 0
    assert run.evaluation()["splits"] == scores

    assert cli.main(["surface", "r", "--x=-1:1:3", "--no-figures", *results]) == 0
    surface = read_surface(run.path / "surface-1d.h5")
    assert surface.origin["train_loss"] == pytest.approx(expected, abs=1e-6)
    with h5py.File(run.path / "surface-1d.h5") as file:
        steps = [
            torch.from_numpy(file[f"xdirection/{k}"][()]) for k in range(len(file["xdirection"]))
        ]
    for x, found in zip(surface.x, surface.values["train_loss"], strict=True):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, step in zip(moved.parameters(), steps, strict=True):
                parameter += x * step
            assert found == pytest.approx(float(plain(moved)), abs=1e-6)

    assert cli.main(["hessian", "r", "--top", "1", "--smallest", "0", "--trace-budget", "0",
                     "--probes", "0", "--no-figures", *results]) == 0  # fmt: skip
    with h5py.File(run.path / "hessian.h5") as file:
        found = float(file["eigenvalues"][0])
    names, start = zip(*model.named_parameters(), strict=True)
    sizes = [p.numel() for p in start]

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return plain(self.model)

    def loss(flat):
        parts = (v.view_as(p) for v, p in zip(flat.split(sizes), start, strict=True))
        return functional_call(
            Plain(), {f"model.{n}": v for n, v in zip(names, parts, strict=True)}, ()
        )

    dense = hessian(loss)(torch.cat([p.detach().flatten() for p in start]))
    assert found == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-4)


def command(tmp_path, name, *options):
    return cli.main([name, *options, "--no-figures", "--results", str(tmp_path / "results")])


def test_parts_of_a_graph_and_of_dictionaries(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(THEIRS)
    for build, load, counts in (
        # The val_mask is the validation split; of dictionaries a tenth is set aside.
        ("convolution", "nodes", {"train": 5, "val": 5, "test": 10}),
        ("sentences", "whole_dict", {"train": 14, "val": 2, "test": 10}),
    ):
        code = command(
            tmp_path, "train", "--model", f"{file}:{build}", "--dataset", f"{file}:{load}",
            "--run", load, "--fraction", "0.5", "--epochs", "2", "--batch-size", "2",
        )  # fmt: skip
        assert code == 0
        run = Run(tmp_path / "results" / "runs" / load)
        scores = run.evaluation()["splits"]
        assert {name: part["count"] for name, part in scores.items()} == counts
        with open(run.path / "predictions.csv", newline="") as table:
            assert [len(row["truth"]) for row in csv.DictReader(table)] == [1] * 10
        assert command(tmp_path, "surface", load, "--x=-1:1:3", "--samples", "4") == 0
        drawn = read_surface(run.path / "surface-1d.h5").settings["sample"]["train"]
        assert drawn["drawn"] == "proportional"
        assert (drawn["size"], drawn["population"]) == (4, counts["train"])
        few = ("--top", "1", "--trace-budget", "6", "--probes", "1", "--samples", "4")
        assert command(tmp_path, "hessian", load, *few) == 0
    # Balanced: of 10 nodes of three classes, 5 as 2, 2, 1.
    labels = Subject.from_run("nodes", results=tmp_path / "results").split("train").targets
    assert sorted(labels.bincount().tolist()) == [1, 2, 2]


def test_accuracy_of_tokens_and_pixels_leaves_out_what_does_not_count(tmp_path, capsys):
    run, model, _ = trained(tmp_path, "tokens", "--no-figures")
    whole = SPACE["word_dict"](None)["test"]
    with torch.no_grad():
        guesses = model(input_ids=whole["input_ids"])["logits"].argmax(-1)
    counted = whole["labels"] != -100
    expected = (guesses == whole["labels"])[counted].double().mean()
    scores = run.evaluation()["splits"]["test"]
    assert scores["accuracy"] == pytest.approx(float(expected))
    assert scores["classes"] == []
    assert f"accuracy {100 * expected:.2f}" in (run.path / "report.txt").read_text()
    assert f"test accuracy {100 * expected:.2f}" in capsys.readouterr().out
    assert not (run.path / "predictions.csv").exists()


def test_predictions_of_classes_leave_out_what_does_not_count(tmp_path):
    run, *_ = trained(tmp_path, "labels", "--no-figures")
    labels = SPACE["some_ignored"](None)["test"][1]
    with open(run.path / "predictions.csv", newline="") as table:
        truths = [row["truth"] for row in csv.DictReader(table)]
    assert truths == ["" if label < 0 else str(int(label)) for label in labels]
    scores = run.evaluation()["splits"]["test"]
    assert sum(map(sum, scores["confusion"])) == int((labels >= 0).sum())
    assert sum(one["support"] for one in scores["classes"]) == int((labels >= 0).sum())


# Options of `train` beside the files, the exit code, and what the message must name.
REFUSED = {
    "numbers without a loss": ("line", "numbers", (), 2, ["--loss", "mse", "class probabilities"]),
    "nothing to compare with": ("coder", "alone", (), 2, ["--closure", "no targets"]),
    "a dict without labels": ("coder", "points", ("--loss", "mse"), 2, ["--closure", "labels"]),
    "other shapes (seen late)": ("three", "numbers", ("--loss", "mse"), 2, ["y[:, None]"]),
    "squares of ignored labels (seen late)": (
        "three", "some_ignored", ("--loss", "mse"), 2, ["-100", "cross-entropy"]
    ),
    "augmented words": ("words", "word_dict", ("--augment", "affine"), 1, ["images", "leave it"]),
    "augmented masks (seen late)": (
        "pixels", "segmentation", ("--augment", "affine"), 1, ["a target for each", "leave it out"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_a_remedy(case, tmp_path, capsys):
    build, load, options, code, words = REFUSED[case]
    file = tmp_path / "theirs.py"
    file.write_text(THEIRS)
    run = ("--model", f"{file}:{build}", "--dataset", f"{file}:{load}", "--run", "r")
    assert command(tmp_path, "train", *run, "--batch-size", "8", *options) == code
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert len(error.splitlines()) <= 3
    if "(" not in case:  # seen before anything is written
        assert not (tmp_path / "results" / "runs").exists()


def test_weights_from_elsewhere_need_a_loss_for_numbers(tmp_path, capsys):
    file = tmp_path / "theirs.py"
    file.write_text(THEIRS)
    torch.save(SPACE["line"]().state_dict(), tmp_path / "weights.pt")
    given = ["surface", "--checkpoint", str(tmp_path / "weights.pt"), "--model", f"{file}:line",
             "--dataset", f"{file}:numbers", "--x=-1:1:3"]  # fmt: skip
    assert command(tmp_path, *given) == 2
    assert "mse" in capsys.readouterr().err
    assert command(tmp_path, *given, "--loss", "mse") == 0


@pytest.mark.parametrize("case", ["dict", "named tuples", "nodes"])
def test_a_notebook_takes_the_same_data(case):
    build, load, _, source, plain, *counts = CASES[case]
    torch.manual_seed(0)
    model = SPACE[build](**{
        "sentences": {"num_classes": 3}, "convolution": {"num_features": 5, "num_classes": 3}
    }.get(build, {}))  # fmt: skip
    subject = Subject(model, torch.nn.CrossEntropyLoss(), **SPACE[load](None))
    found = subject.problem("train").evaluate()
    assert found.count == counts[0]
    expected = plain(model.double(), double(SPACE[source](None)["train"]))
    assert found.loss == pytest.approx(expected.item(), abs=1e-6)
