"""What killed processes left in folders of ours: drafts, locks, and folders half replaced.

A command sweeps where it begins. Nothing is touched that a living process writes or holds, and
nothing that has another name than those made here.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from isoloss.records import replacing
from isoloss.records.drafts import sweep_drafts
from isoloss.records.files import FileError
from isoloss.records.locks import locked, sweep_locks


def sweep_locked(folder: Path) -> None:
    """Sweep in and around a folder that is written now: put a replacement of it right first.

    Hold the folder's lock.
    """
    replacing.sweep(folder)
    sweep_beside(folder.parent)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Sweep a folder of ours, such as that of a run, and those in it, where there is one."""
    for place, below, _ in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        sweep_beside(Path(place))


def sweep_beside(folder: Path) -> None:
    """Sweep what lies directly in a folder of ours, such as that of all runs.

    Folders that were being replaced are put right: the old one comes back, or goes.
    """
    if not folder.is_dir():
        return
    sweep_drafts(folder)
    for name in replacing.half_replaced(folder):
        with suppress(FileError), locked(folder / name, name, patience=0.0):
            replacing.sweep(folder / name)
    sweep_locks(folder)
