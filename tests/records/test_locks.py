"""Locks, with real second processes: refused, named, let go whatever ends the holder."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from isoloss.records.files import FileError
from isoloss.records.locks import LockedError, locked, locked_file
from isoloss.records.runs import locked_run, new_run

HOLD = """
import sys
from pathlib import Path
from isoloss.records.locks import locked_file
from isoloss.records.runs import locked_run
kind, results, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
with locked_run(results, name) if kind == "run" else locked_file(results / "runs" / name):
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """A process that holds a lock until it is told to end."""

    def __init__(self, kind, results, name):
        command = [sys.executable, "-c", HOLD, kind, str(results), name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "held\n"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def results(tmp_path):
    for name in ("a", "a-b"):
        with new_run(tmp_path, name, {}):
            pass
    return tmp_path


def tree(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


RUN, OTHER = ("run", "a"), ("run", "a-b")
SURFACE, HESSIAN = ("file", "a/s.h5"), ("file", "a/h.h5")


@pytest.mark.parametrize(
    ("first", "second", "free"),
    [
        (RUN, RUN, False), (RUN, SURFACE, False), (SURFACE, RUN, False),
        (SURFACE, SURFACE, False), (SURFACE, HESSIAN, True), (RUN, OTHER, True),
        (OTHER, SURFACE, True), (SURFACE, OTHER, True),
    ],
)  # fmt: skip
def test_who_excludes_whom(results, first, second, free):
    def take():
        kind, name = second
        return locked_run(results, name) if kind == "run" else locked_file(results / "runs" / name)

    before = tree(results)
    with Holder(first[0], results, first[1]) as holder:
        if free:
            with take():
                pass
        else:
            with pytest.raises(LockedError) as error, take():
                pass
            lines = str(error.value).splitlines()
            assert len(lines) <= 3
            assert f"process {holder.process.pid} on" in lines[0]
            assert f"{first[0]} " in lines[0]  # its command line
            assert "wait" in lines[1]
    with take():
        pass
    assert tree(results) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_process_lets_its_lock_go(results):
    with Holder("run", results, "a") as holder:
        holder.process.send_signal(signal.SIGKILL)
        holder.process.wait()
    assert (results / "runs" / ".a.lock").exists()  # what is left locks nothing
    with locked_run(results, "a"):
        pass
    assert not [p.name for p in (results / "runs").iterdir() if p.name.startswith(".")]


RACE = """
import sys, time
from pathlib import Path
from isoloss.records.locks import LockedError, locked
folder, inside = Path(sys.argv[1]), 0
end = time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        with locked(folder / "x", "x"):
            (folder / "alone").touch(exist_ok=False)  # fails where another is inside
            time.sleep(0.0005)
            (folder / "alone").unlink()
            inside += 1
    except LockedError:
        pass
print(inside)
"""


def test_no_two_are_inside_though_the_lock_file_comes_and_goes(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        printed, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        assert int(printed) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_holder_is_as_good_as_nameless_where_its_note_is_damaged(tmp_path):
    with locked(tmp_path / "x", "it"):
        for damage in (b"", b"\xff\xfe\xff"):
            (tmp_path / ".x.holder").write_bytes(damage)
            with (
                pytest.raises(LockedError, match="but another process is at work"),
                locked(tmp_path / "x", "it"),
            ):
                pass


def test_an_error_inside_lets_the_lock_go_and_passes_through(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "deep" / "x", "it"):
        raise KeyError
    with locked(tmp_path / "deep" / "x", "it"):
        assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == [".x.holder", ".x.lock"]


def test_no_lock_where_nothing_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileError, match="could not lock it"),
        locked(tmp_path / "file" / "x", "it"),
    ):
        pass
