"""Folders that are replaced whole: the old one goes when the new one has shown itself, not before.

Beside the folder `NAME` lies `.NAME-XXXXXXXX` meanwhile. The old folder is `.kept` in it as long as
the new one may still come to nothing; what else is in it is rubbish.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT, UNFINISHED, GIVEN_UP = ".kept", "unfinished", "given-up"


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
                os.replace(path, work / UNFINISHED)
            os.replace(work / KEPT, path)
        shutil.rmtree(work, ignore_errors=True)


def half_replaced(folder: Path) -> set[str]:
    """Return the names of what was being replaced in a folder, by living processes or not."""
    return {name for work in folder.glob(".*-????????") if _is_ours(work, name := work.name[1:-9])}


def _is_ours(work: Path, name: str) -> bool:
    """Return whether a hidden folder holds nothing but what is put there in a replacement."""
    try:
        held = {path.name for path in work.iterdir()}
    except OSError:  # no folder, not to be read, or gone since
        return False
    return held <= {KEPT, UNFINISHED, GIVEN_UP, name}


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

    def give_up() -> None:
        if (work / KEPT).exists():
            os.replace(work / KEPT, work / GIVEN_UP)
            shutil.rmtree(work, ignore_errors=True)

    try:
        os.replace(path, work / KEPT)
        yield give_up
    finally:
        sweep(path)
