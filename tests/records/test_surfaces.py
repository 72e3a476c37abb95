"""Surface files and the journal: foreign files, damage at every byte, atomic replacement."""

from __future__ import annotations

import gc

import h5py
import numpy as np
import pytest

from isoloss.records.files import FileError, write_atomically, write_settings
from isoloss.records.identity import SettingsDifferError
from isoloss.records.journal import Journal
from isoloss.records.surfaces import SurfaceStore, journal_path, read_surface

VALUES = (0.1, np.nan)


def store_at(path, settings=None):
    x, y = np.linspace(-1, 1, 3), np.linspace(0, 1, 2)
    return SurfaceStore(path, x, y, ["train_loss", "train_acc"], settings or {"a": 1}, [], 0.25)


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


def test_two_processes_do_not_share_a_file(tmp_path):
    first, second = store_at(tmp_path / "s.h5"), store_at(tmp_path / "s.h5")
    first.start()
    first.append(0, VALUES)
    with pytest.raises(FileError, match="another process"):
        second.start()
    first.finish()
    second.load()
    second.start()  # free again


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
            "os.replace": ("isoloss.records.files.os.replace", kill),
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
    with h5py.File(path, "w") as file:
        write_settings(file, "hessian", {})


def newer(path):
    with h5py.File(path, "w") as file:
        write_settings(file, "surface", {})
        file.attrs["format"] = 99


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


def test_a_journal_of_something_else_is_refused(tmp_path):
    journal_path(tmp_path / "s.h5").write_bytes(b"no journal\nof ours")
    with pytest.raises(FileError, match="expected the journal"):
        store_at(tmp_path / "s.h5").load()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, lambda temporary: temporary.write_text("old") and None)

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(FileError, match="disk full"):
        write_atomically(path, fail)
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_what_a_kill_in_a_rewrite_left_is_swept_and_nothing_else(tmp_path):
    ours, theirs = tmp_path / ".s-ab12cd_3.h5", tmp_path / ".s-2d-ab12cd_3.h5"
    ours.touch()
    theirs.touch()  # of a file s-2d.h5, which may be being written
    store = store_at(tmp_path / "s.h5")
    store.start()
    store.finish()
    assert not ours.exists()
    assert theirs.exists()
