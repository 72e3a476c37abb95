"""The recipes of docs/recipes: each resolves, trains, and is listed with its command."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from isoloss import cli
from isoloss.datasets import DATASETS, DataMissingError, load_data
from isoloss.experiments.options import make
from isoloss.experiments.train_options import TrainOptions, read_config
from isoloss.registry import load_factory

RECIPES = Path(__file__).resolve().parents[1] / "docs" / "recipes"
FILES = sorted(RECIPES.glob("*.toml"))

# What stands for each data set: a synthetic one of the same kind. Images of CIFAR's depth are 8x8,
# as a step of the 17 million parameters would take seconds at 32x32.
STANDS_FOR: dict[str, tuple[str, dict[str, int]]] = {
    "mnist": ("synthetic-images", {"samples": 100}),
    "fashion-mnist": ("synthetic-images", {"samples": 100}),
    "cifar10": ("synthetic-images", {"samples": 100, "channels": 3, "size": 8}),
    "mitbih": ("synthetic-ecg", {"samples": 50}),
    "tu:Mutagenicity": ("synthetic-graphs", {"samples": 40}),
    "digits": ("digits", {"size": 8}),
}


def options(file: Path) -> TrainOptions:
    return make(TrainOptions, read_config(file))


def source(spec: str, arguments: dict[str, Any]) -> str:
    return f"{spec} {json.dumps(arguments)}"


# The others of these networks differ from the first in the optimizer alone.
SLOW = ("ecg-attention-asam", "ecg-attention-sam", "wide-resnet-asam", "wide-resnet-sam")


@pytest.mark.parametrize(
    "file",
    [pytest.param(f, marks=pytest.mark.slow if f.stem in SLOW else ()) for f in FILES],
    ids=lambda file: file.stem,
)
def test_recipe_trains(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, arguments = STANDS_FOR[options(file).dataset]
    pairs = [
        part for key, value in arguments.items() for part in ("--dataset-arg", f"{key}={value}")
    ]
    code = cli.main(
        ["train", "--config", str(file), "--dataset", name, *pairs, "--batch-size", "2",
         "--device", "cpu", "--results", str(tmp_path), "--estimate", "--json"]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    data = load_data(name, arguments)
    assert json.loads(out)["steps"] == options(file).epochs * -(-len(data.train) // 2)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_recipe_is_a_template(file: Path) -> None:
    text = file.read_text()
    asked = options(file)
    assert asked.run == file.stem
    # Seeds, labels and folders are the user's; what is written out is what the experiment fixes.
    assert {*read_config(file)} <= {
        "run", "dataset", "dataset_arg", "augment", "model", "model_arg", "loss", "loss_arg",
        "batch_size", "epochs", "patience", "schedule", "schedule_arg", "checkpoint_every",
        "optimizer", "base", "rho", "lr", "momentum", "weight_decay",
    }  # fmt: skip
    factory = load_factory(asked.dataset, DATASETS).function
    assert {*asked.dataset_arg} <= {*inspect.signature(factory).parameters}
    assert text.startswith("# ")
    assert len(text.splitlines()) <= 30


@pytest.mark.parametrize(
    "what", sorted({source(o.dataset, o.dataset_arg) for o in map(options, FILES)})
)
def test_data_of_the_recipes_are_what_the_synthetic_ones_stand_for(
    data_dir: Path, what: str
) -> None:
    spec, _, arguments = what.partition(" ")
    try:
        data = load_data(spec, json.loads(arguments), data_dir)
    except DataMissingError as error:
        pytest.skip(f"needs {spec}; {error}")
    like, settings = STANDS_FOR[spec]
    settings = {**settings, "size": 32} if spec == "cifar10" else settings
    stand_in = load_data(like, settings)
    assert data.info.input_shape == stand_in.info.input_shape
    assert data.info.num_classes == stand_in.info.num_classes


def test_every_recipe_is_listed_once() -> None:
    page = (RECIPES.parent / "recipes.md").read_text()
    assert sorted(re.findall(r"\]\(recipes/(.+?)\.toml\)", page)) == sorted(f.stem for f in FILES)
    for named in re.findall(r"--config docs/(\S+)", page):
        assert (RECIPES.parent / named).is_file()
