"""Folders set aside: given up when that is said, else back again, also after a kill."""

from __future__ import annotations

import os
import shutil

import pytest

from isoloss.records.replacing import set_aside, sweep


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").touch()
    (tmp_path / "a-b").mkdir()
    (tmp_path / f".a-b-{'x' * 8}").mkdir()  # of another name
    return path


def names(folder):
    return [p.name for p in folder.iterdir()] if folder.exists() else None


def begin(folder):
    assert not folder.exists()
    folder.mkdir()
    (folder / "new").touch()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_the_old_folder_comes_back_unless_it_is_given_up(folder, ending):
    for given_up in (False, True):
        try:
            with set_aside(folder) as give_up:
                begin(folder)
                if given_up:
                    give_up()
                    give_up()
                if ending is not None:
                    raise ending
        except (ValueError, KeyboardInterrupt):
            pass
        assert names(folder) == (["new"] if given_up else ["old"])
        assert len(names(folder.parent)) == 3


def test_where_there_is_none_nothing_is_set_aside(tmp_path):
    with set_aside(tmp_path / "a") as give_up:
        begin(tmp_path / "a")
        give_up()
    assert names(tmp_path / "a") == ["new"]


# Moves: aside; then at the end back, in two, or given up, in one.
@pytest.mark.parametrize("given_up", [False, True])
@pytest.mark.parametrize("moment", range(4))
def test_a_kill_anywhere_and_a_sweep_leave_one_of_the_two(folder, monkeypatch, moment, given_up):
    replace, moves = os.replace, 0

    def move(source, target):
        nonlocal moves
        if moves == moment:
            moves = -99  # dead: nothing more is done
        if moves < 0:
            raise Killed
        moves += 1
        replace(source, target)

    def remove(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", move)
        patch.setattr(shutil, "rmtree", remove)
        try:
            with set_aside(folder) as give_up:
                begin(folder)
                if given_up:
                    give_up()
                if moment == 3:
                    raise Killed
        except Killed:
            pass
    sweep(folder)
    gone = given_up and moment >= 2
    assert names(folder) == (["new"] if gone else ["old"])
    assert len(names(folder.parent)) == 3
