"""Plug-ins from research repositories that have top-level names of ours, and of each other."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import io
import json
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from isoloss import cli, models
from isoloss.datasets import load_data
from isoloss.models import create_model
from isoloss.plugins import (
    HOUSE,
    PluginError,
    absolute_spec,
    describe_plugin,
    load_plugin,
    plugin_identity,
)
from isoloss.records.runs import Run
from isoloss.registry import Factory, Registry, UnknownNameError, is_plugin, load_factory
from isoloss.trainers.losses import build_loss

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


# -- installed modules ----------------------------------------------------------------------------

ZOO = """
    import torch
    from torch import nn
    from fakezoo.parts import Tall, make_small as small

    class Net(nn.Linear):
        pass

    def create_model(model_name, num_classes=10, **kwargs):
        torch.manual_seed(5)
        return Net(int(model_name.removeprefix("net")), num_classes)

    def create_data(data_dir, n=20):
        x = torch.arange(2.0 * n).reshape(n, 2)
        return {"train": (x, torch.arange(n) % 2), "test": (x, torch.arange(n) % 2)}

    class Smooth(nn.CrossEntropyLoss):
        @classmethod
        def build(cls, factor=0.1):
            return cls(label_smoothing=factor)

    weights = 3
    """


def distribution(folder: Path, version: str = "1.2", **files: str) -> Path:
    """What pip leaves of a package: modules, and a folder that names and lists them."""
    texts = {"fakezoo/__init__.py": ZOO, "fakezoo/parts.py": PARTS, **files}
    info = f"fakezoo-{version}.dist-info"
    write(folder, texts)
    write(
        folder,
        {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: fakezoo\nVersion: {version}\n",
            f"{info}/RECORD": "".join(f"{name},,\n" for name in texts),
        },
    )
    return folder


PARTS = """
    from torch import nn

    class Tall(nn.Module):
        pass

    def make_small(width: int = 2):
        return nn.Linear(width, width)
    """


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = distribution(tmp_path / "site")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "fakezoo"]:
        del sys.modules[name]


def test_a_module_makes_networks_data_and_losses(zoo: Path) -> None:
    model = create_model("fakezoo:create_model", {"model_name": "net7"}, {"num_classes": 3})
    assert (model.in_features, model.out_features) == (7, 3)
    assert len(load_data("fakezoo:create_data", {"n": 30}).test) == 30
    small = create_model("fakezoo.parts:make_small", {"width": 4})
    assert small.in_features == 4
    loss = build_loss("fakezoo:Smooth.build", {"factor": 0.2})
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    terms = loss(outputs, targets)
    expected = nn.functional.cross_entropy(outputs, targets, label_smoothing=0.2)
    assert torch.allclose(terms.sums.sum() / terms.weights.sum(), expected)
    terms = build_loss("torch.nn:MSELoss", {})(outputs, outputs + 1)
    assert terms.sums.sum() / terms.weights.sum() == pytest.approx(1)


def test_a_module_is_known_by_the_version_of_its_distribution(zoo: Path) -> None:
    assert plugin_identity("fakezoo.parts:make_small") == "fakezoo==1.2"
    assert describe_plugin("fakezoo:create_model", {"model_name": "net7"}) == {
        "spec": "fakezoo:create_model",
        "arguments": {"model_name": "net7"},
        "sha256": None,
        "version": "fakezoo==1.2",
    }
    assert describe_plugin("fashion-cnn", {}).keys() == {"spec", "arguments", "sha256"}
    sklearn = importlib.metadata.version("scikit-learn")  # a distribution of another name
    assert plugin_identity("sklearn.linear_model:Ridge") == f"scikit-learn=={sklearn}"
    assert plugin_identity("no_such_module:make") is None
    assert plugin_identity("fakezoo.none:make") is None
    # Code that changes without a version is known by its file.
    digest = hashlib.sha256((zoo / "fakezoo" / "__init__.py").read_bytes()).hexdigest()
    write(zoo, {"fakezoo-1.2.dist-info/direct_url.json": '{"dir_info": {"editable": true}}'})
    assert plugin_identity("fakezoo:create_model") == f"fakezoo==1.2, sha256:{digest}"
    write(zoo, {"loose.py": "def make():\n    pass"})
    digest = hashlib.sha256((zoo / "loose.py").read_bytes()).hexdigest()
    assert plugin_identity("loose:make") == f"sha256:{digest}"


def test_another_version_of_a_module_is_refused(zoo: Path, tmp_path: Path, capsys) -> None:
    where = ["--no-figures", "--results", str(tmp_path / "results")]
    train = ["train", "--model", "fakezoo:create_model", "--model-arg", "model_name=net2",
             "--model-arg", "num_classes=2", "--dataset", "fakezoo:create_data", "--run", "a",
             "--loss", "fakezoo:Smooth.build", "--epochs", "1"]  # fmt: skip
    assert cli.main([*train, *where]) == 0
    assert set(Run(tmp_path / "results" / "runs" / "a").facts().plugins.items()) == {
        ("model", "fakezoo==1.2"), ("dataset", "fakezoo==1.2"), ("loss", "fakezoo==1.2")
    }  # fmt: skip
    assert cli.main(["evaluate", "a", *where]) == 0
    (zoo / "fakezoo-1.2.dist-info").rename(zoo / "fakezoo-1.3.dist-info")
    write(zoo, {"fakezoo-1.3.dist-info/METADATA": "Name: fakezoo\nVersion: 1.3\n"})
    importlib.invalidate_caches()
    capsys.readouterr()
    assert cli.main(["evaluate", "a", *where]) == 1
    error = capsys.readouterr().err
    assert "fakezoo:create_model of fakezoo==1.2, here it is fakezoo==1.3" in error
    assert "pip install fakezoo==1.2" in error


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "no_such_zoo:make",
            r"no module no_such_zoo is installed here; .* pip install no_such_zoo",
        ),
        ("fakezoo.none:make", r"fakezoo is installed, but has no fakezoo\.none"),
        ("fakezoo:create_modle", "has no 'create_modle'; it defines: create_model, .*Net"),
        ("fakezoo:Smooth.bild", "has no 'Smooth.bild'; it defines: Smooth"),
        ("fakezoo:weights", "expected a function or class, got int"),
        ("os:system", "expected a module with networks, data or losses, got os of Python's own"),
        ("fakezoo.broken:make", r"ValueError: on purpose \[.*broken.py, line 1: raise"),
        ("fakezoo.leaves:make", r"SystemExit: 0 .*leaves.py, line 2: sys.exit"),
        ("fakezoo.lacks:make", "No module named 'missing_thing'"),
    ],
)
def test_modules_that_cannot_be_had(zoo: Path, spec: str, message: str) -> None:
    write(
        zoo,
        {
            "fakezoo/broken.py": "raise ValueError('on purpose')",
            "fakezoo/leaves.py": "import sys\nsys.exit(0)",
            "fakezoo/lacks.py": "import missing_thing",
        },
    )
    with pytest.raises(PluginError, match=message) as caught:
        load_factory(spec, Registry("model"))
    assert len(str(caught.value).splitlines()) <= 2


def test_a_registered_prefix_wins_over_a_module(zoo: Path) -> None:
    networks: Registry = Registry("network")
    assert is_plugin("fakezoo:create_model", networks)
    assert not is_plugin("torchvision:resnet18", models.MODELS)
    assert is_plugin("torchvision.models:resnet18", models.MODELS)
    net = create_model("torchvision.models:squeezenet1_0", {"num_classes": 3})
    assert type(net).__module__.startswith("torchvision.models")
    with pytest.raises(UnknownNameError, match="did you mean torchvision:NAME"):
        load_factory("torchvison:resnet18", models.MODELS)


def test_libraries_that_look_around_at_import_work(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What transformers and datasets do: versions, optional parts, a module that replaces itself.
    library = """
        import importlib.metadata, importlib.util, sys, types
        assert importlib.metadata.version("fakezoo") == "1.2"
        assert importlib.util.find_spec("torch") is not None
        assert importlib.util.find_spec("datasets").origin.endswith("__init__.py")
        import datasets

        class Lazy(types.ModuleType):
            def __getattr__(self, name):
                if name.startswith("_"):
                    raise AttributeError(name)
                return getattr(importlib.import_module(self.__name__ + ".late"), name)

        lazy = Lazy(__name__)
        lazy.__dict__.update(__path__=__path__, __spec__=__spec__, __file__=__file__)
        sys.modules[__name__] = lazy
        """
    write(
        zoo,
        {
            "biglibrary/__init__.py": library,
            "biglibrary/late.py": "import datasets\nNAME = datasets.NAME",
            "datasets/__init__.py": "NAME = 'installed'",
        },
    )
    text = """
        import importlib.metadata
        import biglibrary
        import datasets
        version = importlib.metadata.version("fakezoo")

        def make():
            from biglibrary import NAME
            return version, NAME, datasets.NAME, importlib.metadata.version("numpy")
        """
    write(tmp_path / "plug", {"net.py": text, "models/__init__.py": ""})
    try:
        found = factory(tmp_path / "plug")()
    finally:
        for name in ("biglibrary", "biglibrary.late", "datasets"):
            sys.modules.pop(name, None)
    assert found == ("1.2", "installed", "installed", np.__version__)


# -- manners --------------------------------------------------------------------------------------

SETS = """
    import random, sys
    import numpy as np
    import torch
    from torch import nn

    def upset(seed):
        torch.manual_seed(seed); np.random.seed(seed); random.seed(seed)
        torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)
        torch.set_default_device("meta"); np.seterr(all="raise")
        torch.set_float32_matmul_precision("medium"); torch.autograd.set_detect_anomaly(True)
        torch.use_deterministic_algorithms(True)

    print("imported")
    upset(1)

    def build(num_classes=2, fail=False):
        print("built")
        upset(2)
        if fail:
            raise ValueError("on purpose")
        torch.set_default_device("cpu")
        return nn.Linear(2, num_classes, dtype=torch.float32)

    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return 10
        def __getitem__(self, index):
            return torch.rand(2), index % 2

    def data(data_dir):
        torch.manual_seed(4)
        return {"train": Items(), "test": Items()}

    class Loud(nn.Linear):
        def forward(self, x):
            print("called")
            return super().forward(x.float())

    def loud(num_classes, input_shape):
        return Loud(input_shape[0], num_classes)

    class Leaves(nn.Linear):
        def forward(self, x):
            sys.exit(0)

    def leaves(num_classes, input_shape):
        return Leaves(input_shape[0], num_classes)

    def leaving_loss(outputs, targets):
        sys.exit(0)

    class LeavingItems(Items):
        def __getitem__(self, index):
            sys.exit(0)

    def leaving_items(data_dir):
        return {"train": LeavingItems(), "test": LeavingItems()}

    def leaving_factory(num_classes):
        sys.exit(0)
    """


def settings() -> list:
    return [
        torch.empty(0).dtype, torch.empty(0).device, torch.is_grad_enabled(), np.geterr(),
        torch.get_float32_matmul_precision(), torch.is_anomaly_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist(),
        random.getstate(), [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
    ]  # fmt: skip


def test_what_a_plugin_sets_globally_is_undone(tmp_path: Path) -> None:
    write(tmp_path, {"sets.py": SETS})
    before = settings()
    build = factory(tmp_path, "build", "sets.py")
    assert settings() == before, "at import"
    build()
    assert settings() == before, "when called"
    with pytest.raises(PluginError, match="on purpose"):
        build(fail=True)
    assert settings() == before, "when failing"
    loaded = [load_data(f"{tmp_path}/sets.py:data") for _ in range(2)]
    assert settings() == before, "when read"
    # Seeded where it is made, drawn where it is read: in between nothing is put back.
    assert loaded[0].info.digest == loaded[1].info.digest


def test_what_an_import_within_forward_sets_is_undone(tmp_path: Path) -> None:
    text = """
        from torch import nn

        class Net(nn.Linear):
            def forward(self, x):
                import sets
                return super().forward(x)

        def make():
            return Net(2, 2)
        """
    write(tmp_path, {"sets.py": SETS, "net.py": text})
    net, before = factory(tmp_path)(), settings()
    assert net(torch.ones(1, 2)).requires_grad
    assert settings() == before


def test_a_seed_decides_the_weights_whatever_a_plugin_seeds_at_import(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "import torch\ntorch.manual_seed(9)\n" + PLAIN, "b.py": PLAIN})
    nets = []
    for file in ("a.py", "b.py"):
        torch.manual_seed(3)
        nets.append(create_model(f"{tmp_path / file}:make"))
    assert torch.equal(nets[0].weight, nets[1].weight)


PLAIN = "from torch import nn\ndef make():\n    return nn.Linear(3, 3)\n"


@pytest.mark.parametrize(
    "part",
    [
        ["--model", "sets.py:leaves"],
        ["--model", "sets.py:leaving_factory"],
        ["--model", "sets.py:loud", "--loss", "sets.py:leaving_loss"],
        ["--model", "sets.py:loud", "--dataset", "sets.py:leaving_items"],
    ],
    ids=["forward", "factory", "loss", "items"],
)
def test_a_plugin_that_leaves_is_an_error(
    part: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    write(tmp_path, {"sets.py": SETS})
    monkeypatch.chdir(tmp_path)
    data = [] if "--dataset" in part else ["--dataset", "sets.py:data"]
    assert cli.main(["train", *part, *data, "--epochs", "1", "--no-figures", "--run", "x"]) == 1
    error = capsys.readouterr().err
    assert 1 <= len(error.splitlines()) <= 3
    line = 1 + textwrap.dedent(SETS)[: textwrap.dedent(SETS).index("sys.exit")].count("\n")
    assert f"{tmp_path / 'sets.py'}, line" in error
    assert "sys.exit(0)" in error
    if part[-1] == "sets.py:leaves":
        assert f"line {line}: sys.exit(0)" in error


def test_a_plugin_that_prints_leaves_json_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    write(tmp_path, {"sets.py": SETS})
    monkeypatch.chdir(tmp_path)
    train = ["train", "--model", "sets.py:loud", "--dataset", "sets.py:data", "--epochs", "1",
             "--no-figures", "--run", "x"]  # fmt: skip
    for command in (train, ["evaluate", "x", "--no-figures"]):
        assert cli.main([*command, "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["run"] == "x"
        assert "called" in captured.err
    assert cli.main(["evaluate", "x", "--no-figures"]) == 0
    assert "called" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    ["a\0b.py", "a" * 300 + ".py", "~no-user-of-this-name/a.py"],
    ids=["null", "long", "user"],
)
def test_a_path_that_cannot_be_looked_up_is_refused(path: str) -> None:
    with pytest.raises(PluginError, match=r"expected a plug-in as path/file\.py:factory"):
        load_plugin(f"{path}:factory")
    if not path.startswith("~"):
        assert absolute_spec(f"{path}:factory").endswith(f"{path}:factory")
        assert describe_plugin(f"{path}:factory", {})["sha256"] is None
