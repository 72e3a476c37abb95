"""What killed processes leave goes at the next start; what living ones write or hold stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from isoloss.records import hdf5
from isoloss.records.drafts import Draft, sweep_drafts
from isoloss.records.files import FileError, write_atomically, write_text, write_together
from isoloss.records.leftovers import sweep, sweep_beside
from isoloss.records.locks import locked
from isoloss.records.runs import Run, find_run, locked_run, new_run

# A process in the middle of each kind of work, until it is told to end.
AT_WORK = """
import sys
from pathlib import Path
from isoloss.records.files import write_atomically
from isoloss.records.locks import locked_file
from isoloss.records.runs import locked_run, new_run

def wait(*_):
    print("at work", flush=True)
    sys.stdin.read()

kind, results = sys.argv[1], Path(sys.argv[2])
run = results / "runs" / "a"
if kind == "draft":
    write_atomically(run / "checkpoints" / "last.pt", wait)
elif kind == "lock of a file":
    with locked_file(run / "s.h5"):
        wait()
elif kind == "lock of a run":
    with locked_run(results, "b"):
        wait()
else:
    with locked_run(results, "b"), new_run(results, "b", {}):
        wait()
"""
KINDS = ["draft", "lock of a file", "lock of a run", "run in the making"]


def hidden(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob(".*"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    with new_run(tmp_path, "a", {}):
        pass
    return tmp_path


def start_as_a_command(results: Path) -> None:
    sweep_beside(results / "runs")
    sweep(results / "runs" / "a")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_use_stays_and_goes_after_a_kill(kind: str, results: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", AT_WORK, kind, str(results)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        before = hidden(results)
        assert before
        start_as_a_command(results)
        assert hidden(results) == before
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert hidden(results) == before
    start_as_a_command(results)
    assert hidden(results) == []
    assert Run(results / "runs" / "a").config() == {}


def test_whoever_writes_in_a_folder_sweeps_it_of_drafts(tmp_path: Path) -> None:
    (tmp_path / ".isoloss-ab12cd_3.png").touch()
    write_text(tmp_path / "a.txt", "a")
    assert os.listdir(tmp_path) == ["a.txt"]


FOREIGN = (
    ".isoloss-ab12.png", ".isoloss-AB12CD_3.png", ".isoloss", "isoloss-ab12cd_3.png",
    ".notes-personal.md", ".a-ab12cd_3.png", "a.tmp", ".a.tmp",
)  # fmt: skip


def test_nothing_of_another_name_is_touched(results: Path) -> None:
    runs = results / "runs"
    for folder in (runs, runs / "a"):
        for name in FOREIGN:
            (folder / name).touch()
        (folder / ".package.lock").write_text("somebody else's")  # ours are empty
        (folder / ".old-versions").mkdir()  # as long as a name of ours
        (folder / ".old-versions" / "thesis.tex").touch()
        (folder / ".git").mkdir()
        (folder / ".git" / ".isoloss-ab12cd_3.png").touch()
    before = sorted(results.rglob("*"))
    start_as_a_command(results)
    assert sorted(results.rglob("*")) == before


def test_a_sweep_before_the_lock_makes_another_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isoloss.records import drafts

    lock, swept = drafts._lock, []

    def late(file: object, wait: bool = True) -> None:
        if not swept:
            swept.extend(tmp_path.iterdir())
            swept[0].unlink()
        lock(file, wait)

    monkeypatch.setattr(drafts, "_lock", late)
    draft = Draft(tmp_path / "a.txt")
    assert draft.path != swept[0]
    assert list(tmp_path.iterdir()) == [draft.path]
    draft.discard()
    assert list(tmp_path.iterdir()) == []


def test_drafts_that_are_written_survive_sweeps_and_have_the_suffix(tmp_path: Path) -> None:
    def write(draft: Path) -> None:
        draft.write_text("new")
        sweep_drafts(tmp_path)
        assert draft.suffix == ".txt"

    write_atomically(tmp_path / "a.txt", write)
    write_together({tmp_path / "a.txt": b"a", tmp_path / "b.txt": b"b"})
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]
    if sys.platform != "win32":
        mask = os.umask(0)
        os.umask(mask)
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_large_file_is_written_by_hdf5_to_a_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "LARGEST_IMAGE", 0)  # HDF5 locks files, too
    hdf5.write_hdf5(tmp_path / "a.h5", "surface", {}, lambda file: None, 1)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["isoloss"] == "surface"


def test_a_run_half_replaced_comes_back_at_the_start_of_another(results: Path) -> None:
    work = results / "runs" / ".a-ab12cd_3"
    work.mkdir()
    (results / "runs" / "a").rename(work / ".kept")
    with locked_run(results, "other"):
        assert find_run(results, "a").config() == {}
    assert hidden(results) == []


def test_sweeping_waits_for_nobody(results: Path) -> None:
    import time

    with locked(results / "runs" / "a", "run a"):
        began = time.monotonic()
        for _ in range(20):
            start_as_a_command(results)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("write", [write_text, lambda p, t: write_together({p: t.encode()})])
def test_a_folder_that_is_gone_does_not_come_back(write, tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        write(tmp_path / "gone" / "a.txt", "a")
    lines = str(caught.value).splitlines()
    assert f"expected the folder {tmp_path / 'gone'} to write a.txt in, got none" in lines[0]
    assert "put it back to go on" in lines[1]
    assert len(lines) == 2
    assert not (tmp_path / "gone").exists()
