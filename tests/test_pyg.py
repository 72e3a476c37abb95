"""The Intel extension stays out of a process that imports PyTorch Geometric."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from isoloss import pyg

EXTENSION = "NAME = 'a stand-in for the Intel extension'"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with both packages, torch_geometric greedy as the real one."""
    (tmp_path / "intel_extension_for_pytorch.py").write_text(EXTENSION)
    (tmp_path / "torch_geometric.py").write_text(
        "try:\n    import intel_extension_for_pytorch\n    GREEDY = True\n"
        "except Exception:\n    GREEDY = False\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in list(sys.modules):
        if name.partition(".")[0] in ("torch_geometric", pyg.EXTENSION):
            monkeypatch.delitem(sys.modules, name)
    return tmp_path


def extension_loaded() -> bool:
    return sys.modules.get(pyg.EXTENSION) is not None


def forget() -> None:
    for name in ("torch_geometric", pyg.EXTENSION):
        sys.modules.pop(name, None)


def test_extension_is_kept_out_and_can_be_had_later(site: Path) -> None:
    try:
        assert not pyg.import_pyg().GREEDY
        assert not extension_loaded()
        __import__(pyg.EXTENSION)
        assert extension_loaded()
    finally:
        forget()


def test_extension_that_was_asked_for_stays(site: Path) -> None:
    try:
        __import__(pyg.EXTENSION)
        assert pyg.import_pyg().GREEDY
        assert extension_loaded()
    finally:
        forget()


def test_broken_installation_says_what_to_do(site: Path) -> None:
    (site / "torch_geometric.py").write_text("import torch_scatter_of_another_torch")
    try:
        with pytest.raises(pyg.PygError, match="torch_scatter_of_another_torch'\ninstall it with"):
            pyg.import_pyg()
        assert pyg.EXTENSION not in sys.modules
    finally:
        forget()


@pytest.mark.slow
def test_the_real_one_does_without_it(tmp_path: Path) -> None:
    # In a process of its own: here torch_geometric may be loaded already.
    (tmp_path / "intel_extension_for_pytorch.py").write_text(EXTENSION)
    source = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n"
        "from isoloss import pyg\n"
        "assert pyg.import_pyg().nn.GraphConv and pyg.import_pyg().datasets.TUDataset\n"
        "assert not sys.modules.get(pyg.EXTENSION)\n"
        "assert not sys.modules['torch_geometric.typing'].WITH_IPEX"
    )
    subprocess.run([sys.executable, "-c", source], check=True, cwd=tmp_path, timeout=120)
