"""`surface --workers`: the file of one process, other people's code, errors, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from isoloss import cli
from isoloss.experiments import Subject, spreading
from isoloss.experiments.spreading_settings import Spreading
from isoloss.parallel import Processes, RayCluster
from isoloss.records.surfaces import read_surface

HOUSE = Path(__file__).resolve().parents[2]
NETWORK = """
import os
import time

from models.head import Head


def make(input_shape, num_classes):
    return Head(num_classes)


def doubled(outputs, targets):
    print("printed by a metric")
    return 2.0 * (outputs.argmax(1) == targets)
"""
HEAD = """
import os
import time

from torch import nn


class Head(nn.Linear):
    def __init__(self, classes):
        super().__init__(784, classes)

    def forward(self, x):
        if self.weight.norm() > float(os.environ.get("LIMIT", "inf")):
            raise ValueError("too far")
        time.sleep(float(os.environ.get("SLOW", "0")))
        return super().forward(x.flatten(1))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (folder / "models").mkdir()
    (folder / "models" / "__init__.py").touch()
    (folder / "models" / "head.py").write_text(HEAD)
    (folder / "net.py").write_text(NETWORK)
    assert cli.main(["train", "--run", "a", "--model", f"{folder}/net.py:make", "--fraction", "0.1",
                     "--epochs", "1", "--no-figures", "--results", str(folder)]) == 0  # fmt: skip
    return folder


def surface(results, *arguments):
    metric = ("--metric", f"{results}/net.py:doubled")
    return ["surface", "a", "--x=-1:1:5", *metric, "--no-figures", "--results", str(results),
            "--out", str(results / "s.h5"), "--json", *arguments]  # fmt: skip


@pytest.fixture
def whole(results, capfd):
    """The file of one process."""
    file = results / "s.h5"
    if not (results / "kept.h5").exists():
        assert cli.main(surface(results)) == 0
        file.rename(results / "kept.h5")
    for left in results.glob("s.*"):
        left.unlink()
    capfd.readouterr()
    return (results / "kept.h5").read_bytes()


@pytest.mark.slow
def test_other_peoples_code_by_two_workers(results, whole, capfd):
    assert cli.main(surface(results, "--workers", "2")) == 0
    printed = json.loads(capfd.readouterr().out)  # what workers print is no part of it
    assert printed["points_computed"] == 6
    assert (results / "s.h5").read_bytes() == whole
    assert "workers" not in str(read_surface(results / "s.h5").settings)


@pytest.mark.slow
def test_what_a_network_raises_names_the_point_and_keeps_the_rest(
    results, whole, capfd, monkeypatch
):
    weights = torch.load(results / "runs/a/checkpoints/last.pt", weights_only=True)
    monkeypatch.setenv("LIMIT", str(1.3 * float(weights["weight"].norm())))  # |x| < 0.83
    assert cli.main(surface(results, "--workers=2")) == 1
    said = capfd.readouterr().err
    assert re.search(r"error: the point x = -?1: ValueError: too far \[.*head\.py, line", said)
    assert "Traceback" not in said
    monkeypatch.delenv("LIMIT")
    assert read_surface(results / "s.h5").origin
    assert cli.main(surface(results)) == 0
    assert (results / "s.h5").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ended_with_workers_it_goes_on_alone_and_leaves_none(results, whole, name):
    process = subprocess.Popen(
        [sys.executable, HOUSE / "cli.py", *surface(results, "--workers", "2")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SLOW": "0.2"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    journal, until = results / "s.h5.journal", time.monotonic() + 200
    while not (journal.exists() and journal.read_bytes().partition(b"\n")[2]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, getattr(signal, name))  # as a terminal, and Slurm, do it: to all
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1, error
    assert re.fullmatch(
        r"error: interrupted after \d of 6 points, which are kept in .*s\.h5\n"
        r"the same command goes on from there\n", "\n".join(error.splitlines()[-2:]) + "\n"
    )  # fmt: skip
    assert "Traceback" not in error
    until = time.monotonic() + 10
    while (left := of_session(process.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left
    assert cli.main(surface(results)) == 0
    assert (results / "s.h5").read_bytes() == whole


@pytest.mark.slow
def test_a_network_in_memory_is_sent_to_workers():
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    subject = Subject(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), train=(x, y))
    one, two = (subject.surface(x="-1:1:3", workers=workers) for workers in (None, 2))
    assert (one.values["train_loss"] == two.values["train_loss"]).all()
    assert one.settings == two.settings


@pytest.mark.parametrize(
    ("asked", "omp", "stored", "gpus", "expected"),
    [
        ({}, None, None, 0, (None, 8)),
        ({}, None, 3, 0, (None, 3)),
        ({"workers": 4}, None, None, 0, (4, 2)),
        ({"workers": 16}, None, None, 0, (16, 1)),
        ({"workers": 2}, None, 3, 0, (2, 3)),
        ({"workers": "auto"}, None, None, 0, (8, 1)),
        ({"workers": "auto"}, "2", None, 0, (4, 2)),
        ({"workers": "auto"}, None, 8, 0, (None, 8)),
        ({"workers": "auto"}, None, None, 2, (2, 1)),
        ({"workers": "auto"}, None, None, -1, (None, 1)),
        ({"workers": 1}, None, None, 0, (None, 8)),
        ({"cluster": "auto"}, None, None, 0, ("ray", 1)),
    ],
)
def test_workers_and_their_threads(monkeypatch, asked, omp, stored, gpus, expected):
    monkeypatch.setattr(spreading, "processors", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    device = torch.device(("xpu", "cpu", "cuda", "cuda")[gpus + 1])
    found = spreading.spread(Spreading(**asked), device, stored)
    executor = found.executor
    workers = executor.workers if isinstance(executor, Processes) else None
    assert ("ray" if isinstance(executor, RayCluster) else workers, found.threads) == expected
    if isinstance(executor, Processes):
        assert executor.gpus == gpus


def test_without_ray_it_says_what_to_install(results, whole, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(surface(results, "--cluster", "auto")) == 1
    assert capfd.readouterr().err.startswith("error: --cluster: expected Ray, which is not")
    assert cli.main(surface(results, "--workers", "0")) == 2
    assert cli.main(surface(results, "--workers", "many")) == 2


SEARCH = """
import sys
from pathlib import Path

from isoloss.experiments.train_options import TrainOptions
from isoloss.experiments.trial_runs import Place, run_trials

if __name__ == "__main__":
    options = [TrainOptions(run=name, epochs=10_000, model=sys.argv[2]) for name in "ab"]
    numbered = iter(enumerate(options))
    list(run_trials(lambda: next(numbered, None), Place(Path(sys.argv[1])), 2))
"""
NOTING = """
import os
from torch import nn


def make(num_classes):
    open(os.path.join(os.path.dirname(__file__), f"{os.getpid()}.pid"), "w").close()
    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_trials_of_a_search_that_was_killed_end(tmp_path):
    (tmp_path / "search.py").write_text(SEARCH)
    (tmp_path / "net.py").write_text(NOTING)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "search.py", tmp_path, f"{tmp_path}/net.py:make"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 200
    while len(trials := [int(p.stem) for p in tmp_path.glob("*.pid")]) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while any(map(runs, trials)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(runs, trials))


def of_session(leader):
    """Processes of a session that run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(state[3]) == leader and state[0] != "Z":
            found.append(int(folder.name))
    return found


def runs(process):
    """Whether a process runs; one that has ended and was not asked for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_the_plane_of_paths_by_two_workers(tmp_path):
    place = ("--results", str(tmp_path))
    small = ("--model", "mlp", "--model-arg", "width=4", "--fraction", "0.1", "--no-figures")
    train = ("train", "--run", "a", "--epochs", "3", "--checkpoint-every", "1", *small, *place)
    assert cli.main([*train]) == 0
    command = ("trajectory", "a", "--x=-1:1:4", "--y=-1:1:3", "--no-figures", *place)
    file = tmp_path / "runs" / "a" / "trajectory.h5"
    assert cli.main([*command]) == 0
    one = file.read_bytes()
    file.unlink()
    assert cli.main([*command, "--workers", "2"]) == 0
    assert file.read_bytes() == one
