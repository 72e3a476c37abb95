"""Folders that are replaced whole: the old one goes when the new one has shown itself, not before.

Beside the folder `NAME` lies `.NAME-XXXXXXXX` meanwhile. In it the old folder is `.replaced` where
the new one is whole, and `.kept` as long as the new one may still come to nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPLACED, KEPT = ".replaced", ".kept"


def make_work_folder(path: Path) -> Path:
    """Make the folder beside `path` for what is done to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))


def sweep(path: Path) -> None:
    """Put right what a kill left of a replacement. Hold the folder's lock."""
    # Eight random characters: the work folders of other names differ in length.
    for work in path.parent.glob(f".{path.name}-????????"):
        if (work / KEPT).is_dir():
            if path.exists():
                os.replace(path, work / "unfinished")
            os.replace(work / KEPT, path)
        if (work / REPLACED).is_dir() and not path.exists():
            os.replace(work / REPLACED, path)
        shutil.rmtree(work, ignore_errors=True)


def exchange(new: Path, path: Path) -> None:
    """Put a folder, which is in a work folder, in the place of another or of none.

    Whatever exception ends it, there is the new folder or the old one.
    """
    old = new.parent / REPLACED
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise


@contextmanager
def set_aside(path: Path) -> Iterator[Callable[[], None]]:
    """Keep a folder for the block, in which another is begun in its place.

    Yields:
        What gives the old folder up. If the block ends without that, the old one comes back, and
        at the next `sweep` where a kill ended it.
    """
    if not path.exists():
        yield lambda: None
        return
    work = make_work_folder(path)
    os.replace(path, work / KEPT)

    def give_up() -> None:
        if (work / KEPT).exists():
            os.replace(work / KEPT, work / REPLACED)
            shutil.rmtree(work, ignore_errors=True)

    try:
        yield give_up
    finally:
        sweep(path)
