"""Processes that share work: every value once, lost workers, errors as they are, no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from isoloss.parallel import InProcess, Processes, WorkError
from isoloss.parallel import code as code_of_workers
from isoloss.parallel.chunks import CHUNK_SECONDS, MESSAGE_SECONDS, chunk_size
from isoloss.records.files import FileError

HERE = Path(__file__).parent
HOUSE = HERE.parents[1]


@pytest.fixture
def recipes(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import number_recipes

    return number_recipes


def is_alive(process):
    """Whether a process runs; one that has ended and was not asked for does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def ended(processes, seconds=20.0):
    """Wait until none of these processes runs."""
    until = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_alive, processes))


def workers_in(folder):
    return [int(p.name) for p in Path(folder).iterdir() if p.name.isdigit()]


@pytest.mark.parametrize("items", [[], [3], range(100)])
def test_every_value_once_and_workers_end(recipes, tmp_path, items):
    found = list(Processes(2).map(recipes.Squares(str(tmp_path)), list(items)))
    assert sorted(found) == [(n, n**2) for n in items]
    assert list(InProcess().map(recipes.Squares(), list(items))) == sorted(found)
    assert len(workers_in(tmp_path)) <= min(2, len(items))
    assert os.getpid() not in workers_in(tmp_path)
    assert ended(workers_in(tmp_path))


def test_a_worker_that_is_lost_costs_nothing(recipes, tmp_path):
    recipe = recipes.Squares(str(tmp_path), kills=30, once=True)
    assert sorted(Processes(1).map(recipe, range(60))) == [(n, n**2) for n in range(60)]
    assert len(workers_in(tmp_path)) == 2
    assert ended(workers_in(tmp_path))


def test_a_worker_killed_from_outside_is_replaced(recipes, tmp_path):
    values = Processes(2).map(recipes.Squares(str(tmp_path), seconds=0.02), range(60))
    found = [next(values)]
    os.kill(workers_in(tmp_path)[0], signal.SIGKILL)
    found += values
    assert sorted(found) == [(n, n**2) for n in range(60)]
    assert len(workers_in(tmp_path)) >= 2


def test_an_item_that_ends_its_workers_is_named_and_all_others_finished(recipes, tmp_path):
    values, found = Processes(2).map(recipes.Squares(kills=7), range(20), lambda n: f"no. {n}"), []
    with pytest.raises(WorkError, match=r"expected a value of no\. 7, got 3 workers") as raised:
        found.extend(values)
    assert sorted(n for n, _ in found) == [n for n in range(20) if n != 7]
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (FileError, FileError, "^no such number$"),
        (ValueError, WorkError, r"^no\. 4: ValueError: no such number \[.*number_recipes\.py"),
        (SystemExit, WorkError, r"^no\. 4: SystemExit: no such number"),
        (MemoryError, MemoryError, "^no such number$"),
    ],
)
def test_errors_of_workers_arrive_as_themselves(recipes, error, expected, text):
    recipe = recipes.Squares(raises=4, error=error)
    with pytest.raises(expected, match=text) as raised:
        list(Processes(1).map(recipe, range(6), lambda n: f"no. {n}"))
    assert type(raised.value) is expected


def test_workers_that_cannot_be_built_say_why(recipes, monkeypatch):
    with pytest.raises(FileError, match=r"^expected a file, got none$"):
        list(Processes(2).map(recipes.refuses, range(3)))
    with pytest.raises(WorkError, match="SystemExit"):
        list(Processes(2).map(recipes.leaves, range(3)))
    monkeypatch.setattr("isoloss.parallel.worker.code_digest", lambda: "of-another")
    with pytest.raises(WorkError, match=r"sends them work \(of-another\), got [0-9a-f]{16} on"):
        list(Processes(2).map(recipes.Squares(), range(3)))


def test_the_code_digest_is_of_the_source_alone(monkeypatch, tmp_path):
    digest = code_of_workers.code_digest.__wrapped__
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "sub" / "b.py").write_text("b = 1\n")
    monkeypatch.setattr(code_of_workers, "HOUSE", tmp_path)
    first = digest()
    (tmp_path / "tests").mkdir()
    for beside in ("tests/test_a.py", "notes.txt"):
        (tmp_path / beside).write_text("else")
    assert digest() == first
    (tmp_path / "sub" / "b.py").write_text("b = 2\n")
    second = digest()
    monkeypatch.setattr(code_of_workers.metadata, "version", lambda name: "0.0")
    assert len({first, second, digest()}) == 3


def test_a_warning_of_all_workers_is_given_once(recipes):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(Processes(2).map(recipes.Squares(warns=True), range(12)))
    assert [str(one.message) for one in caught if "said" in str(one.message)] == ["said by all"]


SCRIPT = """
import sys
from number_recipes import Squares
from isoloss.parallel import Processes

if __name__ == "__main__":
    for number, _ in Processes(2).map(Squares(sys.argv[1], seconds=0.05), range(10_000)):
        print(number, flush=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_no_worker_outlives_the_driver(tmp_path, name):
    script, folder = tmp_path / "script.py", tmp_path / "workers"
    script.write_text(SCRIPT)
    folder.mkdir()
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    workers = workers_in(folder)
    if name == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to workers as well
    else:
        process.kill()
    _, error = process.communicate(timeout=30)
    assert workers
    assert ended(workers)
    # Of the driver alone, as of any script; workers say nothing.
    assert error.count("Traceback") == (name == "SIGINT")


def test_chunks_are_long_enough_and_shrink_to_the_end():
    for seconds in (1e-4, 0.01, 0.14, 3.0):
        for workers in (1, 2, 64, 4096):
            left, sizes = 40_401, []
            while left:
                sizes.append(chunk_size(left, workers, seconds))
                left -= sizes[-1]
            longest = max(CHUNK_SECONDS, MESSAGE_SECONDS * workers + seconds, seconds)
            assert max(sizes) * seconds <= longest
            assert sizes == sorted(sizes, reverse=True)
            assert sizes[-1] <= max(1, np.ceil(MESSAGE_SECONDS * workers / seconds))
            # Each worker gets some, and no chunk is more than its share of what is left.
            assert sizes[0] <= -(-40_401 // workers)
            assert len(sizes) >= workers
            # Who sends them is not busier than the workers, where there is enough to do.
            if 40_401 * seconds > 20 * workers * max(CHUNK_SECONDS, longest):
                assert len(sizes) * MESSAGE_SECONDS <= 40_401 * seconds / workers
    assert chunk_size(1000, 2, None) == 1
    assert np.isfinite(chunk_size(1000, 2, 0.0))
