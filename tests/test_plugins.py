"""Plug-ins from research repositories that have top-level names of ours, and of each other."""

from __future__ import annotations

import copy
import hashlib
import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from isoloss import models
from isoloss.models import create_model
from isoloss.plugins import HOUSE
from isoloss.registry import Factory, Registry, load_factory

NET = """
    import importlib
    import torch
    from torch import nn
    import utils
    from models import Block

    class Net(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            from models.heads import Head
            self.block, self.head = Block(), Head(num_classes)

        def forward(self, x):
            import models.late
            from datasets.loader import scale
            import json
            return self.head(self.block(x)) * scale() + models.late.shift() * len(json.dumps(1))

    def make(num_classes=2):
        assert importlib.import_module("trainers.loop").NAME == utils.NAME
        return Net(num_classes)

    def names():
        import sys
        from models import late
        return utils.NAME, late.NAME, importlib.import_module("datasets").__file__, list(sys.path)
    """


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))


def repository(folder: Path, name: str) -> Path:
    """A small research repository; its trainers/ has no __init__.py."""
    write(
        folder,
        {
            "net.py": NET,
            "utils.py": f"NAME = {name!r}",
            "models/__init__.py": """
                from torch import nn
                from .heads import Head

                class Block(nn.Linear):
                    def __init__(self):
                        super().__init__(3, 4)
                """,
            "models/heads.py": """
                from torch import nn

                class Head(nn.Linear):
                    def __init__(self, num_classes):
                        super().__init__(4, num_classes)
                """,
            "models/late.py": f"""
                NAME = {name!r}

                def shift():
                    from . import heads                # relative and late
                    from trainers import loop
                    return 0.0 if heads.Head and loop.NAME == NAME else float("nan")
                """,
            "datasets/__init__.py": "",
            "datasets/loader.py": "def scale():\n    from utils import NAME\n    return len(NAME)",
            "trainers/loop.py": "from utils import NAME",
        },
    )
    return folder


def factory(folder: Path, attribute: str = "make", file: str = "net.py") -> Factory:
    return load_factory(f"{folder / file}:{attribute}", Registry("model"))


def state() -> tuple:
    return dict(sys.modules), list(sys.path), list(sys.meta_path)


def test_a_repository_with_our_names_is_served_and_leaves_no_trace(tmp_path: Path) -> None:
    spec = f"{repository(tmp_path, 'one') / 'net.py'}:make"
    modules, path, finders = state()
    net = create_model(spec, {}, {"num_classes": 5, "in_channels": 1})
    inputs = torch.randn(2, 3)
    outputs = net(inputs)
    assert outputs.shape == (2, 5)
    assert torch.equal(outputs, net.head(net.block(inputs)) * 3)  # len("one")
    assert state() == (modules, path, finders)
    from isoloss import models as again
    from isoloss.models import cnn
    from isoloss.trainers import __file__ as ours

    assert (again, cnn) == (models, models.cnn)
    assert "datasets" not in sys.modules
    assert Path(ours).parent.parent == HOUSE
    assert "utils" not in sys.modules


def test_two_repositories_do_not_see_each_other(tmp_path: Path) -> None:
    one, two = repository(tmp_path / "1", "one"), repository(tmp_path / "2", "second")
    first, second = factory(one)(), factory(two)()
    x = torch.ones(1, 3)
    for net, length in ((first, 3), (second, 6), (first, 3)):
        assert torch.equal(net(x), net.head(net.block(x)) * length)
    for folder, name in ((one, "one"), (two, "second")):
        utils, late, loader, path = factory(folder, "names")()
        assert (utils, late) == (name, name)
        assert Path(loader).is_relative_to(folder)
        assert path[0] == str(folder)


def test_nested_plugins_step_aside_for_each_other(tmp_path: Path) -> None:
    one, two = repository(tmp_path / "1", "one"), repository(tmp_path / "2", "second")
    write(
        one, {"outer.py": "def names(inner):\n    inner()\n    import utils\n    return utils.NAME"}
    )
    assert factory(one, "names", "outer.py")(factory(two, "names")) == "one"


def test_files_of_one_folder_share_modules_and_a_changed_file_is_loaded_afresh(
    tmp_path: Path,
) -> None:
    repository(tmp_path, "one")
    write(tmp_path, {"data.py": "from models import Block\ndef block():\n    return Block"})
    block = factory(tmp_path, "block", "data.py")
    assert isinstance(factory(tmp_path)().block, block())
    text = (tmp_path / "data.py").read_bytes()
    assert block.sha256 == hashlib.sha256(text).hexdigest()
    assert block.file == tmp_path / "data.py"
    write(tmp_path, {"data.py": "def block():\n    return 'changed, and longer'"})
    assert factory(tmp_path, "block", "data.py")() == "changed, and longer"


def test_networks_are_copied_and_saved_as_any_other(tmp_path: Path) -> None:
    net = factory(repository(tmp_path, "one"))()
    twin = copy.deepcopy(net)
    stored = io.BytesIO()
    torch.save(net.state_dict(), stored)
    stored.seek(0)
    twin.load_state_dict(torch.load(stored, weights_only=True))
    x = torch.ones(1, 3)
    assert torch.equal(twin(x), net(x))


def test_file_within_a_package_and_own_search_paths(tmp_path: Path) -> None:
    repository(tmp_path, "one")
    write(
        tmp_path,
        {
            "models/deep.py": """
                from .heads import Head
                from utils import NAME

                def make():
                    return NAME
                """,
            "tool.py": """
                import os, sys
                sys.path.append(os.path.join(os.path.dirname(__file__), "third_party"))
                import extra

                def make():
                    return extra.origin()
                """,
            "third_party/extra.py": """
                def origin():
                    from models import late
                    return late.NAME
                """,
            "code.py": "def make():\n    return 'code'",
        },
    )
    path = list(sys.path)
    assert factory(tmp_path, file="models/deep.py")() == "one"
    assert factory(tmp_path, file="tool.py")() == "one"
    assert factory(tmp_path, file="code.py")() == "code"  # a name of the standard library's
    assert sys.path == path
    assert not {"extra", "tool", "plugin_code"} & set(sys.modules)


def test_what_is_not_the_plugins_is_shared(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()  # a mere directory must not hide a package
    write(tmp_path, {"net.py": "import torch, colorsys\ndef make():\n    return torch, colorsys"})
    sys.modules.pop("colorsys", None)
    found, colours = factory(tmp_path)()
    assert found is torch
    assert sys.modules["colorsys"] is colours


def test_an_installed_package_of_our_name_is_found_behind_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "lib", {"datasets/__init__.py": "NAME = 'installed'"})
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "lib")])
    text = "import datasets, importlib.util\ndef make():\n    return datasets.NAME"
    write(tmp_path / "plug", {"net.py": text})
    assert factory(tmp_path / "plug")() == "installed"
    write(
        tmp_path / "other",
        {"net.py": "import importlib.util as u\ndef make():\n    return u.find_spec('hessian')"},
    )
    assert factory(tmp_path / "other")() is None


def test_a_file_of_our_own_sees_our_modules() -> None:
    assert factory(HOUSE, "fashion_cnn", "models/cnn.py").function is models.cnn.fashion_cnn


def test_metadata_of_installed_packages_is_seen(tmp_path: Path) -> None:
    text = (
        "import importlib.metadata as m\nfound = m.version('numpy')\ndef make():\n    return found"
    )
    write(tmp_path, {"net.py": text})
    assert factory(tmp_path)()


def test_plugin_works_in_a_fresh_process_whose_path_is_ours(tmp_path: Path) -> None:
    repository(tmp_path, "one")
    script = "import sys; from isoloss.models import create_model; create_model(sys.argv[1])"
    spec = f"{tmp_path / 'net.py'}:make"
    done = subprocess.run([sys.executable, "-c", script, spec], cwd=HOUSE, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
