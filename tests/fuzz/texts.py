"""Readers of what is written on a command line or in a configuration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from isoloss.datasets import DATASETS
from isoloss.experiments.options import declared, make, parse
from isoloss.experiments.search_space import parse_search, parse_settings, trial_options
from isoloss.experiments.settings import (
    Selection,
    SpectrumSettings,
    SurfaceSettings,
)
from isoloss.experiments.train_options import TrainOptions, read_config
from isoloss.landscape.grid import Grid
from isoloss.models import MODELS
from isoloss.records.runs import check_name
from isoloss.registry import load_factory, parse_arguments
from isoloss.specs import absolute_spec, describe_plugin
from isoloss.trainers.losses import LOSSES, build_loss
from tests.fuzz.harness import Reader
from tests.fuzz.inputs import (
    NUMBERS,
    WORDS,
    damaged_json,
    damaged_text,
    file_of,
    numbers,
    words,
)

CLASSES = (TrainOptions, Selection, SurfaceSettings, SpectrumSettings)
OPTIONS = {f"{cls.__name__}.{o.name}": (cls, o) for cls in CLASSES for o in declared(cls)}
REGISTRIES = {"model": MODELS, "data": DATASETS, "loss": LOSSES}
PLUGIN = "from torch import nn\nfactory = nn.Linear\nVALUE = 1\n"
SPECS = [
    *(entry.name for registry in REGISTRIES.values() for entry in registry),
    "plugin.py:factory", "plugin.py:VALUE", "plugin.py:", "missing.py:factory", "broken.py:factory",
    "plugin.py", "folder.py:factory", "torchvision:resnet18", "torchvision:", "npz:a.npz", "tu:X",
    "json:loads", "torch.nn:Linear", "torch.nn:Linear.forward", "torch.nn.Linear:forward",
    "isoloss.models:create_model", "numpy:zeros", "nosuch:thing", "nosuch.part:thing",
    "os.path:join", "torch:Tensor", "a.b.c:d.e.f", "torch.nn:CrossEntropyLoss",
]  # fmt: skip
ARGUMENTS = ["depth=16", "widths=[8, 12]", "pool=none", "a=1e999", "b=²", "c=1_000", "d='x'"]
CONFIG: dict[str, Any] = {
    "run": "a", "model": "fashion-cnn", "model_arg": {"widths": [8, 12]}, "dataset": "digits",
    "fraction": 0.5, "lr": 0.1, "epochs": 3, "batch_size": 64, "nesterov": True, "warmup": 3,
    "schedule_arg": {"every": 5}, "loss": "cross-entropy", "optimizer": "sam", "seed": 1,
    "facts": {"data_dir": "data"},
}  # fmt: skip
TOML = """run = "a"
model = "fashion-cnn"
lr = 0.1
epochs = 3
batch-size = 64
nesterov = true
dataset_arg = {samples = 100}
[model_arg]
widths = [8, 12]
when = 1979-05-27T07:32:00Z
"""
RANGES = [
    "lr=loguniform:1e-4:1e-1", "weight_decay=uniform:0:0.01:0.001", "epochs=int:5:20:5",
    "batch_size=logint:16:512", "optimizer=choice:sgd,sam", "model_arg.dropout=uniform:0:0.5",
    "model_arg.widths=choice:[8, 12],[4]", "nesterov=choice:true,false",
]  # fmt: skip
FIXED = ["epochs=5", "lr=0.1", "model_arg.depth=3", "batch_size=full", "model=plugin.py:factory"]


def read_axis(drawn: tuple[str, str | None], folder: Path) -> object:
    grid = Grid.parse(*drawn)
    assert all(math.isfinite(axis.low) for axis in (grid.x, grid.y) if axis is not None)
    if grid.size <= 10_000:
        assert grid.coordinates(grid.size - 1)[0] == grid.x.high
        assert Grid.parse(grid.x.text) == Grid(grid.x)
    return grid


def read_spec(drawn: tuple[str, str], folder: Path) -> object:
    kind, spec = drawn
    for name, text in (("plugin", PLUGIN), ("broken", "import nothing_of_this_name\n(")):
        (folder / f"{name}.py").write_text(text)
    (folder / "folder.py").mkdir()
    if ".py" in spec:
        spec = f"{folder}/{spec}"
    describe_plugin(absolute_spec(spec), {})
    if kind == "loss":
        return build_loss(spec, {})
    return load_factory(spec, REGISTRIES[kind])


def read_option(drawn: tuple[str, Any], folder: Path) -> object:
    cls, option = OPTIONS[drawn[0]]
    value = parse(option, drawn[1])
    return make(cls, {option.name: value})


def read_value(drawn: tuple[str, Any], folder: Path) -> object:
    return make(OPTIONS[drawn[0]][0], {OPTIONS[drawn[0]][1].name: drawn[1]})


def read_arguments(drawn: list[str], folder: Path) -> object:
    return parse_arguments(drawn)


def read_configuration(drawn: tuple[str, bytes], folder: Path) -> object:
    path = folder / drawn[0]
    path.write_bytes(drawn[1])
    return make(TrainOptions, read_config(path))


def read_search(drawn: list[str], folder: Path) -> object:
    space = parse_search(drawn)
    for dimension in space.values():
        assert dimension.distribution() is not None
    middle = {name: d.choices[0] if d.kind == "choice" else d.low for name, d in space.items()}
    return trial_options({}, space, middle, "trial")


def read_settings(drawn: list[str], folder: Path) -> object:
    return make(TrainOptions, parse_settings(drawn))


def read_device(drawn: str, folder: Path) -> object:
    from isoloss.experiments.devices import resolve_device

    return resolve_device(drawn)


def read_name(drawn: str, folder: Path) -> object:
    return check_name(drawn)


def near(*valid: str) -> st.SearchStrategy[str]:
    """Draw texts near valid ones, and hostile ones."""
    return st.one_of(st.sampled_from(valid).flatmap(damaged_text), words)


def _given(name: str) -> st.SearchStrategy[tuple[str, Any]]:
    option = OPTIONS[name][1]
    if bool in option.types:
        return st.tuples(st.just(name), st.booleans())
    likely = [*option.choices, *filter(None, [option.none]), "1", "0.5", "all"]
    text = st.one_of(words, numbers, st.sampled_from(likely), near(*SPECS))
    if dict in option.types:
        pairs = st.one_of(near(*ARGUMENTS), words.map("key={}".format))
        return st.tuples(st.just(name), st.lists(pairs, min_size=1, max_size=3))
    if tuple in option.types:
        return st.tuples(st.just(name), st.lists(text, min_size=1, max_size=3))
    return st.tuples(st.just(name), text)


plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from([*WORDS, *NUMBERS]),
        st.binary(max_size=3), st.just(10**400),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)  # fmt: skip
axis = st.one_of(
    near("-1:1:51", "0:1:2", "1e-3:1e3:5", "-0.5:0.5:1_1"),
    st.tuples(numbers, numbers, numbers).map(":".join),
)
pair = st.one_of(near(*ARGUMENTS), words.map("key={}".format))
texts = st.sampled_from(sorted(OPTIONS)).flatmap(_given)
values = st.tuples(st.sampled_from(sorted(OPTIONS)), plain)
specs = st.sampled_from(sorted(REGISTRIES)).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.one_of(near(*(entry.name for entry in REGISTRIES[kind])), near(*SPECS)),
    )
)
ranges = st.one_of(
    near(*RANGES),
    st.tuples(
        st.sampled_from([t.partition(":")[0] for t in RANGES]), st.lists(numbers, max_size=3)
    ).map(lambda drawn: ":".join([drawn[0], *drawn[1]])),
)

READERS = [
    Reader("axes", st.tuples(axis, st.one_of(st.none(), axis)), read_axis),
    Reader("specs", specs, read_spec),
    Reader("option texts", texts, read_option),
    Reader("option values", values, read_value),
    Reader("key=value", st.lists(pair, max_size=3), read_arguments),
    Reader("config JSON", st.tuples(st.just("a.json"), damaged_json(CONFIG)), read_configuration),
    Reader("config TOML", st.tuples(st.just("a.toml"), file_of(TOML, "=")), read_configuration),
    Reader("tune --search", st.lists(ranges, min_size=1, max_size=2), read_search),
    Reader(
        "tune --set",
        st.lists(st.one_of(near(*FIXED), words.map("lr={}".format)), min_size=1, max_size=3),
        read_settings,
    ),
    Reader("devices", st.one_of(near("cpu", "cuda:0", "auto"), words.map("cpu:{}".format)),
           read_device),
    Reader("run names", near("mnist-sam", "a.b_c"), read_name),
]  # fmt: skip
