"""The command lines of the SAM project, as they stand in its documentation, on small data.

What stands for a path there is a path here; nothing else is changed.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from isoloss import cli
from isoloss.datasets import load_data
from isoloss.experiments.names import spelled
from isoloss.experiments.settings import Selection
from isoloss.experiments.train_options import TrainOptions
from isoloss.experiments.training import with_defaults
from isoloss.models import create_model
from isoloss.records.surfaces import read_surface

SURFACE = (
    "surface --model GCN --dataset Mutagenicity --x=-1:1:20 --y=-1:1:20 --model_file {file} "
    "--dir_type weights --xnorm filter --xignore biasbn --ynorm filter --yignore biasbn --plot "
    "--batch_size=128 --percentage=1 --loss_name smooth_crossentropy"
)
GRAPHS, NODES = 20, 4
RUN = "model_gcn_SAM_rho0.05"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs with the 14 kinds of atoms of Mutagenicity, and weights as the project stores them."""
    folder = tmp_path_factory.mktemp("sam")
    raw = folder / "data" / "Mutagenicity" / "raw"
    raw.mkdir(parents=True)
    edges = [f"{1 + NODES * g + i}, {1 + NODES * g + (i + 1) % NODES}" for g in range(GRAPHS)
             for i in range(NODES)]  # fmt: skip
    nodes = range(GRAPHS * NODES)
    files = {
        "A": edges,
        "graph_indicator": [1 + i // NODES for i in nodes],
        "graph_labels": [g % 2 for g in range(GRAPHS)],
        "node_labels": [i % 14 for i in nodes],
    }
    for name, lines in files.items():
        (raw / f"Mutagenicity_{name}.txt").write_text("\n".join(map(str, lines)) + "\n")
    torch.manual_seed(3)
    network = create_model("GCN", {}, {"num_features": 14, "num_classes": 2})
    # As they begin, weights are so small that either form says about the same of every graph.
    weights = {name: 2 * value for name, value in network.state_dict().items()}
    torch.save({"acc": 0.8, "state_dict": weights}, folder / f"{RUN}.pt")
    return folder


@pytest.fixture
def here(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOLOSS_DATA", str(theirs / "data"))
    return theirs / f"{RUN}.pt"


def origin(file: Path, form: str) -> float:
    """The mean smoothed loss on the default training split, written out."""
    model = create_model("gcn", {"form": form}, {"num_features": 14, "num_classes": 2})
    model.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    data = load_data("tu:Mutagenicity", {}, file.parent / "data", val_fraction=0)
    model.double().eval()
    total = 0.0
    for graph in data.train.graphs:
        p = model(graph.x.double(), graph.edge_index).log_softmax(1)[0].detach()
        q = torch.full_like(p, 0.1).index_fill(0, graph.y, 0.9)  # K = 2
        total += float((q * (q.log() - p)).sum()) / len(data.train)
    return total


def test_its_surface_line_runs_as_it_is_written(here: Path, capsys) -> None:
    assert cli.main(shlex.split(SURFACE.format(file=here))) == 0
    out, err = capsys.readouterr()
    surface = read_surface(Path("results/runs") / RUN / "surface-2d.h5")
    assert surface.done.all()
    assert surface.done.shape == (20, 20)
    # float32 against float64; the other form's loss is further off by far.
    right, wrong = origin(here, "sam-project"), origin(here, "standard")
    assert surface.origin["train_loss"] == pytest.approx(right, rel=1e-5)
    assert abs(right - wrong) > 1e-2 * right
    assert "gcn is taken in its form sam-project" in out
    assert "--model-arg form=standard takes that" in out
    # Nobody knows which of our test graphs these weights were trained on.
    assert "scores may be contaminated" in err
    assert "--dataset-arg split=sam-project" in err
    assert list((Path("results/runs") / RUN).glob("surface-2d*.png"))
    config = json.loads((Path("results/runs") / RUN / "config.json").read_text())
    assert (config["model"], config["model_arg"]) == ("gcn", {"form": "sam-project"})
    assert (config["dataset"], config["loss"]) == ("tu:Mutagenicity", "smooth-crossentropy")


def test_the_other_form_gives_other_numbers_and_the_right_one_is_named(here: Path, capsys) -> None:
    scores = {}
    for name, model in (("ours", "gcn"), ("theirs", "GCN")):
        line = f"evaluate {name} --checkpoint {here} --model {model} --dataset mutagenicity"
        assert cli.main([*shlex.split(line), "--no-figures"]) == 0
        out = capsys.readouterr().out
        form, other = re.findall(r"(?:in its form|--model-arg) (?:form=)?([\w-]+)", out)
        assert (form, other) == (
            ("standard", "sam-project") if name == "ours" else ("sam-project", "standard")
        )
        stored = json.loads((Path("results/runs") / name / "evaluation.json").read_text())
        scores[name] = stored["splits"]["train"]["loss"]
        assert "contaminated" in stored["caveat"]
        assert "contaminated" in (Path("results/runs") / name / "report.txt").read_text()
        assert cli.main(["evaluate", name, "--no-figures"]) == 0
        assert "contaminated" in capsys.readouterr().out.splitlines()[-1]
    assert not np.isclose(scores["ours"], scores["theirs"], rtol=1e-2)


def test_its_own_split_is_beyond_doubt(here: Path, capsys) -> None:
    line = f"evaluate --checkpoint {here} --model GCN --dataset Mutagenicity --no-figures"
    assert cli.main([*shlex.split(line), "--dataset-arg", "split=sam-project", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "contaminated" not in out + err
    splits = json.loads(out)["splits"]
    assert (splits["train"]["count"], splits["test"]["count"]) == (14, 6)


def test_weights_of_another_form_alone_are_refused_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = {"depth": 10, "width": 1}
    network = create_model("wide-resnet", {**arguments, "form": "sam-project"})
    torch.save(network.state_dict(), "w.pt")
    line = "evaluate --checkpoint w.pt --model WideResNet --dataset synthetic-images"
    line += " --dataset-arg channels=3 --dataset-arg size=8 --dataset-arg classes=10"
    given = [*shlex.split(line), "--model-arg", "depth=10", "--model-arg", "width=1"]
    assert cli.main([*given, "--no-figures"]) == 1
    error = capsys.readouterr().err
    assert "got such as fit its form sam-project alone" in error
    assert "--model-arg form=sam-project" in error
    assert not list(Path("results").glob("runs/*/config.json"))
    assert cli.main([*given, "--no-figures", "--model-arg", "form=sam-project"]) == 0


@pytest.mark.parametrize(("share", "samples"), [("1", 14), ("0.5", 7), ("0.001", 1)])
def test_a_percentage_is_a_share_of_the_split(here: Path, share: str, samples: int, capsys) -> None:
    line = SURFACE.format(file=here).replace(":1:20", ":1:2").replace("--percentage=1", "")
    assert cli.main([*shlex.split(line), f"--percentage={share}", "--no-figures"]) == 0
    assert f", {samples} train samples" in capsys.readouterr().out


def test_a_percentage_beyond_all_is_refused(here: Path, capsys) -> None:
    assert cli.main([*shlex.split(SURFACE.format(file=here)), "--percentage=20"]) == 2
    assert "expected above 0, up to 1, got 20" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["train --optimizer SAM", "train --optimizer=SAM --rho=0.05"])
def test_its_training_lines_run(tmp_path, monkeypatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    # On the default digits; shorter, as everything else is the default's.
    assert cli.main([*shlex.split(line), "--fraction", "0.1", "--epochs", "1", "--no-figures"]) == 0
    (config,) = Path("results/runs").glob("*/config.json")
    stored = json.loads(config.read_text())
    assert (stored["optimizer"], stored["base"], stored["rho"]) == ("sam", "sgd", 0.05)
    # Under any spelling it is the same run that goes on.
    again = ["train", "--resume", "--run", config.parent.name, "--optimizer", "Sam"]
    assert cli.main([*again, "--no-figures"]) == 0


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"model": "WideResNet", "dataset": "CIFAR10", "optimizer": "SGD"}, "wide-resnet"),
        ({"model": "Transformer", "dataset": "MitBih", "optimizer": "SAM"}, "ecg-attention"),
        ({"model": "GCN", "dataset": "Mutagenicity", "optimizer": "ADAM"}, "gcn"),
        ({"dataset": "Mutagenicity", "base": "ADAM", "optimizer": "ASAM"}, "gcn"),
    ],
)
def test_its_names_are_known(asked: dict[str, str], found: str) -> None:
    options = with_defaults(TrainOptions(**asked, loss="smooth_crossentropy", schedule="STEP"))
    assert options.model == found
    assert options.dataset in ("cifar10", "mitbih", "tu:Mutagenicity")
    assert options.optimizer == asked["optimizer"].lower()
    assert (options.loss, options.schedule) == ("smooth-crossentropy", "step")
    assert options.model_arg == ({"form": "sam-project"} if asked.get("model") == "GCN" else {})


def test_arguments_that_are_given_win_over_those_of_a_name() -> None:
    asked = Selection(model="GCN", model_arg={"form": "standard"}, dataset="tu:MUTAG")
    assert spelled(asked).model_arg == {"form": "standard"}
    assert spelled(spelled(asked)) == spelled(asked)
