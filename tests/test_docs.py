"""Examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
PACKAGES = [file.parent for file in HOUSE.glob("*/__init__.py")]
OURS = sorted([*HOUSE.glob("*.py"), *(f for folder in PACKAGES for f in folder.rglob("*.py"))])
WITH_EXAMPLES = [file for file in OURS if ">>> " in file.read_text(encoding="utf-8")]


def module_name(file: Path) -> str:
    return ".".join(["isoloss", *file.relative_to(HOUSE).with_suffix("").parts]).removesuffix(
        ".__init__"
    )


# Imported by name, so that a module is there once: pytest's own collection of doctests imports
# files, and with an editable installation registries would then be filled twice.
@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=module_name)
def test_the_examples_of_a_module_run(file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module_name(file))
    assert Path(module.__file__).samefile(file)
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0


def test_some_modules_have_examples():
    assert len(WITH_EXAMPLES) >= 5
