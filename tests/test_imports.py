"""Who imports whom: the edges of the design, and nothing else, also inside functions."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
# Open to all: what they import themselves must be as light as they are.
OPEN = {"errors", "pyg"}
ALLOWED = {
    "errors": set(),
    "pyg": set(),
    "specs": set(),
    "plugin_guard": set(),
    "plugins": {"specs", "plugin_guard"},
    "registry": {"plugins", "specs"},
    "records": set(),
    "structure": set(),
    "parallel": set(),
    "landscape": {"records", "structure", "parallel"},
    "hessian": {"landscape", "records"},
    "models": {"registry"},
    "split": set(),
    "datasets": {"registry", "split", "structure"},
    "evaluation": {"registry", "landscape", "records", "split"},
    "trainers": {"registry", "landscape", "records", "evaluation", "split", "structure"},
    "figures": {"records"},
    "experiments": {"registry", "plugins", "records", "landscape", "hessian", "models", "datasets",
                    "parallel", "split", "structure", "trainers", "evaluation", "figures"},
    "commands": {"experiments", "figures", "records"},
    "cli": {"commands", "records"},
}  # fmt: skip


def python_files(name):
    folder = HOUSE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [*HOUSE.glob(f"{name}.py")]


def imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", ALLOWED)
def test_only_the_edges_of_the_design(name):
    wrong = [
        f"{file.relative_to(HOUSE)} imports {module}"
        for file in python_files(name)
        for module in imported(file)
        if module.startswith("isoloss.")
        and module.split(".")[1] != name
        and not any(f"{module}.".startswith(f"isoloss.{edge}.") for edge in ALLOWED[name] | OPEN)
    ]
    assert not wrong


def modules():
    """The files of the package by the names they are imported by."""
    files = {file.relative_to(HOUSE): file for name in ALLOWED for file in python_files(name)}
    files[Path("__init__.py")] = HOUSE / "__init__.py"
    return {
        ".".join(("isoloss", *path.with_suffix("").parts)).removesuffix(".__init__"): file
        for path, file in files.items()
    }


def circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_circle_of_files_or_packages():
    files = modules()
    graph = {name: set() for name in files}
    for name, file in files.items():
        for module in imported(file):
            # `from a import b` means the file a.b where there is one, and a name in a otherwise.
            target = module if module in files else module.rpartition(".")[0]
            if target in files:
                graph[name].add(target)
    assert sum(map(len, graph.values())) > len(files)
    assert not circle(graph)
    packages = {}
    for name, targets in graph.items():
        part = name.split(".")[1:2]
        others = {tuple(target.split(".")[1:2]) for target in targets}
        packages.setdefault(tuple(part), set()).update(others - {tuple(part)})
    assert not circle(packages)


def test_every_part_of_the_house_has_its_edges():
    parts = {p.name for p in HOUSE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    parts |= {p.stem for p in HOUSE.glob("*.py")}
    assert parts - {"tests", "benchmarks", "__init__"} == set(ALLOWED)


def test_nobody_imports_a_name_of_the_house_without_its_own():
    bare = [
        f"{file.relative_to(HOUSE)} imports {module}"
        for name in [*ALLOWED, "tests", "benchmarks"]
        for file in python_files(name)
        for module in imported(file)
        if module.split(".")[0] in ALLOWED
    ]
    assert not bare, "two copies of a module have two registries"


def test_public_modules_are_of_a_readable_length():
    long = {
        str(file.relative_to(HOUSE)): lines
        for name in ALLOWED
        for file in python_files(name)
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 420
    }
    assert not long, f"ask why these are so long: {long}"
