"""What the project says of itself: the README's example runs, the lists of requirements agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import pytest

HOUSE = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("index", [*(pytest.param(i, marks=pytest.mark.slow) for i in (0, 1)), 2])
def test_the_readme_examples_run_as_printed(tmp_path, index):
    blocks = re.findall(r"```python\n(.*?)```", (HOUSE / "README.md").read_text(), re.DOTALL)
    code = blocks[index]
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 15
    (tmp_path / "example.py").write_text(code)
    for _ in range(2 if index == 1 else 1):  # the second time it finds its surface finished
        done = subprocess.run(
            [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True,
            timeout=120, env={"PATH": "", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    if index == 0:
        assert "trace ± probes ± sample" in done.stdout
        return
    if index == 2:
        steps = re.findall(r"^(\d+): lambda_max \d", done.stdout, re.MULTILINE)
        assert steps == ["0", "10", "20", "30", "40"]
        return
    assert "standard_error" in done.stdout
    with h5py.File(tmp_path / "surface.h5") as file:
        assert file["train_loss"].shape == (11, 11)
    assert (tmp_path / "surface.png").stat().st_size > 1000
    assert (tmp_path / "surface.pdf").exists()


def test_requirements_are_those_of_the_package():
    stated = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (HOUSE / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == stated


def test_hooks_pin_what_the_test_extra_pins():
    extra = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["test"]
    pinned = next(line for line in extra if line.startswith("ruff=="))
    assert set(re.findall(r"ruff==[\d.]+", (HOUSE / ".pre-commit-config.yaml").read_text())) == {
        pinned
    }


def test_links_of_the_documents_lead_somewhere():
    for document in [HOUSE / "README.md", HOUSE / "CONTRIBUTING.md", *HOUSE.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("command", ["", "train", "surface", "hessian", "compare", "list"])
def test_help_needs_no_torch(command):
    code = (
        "import sys\nfrom isoloss import cli\n"
        f"assert cli.main({[*command.split(), '--help']!r}) == 0\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: cli.py" in done.stdout


@pytest.mark.parametrize(
    ("modules", "needed"),
    [
        (("selection", "surfaces", "spectra", "training"), {"torch"}),
        (("comparison", "drawing"), {"matplotlib"}),
        (("listing",), {"torch"}),
    ],
)
def test_nothing_is_imported_before_it_is_used(modules, needed):
    heavy = {"torch", "torchvision", "torch_geometric", "torchinfo", "matplotlib", "pandas",
             "sklearn", "scipy.stats", "scipy.optimize", "optuna", "wfdb", "rich"}  # fmt: skip
    code = (
        f"import sys\n"
        f"import {', '.join(f'isoloss.experiments.{name}' for name in modules)}\n"
        f"print(*sorted(set({sorted(heavy)}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == needed
