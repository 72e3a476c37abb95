"""The installed package beside Hugging Face's `datasets` and `transformers`.

An environment of its own takes the running one's packages (torch, ..) from behind, without this
package; Hugging Face's two and a wheel of this package are installed into it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HOUSE = Path(__file__).resolve().parent.parent
THEIRS = ("datasets", "transformers")
DIGESTS = f"""
    import hashlib, json
    from importlib import metadata
    files = [f.locate() for name in {THEIRS} for f in metadata.distribution(name).files]
    files = [f for f in files if f.is_file() and f.suffix != ".pyc"]
    print(json.dumps({{str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}}))
    """
NET = """
    from importlib import metadata

    import datasets
    import transformers
    from torch import nn
    from transformers import ViTConfig, ViTForImageClassification

    for package in (datasets, transformers):
        assert metadata.version(package.__name__) == package.__version__

    class Net(nn.Module):
        def __init__(self, size, classes):
            super().__init__()
            self.vit = ViTForImageClassification(ViTConfig(
                hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                image_size=size, patch_size=4, num_channels=1, num_labels=classes,
            ))

        def forward(self, x):
            from datasets import Dataset    # late: still theirs
            assert Dataset is datasets.Dataset
            return self.vit(x).logits

    def build(input_shape, num_classes):
        return Net(input_shape[-1], num_classes)
    """
DATA = """
    from datasets import Dataset

    def load(data_dir):
        images = [[[[(i * j * k % 7) / 7 for j in range(8)] for k in range(8)]] for i in range(40)]
        rows = Dataset.from_dict({"x": images, "y": [i % 3 for i in range(40)]})
        rows = rows.with_format("torch")
        x, y = rows["x"][:], rows["y"][:]
        return {"train": (x, y), "test": (x[:10], y[:10])}
    """


def run(*command, cwd, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip


def output(*command, cwd):
    done = run(*command, cwd=cwd, HF_HOME=str(cwd / "huggingface"), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory):
    """The programs of an environment with theirs and, installed after them, ours."""
    folder = tmp_path_factory.mktemp("others")
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(output(python, "-c", code, cwd=folder).strip())
    # A path in a .pth file comes after the environment's own, and the .pth files in it are not
    # read: neither an editable installation of this package nor an older one is in the way.
    (own / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--timeout", "20", "install", "-q")
    done = run(*pip, *THEIRS, cwd=folder)
    if done.returncode:
        pytest.skip(f"pip cannot install {' and '.join(THEIRS)}: {done.stderr.strip()[-200:]}")
    before = digests(python, folder)

    skipped = shutil.ignore_patterns(".git", ".*cache", "*.egg-info", "build", "results", "data")
    shutil.copytree(HOUSE, folder / "source", ignore=skipped)
    wheel = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    output(*wheel, "--wheel-dir", folder, folder / "source", cwd=folder)
    output(*pip, "--no-deps", *folder.glob("*.whl"), cwd=folder)
    assert digests(python, folder) == before, "our wheel has changed files of theirs"
    return programs


def digests(python, folder):
    found = json.loads(output(python, "-c", textwrap.dedent(DIGESTS), cwd=folder))
    assert len(found) > 1000
    return found


@pytest.fixture
def plug_ins(tmp_path):
    (tmp_path / "net.py").write_text(textwrap.dedent(NET))
    (tmp_path / "data.py").write_text(textwrap.dedent(DATA))
    return ["--model", "net.py:build", "--dataset", "data.py:load"]


def test_theirs_work_beside_ours(bin_folder, tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n")
    code = """
        import isoloss.models, isoloss.datasets, transformers
        from datasets import load_dataset
        table = load_dataset("csv", data_files="table.csv", split="train")
        print(isoloss.__file__, transformers.__file__, table["b"][:], sep="\\n")
        """
    ours, theirs, column = output(
        bin_folder / "python", "-c", textwrap.dedent(code), cwd=tmp_path
    ).splitlines()
    assert Path(ours).is_relative_to(bin_folder.parent)
    assert Path(theirs).parent.name == "transformers"
    assert column == "[2, 4]"


def test_the_commands_work_in_an_empty_folder(bin_folder, tmp_path):
    ours = (bin_folder / "isoloss",)
    train = ["--model", "mnist-light", "--fraction", "0.2", "--epochs", "1"]
    output(*ours, "train", *train, cwd=tmp_path)
    output(*ours, "surface", "--x=-1:1:3", cwd=tmp_path)
    hessian = ["--samples", "50", "--top", "1", "--probes", "1", "--steps", "4"]
    output(*ours, "hessian", *hessian, "--trace-budget", "8", cwd=tmp_path)
    (made,) = (tmp_path / "results" / "runs").iterdir()
    assert {"surface-1d.h5", "surface-1d.png", "hessian.h5", "hessian.png"} <= {
        file.name for file in made.iterdir()
    }


@pytest.mark.parametrize("door", ["isoloss", "cli.py"])
def test_a_plug_in_gets_theirs(bin_folder, tmp_path, plug_ins, door):
    ours = [bin_folder / "isoloss"] if door == "isoloss" else [bin_folder / "python", HOUSE / door]
    output(*ours, "train", *plug_ins, "--epochs", "1", "--run", "theirs", cwd=tmp_path)
    output(*ours, "surface", "theirs", "--x=-1:1:3", "--no-figures", cwd=tmp_path)
    assert (tmp_path / "results" / "runs" / "theirs" / "surface-1d.h5").exists()
