from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from isoloss.registry import (
    ArgumentError,
    PluginError,
    Registry,
    UnknownNameError,
    call_with_arguments,
    load_factory,
    parse_arguments,
)


@pytest.fixture
def shapes() -> Registry:
    shapes: Registry = Registry("shape")

    @shapes.register("square", "four equal sides", corners=4)
    def square(side: float = 1.0) -> float:
        return side**2

    shapes.register("circle", "round")(lambda radius: 3 * radius**2)
    return shapes


def test_entries_keep_order_and_facts(shapes: Registry) -> None:
    assert shapes.names() == ["square", "circle"] == [entry.name for entry in shapes]
    entry = shapes.get("square")
    assert (entry.description, entry.facts["corners"]) == ("four equal sides", 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        entry.facts["corners"] = 5


def test_duplicate_is_refused(shapes: Registry) -> None:
    with pytest.raises(ValueError, match="shape 'square' is registered already"):
        shapes.register("square", "again")(lambda: None)


def test_unknown_name_lists_near_matches_first(shapes: Registry) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_factory("sqare", shapes)
    assert "did you mean square? valid: square, circle" in str(caught.value)


@pytest.mark.parametrize("spec", ["square.py:make", "./square", "square.py", "folder/square"])
def test_a_path_never_becomes_a_name(shapes: Registry, spec: str) -> None:
    with pytest.raises(PluginError):
        load_factory(spec, shapes)


def test_registered_factory_is_called_with_defaults(shapes: Registry) -> None:
    factory = load_factory("square", shapes)
    assert factory() == 1.0
    assert (factory.file, factory.sha256, factory.entry) == (None, None, shapes.get("square"))


@pytest.fixture
def sources(shapes: Registry) -> Registry:
    @shapes.register("npz:", "arrays of a file", placeholder="FILE")
    def npz(root: str, name: str, scale: int = 1, **rest: int) -> tuple:
        return root, name, scale, rest

    shapes.register("tu:", "graphs")(lambda name: name)
    return shapes


@pytest.mark.parametrize("member", ["a", "runs/a.npz", "b.py:c", "x:y", "/root/a.py"])
def test_family_gets_what_follows_the_colon(sources: Registry, member: str) -> None:
    factory = load_factory(f"npz:{member}", sources)
    assert call_with_arguments(factory, {"scale": 2}, {}, "x", ("r",)) == ("r", member, 2, {})
    assert factory.entry is sources.get("npz:") is sources.get(f"npz:{member}")
    assert (factory.spec, factory.file) == (f"npz:{member}", None)


def test_member_name_cannot_be_overruled(sources: Registry) -> None:
    with pytest.raises(ArgumentError, match="leave it out"):
        call_with_arguments(load_factory("npz:a", sources), {"name": "b"}, {}, "x", ("r",))
    with pytest.raises(ArgumentError, match="x has no argument 'name'; valid: none"):
        call_with_arguments(load_factory("tu:a", sources), {"name": "b"}, {}, "x")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("npz:", "npz: lacks what follows the colon; write it as npz:FILE"),
        ("nzp:a", "did you mean npz:FILE"),
        ("tu", "did you mean tu:NAME"),
        ("square:a", "valid: square, circle, npz:FILE, tu:NAME, or path"),
    ],
)
def test_incomplete_and_unknown_families(sources: Registry, spec: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load_factory(spec, sources)


def test_families_are_listed_with_their_placeholder(sources: Registry) -> None:
    assert [entry.usage for entry in sources] == ["square", "circle", "npz:FILE", "tu:NAME"]
    assert [entry.is_family for entry in sources] == [False, False, True, True]


@pytest.fixture
def named(sources: Registry) -> Registry:
    sources.register("half-circle_2", "half of it")(lambda: 0)
    sources.alias("Tile", "square", side=2.0)
    sources.alias("Benzene", "tu:Benzene")
    sources.register("Circle", "another one")(lambda: 0)
    return sources


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("SQUARE", ("square", {})),
        ("Half_Circle-2", ("half-circle_2", {})),
        ("halfcircle2", ("half-circle_2", {})),
        ("TU:MUTAG", ("tu:MUTAG", {})),  # the member is a name of the user's
        ("tile", ("square", {"side": 2.0})),
        ("benzene", ("tu:Benzene", {})),
        ("circle", ("circle", {})),  # as it is registered
        ("Circle", ("Circle", {})),
        ("Net.py:build", ("Net.py:build", {})),
        ("sqare", ("sqare", {})),
    ],
)
def test_case_and_separators_do_not_tell_names_apart(
    named: Registry, spec: str, expected: tuple
) -> None:
    assert named.resolve(spec) == expected
    assert named.resolve(expected[0])[0] == expected[0]


def test_names_that_may_be_either_of_two_are_refused(named: Registry) -> None:
    with pytest.raises(UnknownNameError, match="shape 'CIRCLE' may be circle or Circle"):
        load_factory("CIRCLE", named)


def test_arguments_that_a_name_brings_along_yield_to_the_users(named: Registry) -> None:
    tile = load_factory("TILE", named)
    assert call_with_arguments(tile, {}, {}, "x") == 4.0
    assert call_with_arguments(tile, {"side": 3.0}, {}, "x") == 9.0
    assert tile.entry is named.get("Tile") is named.get("square")
    assert load_factory("Benzene", named)() == "Benzene"
    assert named.aliases(named.get("square")) == ["Tile = square side=2.0"]
    with pytest.raises(ValueError, match="'Tile' is registered already"):
        named.alias("Tile", "circle")


def test_near_names_are_found_whatever_their_case(named: Registry) -> None:
    with pytest.raises(UnknownNameError, match="did you mean square"):
        named.get("SQARE")
    with pytest.raises(UnknownNameError, match="did you mean Benzene"):
        named.get("BENZEN")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1e-3", 1e-3),
        ("a=true", True),
        ("a=False", False),
        ("a=none", None),
        ("a=[1, 2]", [1, 2]),
        ("a=gap", "gap"),
        ("a=b=c", "b=c"),
        ("a=", ""),
        ("a='3'", "3"),
        ("a=/data/007.csv", "/data/007.csv"),
        # Values of Python that are none, or nested deeper than it reads.
        ("a={[]: 1}", "{[]: 1}"),
        ("a=" + "[" * 300, "[" * 300),
        ("a=" + "(" * 3000, "(" * 3000),
        ("a=" + "-" * 30_000 + "1", "-" * 30_000 + "1"),
        ("a=" + "9" * 5000, "9" * 5000),
        ("a=²", "²"),
    ],
)
def test_values_of_arguments(text: str, value: object) -> None:
    parsed = parse_arguments([text])["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("pairs", [["depth"], ["=3"], ["a b=3"], ["a=1", "a=2"]])
def test_malformed_arguments_are_refused(pairs: list[str]) -> None:
    with pytest.raises(ArgumentError, match=r"expected key=value|given twice"):
        parse_arguments(pairs)


def network(
    root: str, num_classes: int, width: float = 2, *, flag: bool = False, depth: int | None = None
) -> tuple:
    return root, num_classes, width, flag


def call(arguments: dict, context: dict) -> tuple:
    return call_with_arguments(network, arguments, context, "model 'net'", ("r",))


def test_context_is_passed_where_named_and_yields_to_arguments() -> None:
    assert call({}, {"num_classes": 3, "in_channels": 1}) == ("r", 3, 2, False)
    assert call({"num_classes": 5, "width": 1}, {"num_classes": 3}) == ("r", 5, 1, False)
    assert call({"num_classes": 5, "depth": None}, {}) == ("r", 5, 2, False)


@pytest.mark.parametrize(
    ("arguments", "context", "message"),
    [
        ({"widht": 3}, {"num_classes": 3}, "no argument 'widht'; did you mean width\\? valid: num"),
        ({"root": "x"}, {"num_classes": 3}, "no argument 'root'"),
        ({}, {}, "needs a value for num_classes"),
        ({}, {"num_classes": None}, "needs a value for num_classes"),
        ({"num_classes": "ten"}, {}, "num_classes expects int, got 'ten'"),
        ({"num_classes": True}, {}, "num_classes expects int"),
        ({"num_classes": 3, "flag": 1}, {}, "flag expects bool"),
        ({"num_classes": 3, "depth": "x"}, {}, r"depth expects int \| None, got 'x'"),
    ],
)
def test_wrong_arguments_name_the_valid_ones(arguments: dict, context: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call(arguments, context)


def test_open_ended_factory_takes_any_argument() -> None:
    def factory(first: str, **rest: object) -> dict:
        return rest

    assert call_with_arguments(factory, {"a": 1}, {"num_classes": 3}, "x", ("f",)) == {"a": 1}
    with pytest.raises(ArgumentError, match="no argument 'first'"):
        call_with_arguments(factory, {"first": 1}, {}, "x", ("f",))


@pytest.mark.parametrize(
    ("source", "spec", "message"),
    [
        (None, "net.py:make", "expected a Python file at .*net.py, found none"),
        ("", "net.py", "expected a plug-in as path/file.py:factory"),
        ("def build(): pass\nfrom math import sin", "net.py:make", "no 'make'; it defines: build$"),
        ("make = 3", "net.py:make", "expected a function or class, got int"),
        (
            "x = 1\nimport missing_thing",
            "net.py:make",
            "ModuleNotFoundError: .*net.py, line 2: imp",
        ),
        ("import landscape", "net.py:make", "ModuleNotFoundError: No module named 'landscape'"),
        ("def make(:\n  pass", "net.py:make", "SyntaxError: .*net.py, line 1: def make"),
        ("raise SystemExit(2)", "net.py:make", "if __name__ == '__main__'"),
    ],
)
def test_plugin_errors(tmp_path: Path, source: str | None, spec: str, message: str) -> None:
    if source is not None:
        (tmp_path / "net.py").write_text(source)
    with pytest.raises(PluginError, match=message) as caught:
        load_factory(str(tmp_path / spec), Registry("model"))
    assert len(str(caught.value).splitlines()) == 1


def test_failing_plugin_factory_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def make():\n    return [][1]\n")
    factory = load_factory(str(tmp_path / "net.py:make"), Registry("model"))
    with pytest.raises(PluginError, match=r"IndexError: .*net.py, line 2: return \[\]\[1\]"):
        factory()
