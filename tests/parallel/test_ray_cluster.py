"""Actors of Ray: what spawned processes are held to, on one small cluster started here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from isoloss import cli
from isoloss.parallel import RayCluster, WorkError
from isoloss.parallel import ray_cluster as module
from isoloss.records.files import FileError

# Looked for only: what binds it to this machine is set before it is imported.
if find_spec("ray") is None:
    pytest.skip("needs the extra `cluster`", allow_module_level=True)
pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Ray as the executor starts it where none runs, kept for all tests of the file."""
    with module._connected("auto", {"num_cpus": 2}) as ray:
        yield ray


@pytest.fixture
def recipes(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import number_recipes

    return number_recipes


@pytest.fixture
def small(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import surface_recipes

    return surface_recipes.Small


def running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(processes, seconds):
    until = time.monotonic() + seconds
    while any(map(running, processes)) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(map(running, processes))


def workers_in(folder):
    return [int(p.name) for p in Path(folder).iterdir() if p.name.isdigit()]


def test_it_is_reachable_from_this_machine_alone(cluster):
    assert cluster.util.get_node_ip_address() == "127.0.0.1"
    nodes = {key for key in cluster.cluster_resources() if key.startswith("node:")}
    assert nodes == {"node:127.0.0.1", "node:__internal_head__"}
    host, port = cluster.get_runtime_context().gcs_address.rsplit(":", 1)
    assert host == "127.0.0.1"
    here = socket.gethostbyname(socket.gethostname())
    if not here.startswith("127."):
        with pytest.raises(OSError, match="refused"), socket.create_connection((here, int(port))):
            pass
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_every_value_once_and_a_killed_actor_is_replaced(recipes, tmp_path):
    values = RayCluster(workers=2).map(recipes.Squares(str(tmp_path), seconds=0.02), range(100))
    found = [next(values)]
    os.kill(workers_in(tmp_path)[0], signal.SIGKILL)
    found += values
    assert sorted(found) == [(n, n**2) for n in range(100)]
    assert len(workers_in(tmp_path)) >= 2
    assert ended(workers_in(tmp_path), 20)


def test_the_same_bytes_after_one_of_two_actors_was_killed(small, tmp_path):
    build = small(y="-1:1:3", repeat=2, seconds=0.01)
    one, two = (tmp_path / way / "a.h5" for way in ("one", "two"))
    build().run(one)
    killed = []

    def kill(done, total):
        if done == 3:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    build().run(two, kill, executor=RayCluster(workers=2), build=build)
    assert killed
    assert two.read_bytes() == one.read_bytes()


def actors():
    """Processes of actors that are running."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and running(int(folder.name)):
            text = (folder / "cmdline").read_bytes()
            if text.startswith(b"ray::IsolossWorker"):
                found.append(int(folder.name))
    return found


def test_an_item_that_ends_its_actors_is_named_and_all_others_finished(recipes):
    values = RayCluster(workers=2).map(recipes.Squares(kills=7), range(12), lambda n: f"no. {n}")
    found = []
    with pytest.raises(WorkError, match=r"expected a value of no\. 7, got 3 workers"):
        found.extend(values)
    assert sorted(n for n, _ in found) == [n for n in range(12) if n != 7]


def test_errors_warnings_and_other_code(recipes, monkeypatch):
    cluster = RayCluster(workers=1)
    with pytest.raises(FileError, match=r"^no such number$"):
        list(cluster.map(recipes.Squares(raises=2, error=FileError), range(4)))
    with pytest.raises(WorkError, match=r"^no\. 2: ValueError: no such number \["):
        list(cluster.map(recipes.Squares(raises=2), range(4), lambda n: f"no. {n}"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(cluster.map(recipes.Squares(warns=True), range(4)))
    assert [str(w.message) for w in caught if "said" in str(w.message)] == ["said by all"]
    monkeypatch.setattr("isoloss.parallel.worker.code_digest", lambda: "of-another")
    with pytest.raises(WorkError, match=r"sends them work \(of-another\), got [0-9a-f]{16} on"):
        list(cluster.map(recipes.Squares(), range(3)))


def test_a_command_by_actors_writes_what_one_process_writes(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    results = ("--results", str(tmp_path))
    train = ("train", "--run", "a", "--model", f"{tmp_path}/net.py:make", "--fraction", "0.1")
    assert cli.main([*train, "--epochs", "1", "--no-figures", *results]) == 0
    surface = ("surface", "a", "--x=-1:1:7", "--no-figures", "--out", str(tmp_path / "s.h5"))
    assert cli.main([*surface, *results]) == 0
    one = (tmp_path / "s.h5").read_bytes()
    (tmp_path / "s.h5").unlink()
    assert cli.main([*surface, *results, "--cluster", "auto", "--workers", "2"]) == 0
    assert (tmp_path / "s.h5").read_bytes() == one


SCRIPT = """
import sys
from number_recipes import Squares
from isoloss.parallel import RayCluster

for number, _ in RayCluster(workers=1).map(Squares(sys.argv[1], seconds=0.05), range(10_000)):
    print(number, flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_nothing_outlives_the_driver(tmp_path, name):
    script, folder = tmp_path / "script.py", tmp_path / "workers"
    script.write_text(SCRIPT)
    folder.mkdir()
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    before = session_processes()
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    workers, of_session = workers_in(folder), session_processes() - before
    assert of_session > set(workers)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=120)
    assert ended(workers, 20)
    # After SIGKILL Ray's agents look for the rest of it for a minute or two.
    assert ended(of_session, 240 if name == "SIGKILL" else 30)


def session_processes():
    """Processes that belong to any Ray."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and running(int(folder.name)):
            text = (folder / "cmdline").read_bytes()
            if text.startswith(b"ray::") or b"/ray/" in text:
                found.add(int(folder.name))
    return found
