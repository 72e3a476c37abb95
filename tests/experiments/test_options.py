"""Declared options: one judge of values, whatever they come from."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isoloss.experiments.options import OptionError, Options, check, declared, make, option, parse
from isoloss.experiments.settings import SpectrumSettings, SurfaceSettings
from isoloss.experiments.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Base(Options):
    seed: int = option(0, "Seed.", low=0)


@dataclass(frozen=True, kw_only=True)
class Example(Base):
    name: str = option(help="Name.")
    rate: float | None = option(None, "Rate.", above=0)
    share: float = option(0.5, "Share.", low=0, high=1)
    split: str = option("train", "Split.", choices=("train", "test"))
    samples: int | str | None = option(None, "Samples.", low=1, choices=("all",))
    batch: int | None = option(128, "Batch.", low=1, none="full")
    fast: bool = option(False, "Fast.")
    file: Path | None = option(None, "File.")
    patterns: tuple[str, ...] = option((), "Patterns.")
    arguments: dict[str, Any] = option({}, "Arguments.")
    spec: str | None = option(None, "Spec.", convert=str.upper)


OPTIONS = {o.name: o for o in declared(Example)}

TEXTS = {
    "rate": [("1e-3", 0.001), ("2", 2), ("none", None)],
    "samples": [("all", "all"), ("20", 20), ("none", None)],
    "batch": [("full", None), ("64", 64)],
    "split": [("test", "test")],
    "fast": [("true", True), (False, False)],
    "file": [("a/none", Path("a/none")), ("7", Path("7"))],
    "patterns": [(["a*", "!b"], ("a*", "!b"))],
    "arguments": [(["k=1", "l=[2,3]"], {"k": 1, "l": [2, 3]})],
    "name": [("none", "none"), ("12", "12")],
}


@pytest.mark.parametrize(
    ("name", "text", "value"), [(n, *pair) for n, pairs in TEXTS.items() for pair in pairs]
)
def test_texts_are_read_by_the_declared_type(name, text, value):
    assert parse(OPTIONS[name], text) == value
    assert type(parse(OPTIONS[name], text)) is type(value)


REFUSED = [
    ("rate", 0, "expected above 0, got 0"),
    ("rate", float("nan"), "expected above 0, got nan"),
    ("rate", "fast", "expected float, got 'fast'"),
    ("rate", True, "expected float, got True"),
    ("share", 1.5, "expected 0 to 1, got 1.5"),
    ("share", None, "expected float, got None"),
    ("seed", -1, "expected 0 or more, got -1"),
    ("seed", 1.0, "expected int, got 1.0"),
    ("split", "val", "expected train, test, got 'val'"),
    ("samples", 0, "expected 1 or more, got 0"),
    ("samples", "some", "expected int or all, got 'some'"),
    ("batch", "all", "expected int or full, got 'all'"),
    ("fast", 1, "expected bool, got 1"),
    ("name", 3, "expected str, got 3"),
    ("patterns", "a", "expected tuple, got 'a'"),
    ("arguments", 3, "expected dict, got 3"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_values_are_refused_alike_from_a_file_and_from_python(name, value, message):
    for call in (
        lambda: check(OPTIONS[name], value),
        lambda: make(Example, {"name": "a", name: value}),
        lambda: Example(**{"name": "a", name: value}),
    ):
        with pytest.raises(OptionError) as caught:
            call()
        assert str(caught.value) == f"`{name}`: {message}"
        assert (caught.value.option, caught.value.problem) == (name, message)


def test_names_that_are_none_and_values_that_lack():
    with pytest.raises(OptionError, match="no option 'shar' to set; did you mean share") as caught:
        make(Example, {"name": "a", "shar": 1})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(OptionError, match="`name`: expected a value, got none"):
        make(Example, {})


def test_what_comes_from_outside_is_converted_and_defaults_are_not_shared():
    assert make(Example, {"name": "a", "spec": "x", "file": "b"}) == Example(
        name="a", spec="X", file=Path("b")
    )
    first, second = Example(name="a"), Example(name="a")
    assert first.arguments is not second.arguments


def test_own_options_come_before_inherited_ones():
    assert [o.name for o in declared(Example)][-1] == "seed"
    assert OPTIONS["name"].required
    assert not OPTIONS["rate"].required


@pytest.mark.parametrize("cls", [TrainOptions, SurfaceSettings, SpectrumSettings])
def test_settings_know_no_flag(cls):
    for o in declared(cls):
        assert "--" not in f"{o.help} {o.otherwise}", o.name


@pytest.mark.parametrize("cls", [TrainOptions, SurfaceSettings, SpectrumSettings])
def test_defaults_pass_the_check_and_come_back_from_what_is_stored(cls):
    settings = cls()
    assert make(cls, {}) == settings
    assert make(cls, dataclasses.asdict(settings)) == settings
    for o in declared(cls):
        assert getattr(settings, o.name) == o.default


def test_an_axis_takes_the_rule_of_both_unless_it_has_its_own():
    settings = SurfaceSettings(norm="layer", ynorm="none", xignore="none")
    assert settings.normalisation == ("layer", "none")
    assert settings.ignored == ("none", None)  # y by the kind of its direction


UNFIT = [
    ("name", "a\0b"), ("name", "\ud800"), ("file", "a\0b"), ("patterns", ("a", "\0")),
    ("arguments", {"a": ["\udc80"]}), ("arguments", {"a\0": 1}), ("arguments", {"a": 2**63}),
    ("seed", 10**30), ("samples", 2**63),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), UNFIT, ids=ascii)
def test_what_no_file_or_array_can_hold_is_refused(name, value):
    with pytest.raises(OptionError, match=r"expected (text in UTF-8|a whole number of 64 bits)"):
        check(OPTIONS[name], value)
    # A file of any name that the system has.
    assert check(OPTIONS["file"], "b\udc80") == Path("b\udc80")
    assert check(OPTIONS["name"], "日本語 😀") == "日本語 😀"
