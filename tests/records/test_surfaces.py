"""Surface files and the journal: foreign files, damage at every byte, atomic replacement."""

from __future__ import annotations

import gc
import os

import h5py
import numpy as np
import pytest

from isoloss.records.files import FileError, write_atomically
from isoloss.records.hdf5 import write_hdf5
from isoloss.records.identity import SettingsDifferError
from isoloss.records.journal import Journal
from isoloss.records.locks import LockedError
from isoloss.records.surfaces import SurfaceStore, journal_path, read_surface

VALUES = (0.1, np.nan)


def store_at(path, settings=None, **options):
    x, y, columns = np.linspace(-1, 1, 3), np.linspace(0, 1, 2), ["train_loss", "train_acc"]
    return SurfaceStore(path, x, y, columns, settings or {"a": 1}, [], 0.25, **options)


def test_a_journal_survives_a_cut_at_every_byte(tmp_path):
    path = tmp_path / "s.h5.journal"
    journal = Journal(path, {"a": 1}, 2)
    journal.start()
    for index in range(3):
        journal.append(index, (float(index), np.inf))
    journal.close()
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    record = (len(content) - header) // 3
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = max(0, length - header) // record
        assert journal.read() == {i: (float(i), np.inf) for i in range(whole)}
    # Started again, the damaged end goes and new points follow.
    path.write_bytes(content[:-3])
    assert sorted(journal.start()) == [0, 1]
    journal.append(7, (7.0, 7.0))
    journal.close()
    assert sorted(journal.read()) == [0, 1, 7]


def test_a_damaged_record_and_what_follows_are_dropped(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, {}, 1)
    journal.start()
    for index in range(4):
        journal.append(index, (1.0,))
    journal.close()
    content = bytearray(path.read_bytes())
    record = (len(content) - content.index(b"\n") - 1) // 4
    content[-2 * record + 9] ^= 1  # within the third record's value
    path.write_bytes(content)
    assert list(journal.read()) == [0, 1]


def test_the_journal_of_another_computation_is_refused(tmp_path):
    store = store_at(tmp_path / "s.h5")
    store.load()
    store.start()
    store.append(0, VALUES)
    with pytest.raises(SettingsDifferError, match=r"a \(stored 1, now 2\)"):
        store_at(tmp_path / "s.h5", {"a": 2}).load()


def test_two_do_not_share_a_file(tmp_path):
    first, second = store_at(tmp_path / "s.h5"), store_at(tmp_path / "s.h5")
    fresh = store_at(tmp_path / "s.h5", {"a": 2}, fresh=True)
    first.start()
    first.append(0, VALUES)
    for other in (second, fresh):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
            other.start()
    first.append(1, VALUES)
    first.finish()
    second.load()
    second.start()  # free again
    assert sorted(second.records) == [0, 1]


def test_what_came_in_between_loading_and_starting_is_not_overwritten(tmp_path):
    slow, fast = store_at(tmp_path / "s.h5"), store_at(tmp_path / "s.h5", {"a": 2})
    slow.load()
    fast.start()
    fast.append(0, VALUES)
    fast.finish()
    with pytest.raises(SettingsDifferError):
        slow.start()
    fast.start()  # the lock was let go


@pytest.mark.parametrize("moment", ["h5py.File", "os.replace", "journal.remove"])
def test_a_kill_at_the_end_loses_nothing(tmp_path, monkeypatch, moment):
    def finish(folder):
        store = store_at(folder / "s.h5")
        store.load()
        store.start()
        for index in sorted(set(range(7)) - set(store.records)):
            store.append(index, (float(index), 1.0))
        store.finish()
        return (folder / "s.h5").read_bytes()

    whole = finish(tmp_path / "whole")
    parts = tmp_path / "parts"

    def kill(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        target = {
            "h5py.File": ("isoloss.records.surfaces.h5py.File", kill),
            "os.replace": ("isoloss.records.drafts.os.replace", kill),
            "journal.remove": ("isoloss.records.journal.Journal.remove", kill),
        }[moment]
        patch.setattr(*target)
        with pytest.raises(KeyboardInterrupt):
            finish(parts)
    journal_path(parts / "s.h5").read_bytes()
    again = store_at(parts / "s.h5")
    assert sorted(again.load()) == list(range(7))
    again._journal.close()
    gc.collect()  # the killed process's lock goes with its files
    again.settle()
    assert (parts / "s.h5").read_bytes() == whole
    assert [p.name for p in parts.iterdir()] == ["s.h5"]


def begin_old(folder, *, complete=False):
    """An old surface of 3 points, the last in the journal alone, or of all of them."""
    old = store_at(folder / "s.h5")
    old.start()
    for index in range(7 if complete else 2):
        old.append(index, (-1.0, -1.0))
    old.write()
    if complete:
        old.finish()
    else:
        old.append(2, (-1.0, -1.0))
        old._journal.close()
        old._lock.close()
    return (folder / "s.h5").read_bytes()


@pytest.mark.parametrize("complete", [True, False])
def test_starting_over_keeps_the_old_file_until_there_are_points(tmp_path, complete):
    before = begin_old(tmp_path, complete=complete)
    store = store_at(tmp_path / "s.h5", {"a": 2}, fresh=True)
    assert store.load() == {}
    store.start()
    store.finish()  # interrupted before a point
    assert (tmp_path / "s.h5").read_bytes() == before
    assert len(store_at(tmp_path / "s.h5").load()) == (7 if complete else 3)
    store.start()
    store.append(0, VALUES)
    assert (tmp_path / "s.h5").read_bytes() == before  # not yet time to write
    store.finish()
    again = store_at(tmp_path / "s.h5", {"a": 2})
    assert list(again.load()) == [0]
    again.start()
    for index in range(1, 7):
        again.append(index, VALUES)
    again.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]
    whole = store_at(tmp_path / "whole.h5", {"a": 2})
    whole.start()
    for index in range(7):
        whole.append(index, VALUES)
    whole.path = tmp_path / "s.h5"  # the name is stored, too
    write_hdf5(tmp_path / "whole.h5", "surface", whole.settings, whole._fill, 0)
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("moment", "kept"),
    [("append", "old"), ("journal.path.unlink", "old"), ("h5py.File", "old"),
     ("os.replace", "old"), ("journal.start", "new"), ("second append", "new")],
)  # fmt: skip
def test_a_kill_while_starting_over_leaves_the_old_or_the_new(
    tmp_path, monkeypatch, complete, moment, kept
):
    before = begin_old(tmp_path, complete=complete)
    monkeypatch.setattr("isoloss.records.surfaces.WRITE_INTERVAL", 0.0)  # written at the first

    class Killed(BaseException):
        pass

    def kill(*arguments, **options):
        raise Killed

    store = store_at(tmp_path / "s.h5", {"a": 2}, fresh=True)
    store.start()
    if moment == "second append":
        store.append(0, VALUES)
        store._next_write = 0.0
    target = {
        "append": "surfaces.SurfaceStore.write",
        "journal.path.unlink": "surfaces.Path.unlink",
        "h5py.File": "surfaces.h5py.File",
        "os.replace": "drafts.os.replace",
        "journal.start": "journal.Journal.start",
        "second append": "surfaces.SurfaceStore.write",
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(f"isoloss.records.{target}", kill)
        with pytest.raises(Killed):
            store.append(1, VALUES)
    del store
    gc.collect()  # the killed process's lock goes with it
    old, new = store_at(tmp_path / "s.h5"), store_at(tmp_path / "s.h5", {"a": 2})
    if kept == "old":
        assert (tmp_path / "s.h5").read_bytes() == before
        with pytest.raises(SettingsDifferError, match=r"a \(stored 1, now 2\)"):
            new.load()
        assert len(old.load()) >= (7 if complete else 2)
        old.start()
    else:
        with pytest.raises(SettingsDifferError, match=r"a \(stored 2, now 1\)"):
            old.load()
        assert list(new.load()) == ([0, 1] if moment == "second append" else [1])
        new.start()


def test_points_in_the_journal_and_in_the_file_are_joined(tmp_path):
    store = store_at(tmp_path / "s.h5")
    store.start()
    store.append(6, VALUES)
    store.append(0, VALUES)
    store.write()
    store.append(5, (3.0, 4.0))  # in the journal only, as after a kill
    again = store_at(tmp_path / "s.h5")
    records = again.load()
    assert sorted(records) == [0, 5, 6]
    assert records[5] == (3.0, 4.0)
    assert not again.complete


def test_a_rectangular_foreign_surface_is_read_the_right_way_round(tmp_path):
    # Filled in flat meshgrid order (ny, nx) but declared (nx, ny); pending points are -1.
    x, y = np.linspace(-1, 1, 4), np.linspace(0, 2, 3)
    loss = 10 * y[:, None] + x[None, :] + 2
    loss[2, 1] = -1
    with h5py.File(tmp_path / "ll.h5", "w") as file:
        file["xcoordinates"], file["ycoordinates"] = x, y
        file["dir_file"] = "directions.h5"
        file["train_loss"] = loss.ravel().reshape(4, 3)
        file["train_acc"] = np.full((4, 3), 50.0)
    data = read_surface(tmp_path / "ll.h5")
    assert data.values["train_loss"].shape == (3, 4)
    assert np.isnan(data.values["train_loss"][2, 1])
    assert data.done.sum() == 11
    np.testing.assert_array_equal(data.values["train_loss"][data.done], loss[data.done])
    assert data.settings == {}


def foreign(path):
    with h5py.File(path, "w") as file:
        file["weights"] = np.ones(3)


def without_done(path):
    store = store_at(path)
    store.start()
    store.finish()
    journal_path(path).unlink()
    with h5py.File(path, "r+") as file:
        del file["done"]


def of_hessian(path):
    write_hdf5(path, "hessian", {}, lambda file: None, 0)


def newer(path):
    write_hdf5(path, "surface", {}, lambda file: file.attrs.modify("format", 99), 0)


def truncated(path):
    store = store_at(path)
    store.start()
    store.append(0, VALUES)
    store.finish()
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    "make",
    [lambda path: None, lambda path: path.write_bytes(b"no hdf5"), foreign, of_hessian, newer,
     truncated, without_done],
)  # fmt: skip
def test_what_is_no_surface_file_is_refused(tmp_path, make):
    path = tmp_path / "s.h5"
    make(path)
    with pytest.raises(FileError, match="expected") as caught:
        read_surface(path)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"no hdf5"), "does not open as HDF5"),
        (lambda path: path.mkdir(), "does not open as HDF5"),
        (foreign, "a file that Isoloss did not write"),
        (of_hessian, "a hessian file"),
        (truncated, "does not open as HDF5"),
    ],
)
def test_a_surface_replaces_nothing_but_a_surface(tmp_path, make, message):
    path = tmp_path / "s.h5"
    make(path)
    names = {p.name for p in tmp_path.iterdir()}
    before = path.read_bytes() if path.is_file() else None
    store = store_at(path, fresh=True)
    for action in (store.load, store.start):
        with pytest.raises(FileError, match=f"expected a surface .* got .*{message}.*\n.*`out`"):
            action()
    assert before == (path.read_bytes() if path.is_file() else None)
    assert {p.name for p in tmp_path.iterdir()} == names


@pytest.mark.parametrize("make", [newer, without_done])
def test_a_damaged_or_newer_surface_may_be_replaced(tmp_path, make):
    make(tmp_path / "s.h5")
    store = store_at(tmp_path / "s.h5", fresh=True)
    store.start()
    store.append(0, VALUES)
    store.finish()
    assert read_surface(tmp_path / "s.h5").done.sum() == 1


def test_a_journal_of_something_else_is_refused(tmp_path):
    journal_path(tmp_path / "s.h5").write_bytes(b"no journal\nof ours")
    for fresh in (False, True):
        with pytest.raises(FileError, match="expected the journal"):
            store_at(tmp_path / "s.h5", fresh=fresh).load()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, lambda temporary: temporary.write_text("old") and None)

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(FileError, match="disk full"):
        write_atomically(path, fail)
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"
