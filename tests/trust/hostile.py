"""Crafted checkpoints and HDF5 files: how many are refused, run anything, or lead anywhere else.

The files are those of the tests beside the readers. While one is read, Python's audit events tell
what is run and opened; files that HDF5 was led to tell by their time of last access.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from isoloss.errors import IsolossError
from isoloss.records.surfaces import read_surface
from isoloss.trainers.checkpoints import read_weights
from tests.records import test_hostile_files as hdf5
from tests.trainers import test_hostile_checkpoints as checkpoints

# Audit events of what no reader has to do. What is written or deleted shows in the folder.
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile", "subprocess.",
        "socket.", "ctypes.dlopen", "sqlite3.connect", "webbrowser.", "pty.")  # fmt: skip
# Where a reader of ours finds its own code, opened when it is first needed.
CODE = tuple(str(Path(place).resolve()) for place in (
    sys.prefix, sys.base_prefix, Path(__file__).parents[2], np.__path__[0], "/proc", "/dev"
))  # fmt: skip


@dataclass
class Row:
    """What came of the files of one kind.

    Attributes:
        name: For people.
        cases: Ways to be hostile.
        files: Files read.
        refused: Those that were refused, in three lines at most.
        executed: What was run by reading them, in words.
        elsewhere: Other files that were opened, in words.
    """

    name: str
    cases: int
    files: int = 0
    refused: int = 0
    executed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every file was refused, and nothing came of it."""
        return self.refused == self.files and not self.executed and not self.elsewhere


class _Watch:
    """Notes audit events while a file is read."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.executed: list[str] = []
        self.opened: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = Path(os.fsdecode(arguments[0])).resolve()
            ours = path.is_relative_to(self.folder) and path.name.startswith("theirs")
            if not ours and path.is_file() and not str(path).startswith(CODE):
                self.opened.append(str(path))
        elif event == "exec":  # also of modules that are imported
            if not str(getattr(arguments[0], "co_filename", "")).startswith(("<frozen", *CODE)):
                self.executed.append(f"{event} {arguments!r:.200}")
        elif event.startswith(RUNS):
            self.executed.append(f"{event} {arguments!r:.200}")

    @contextmanager
    def of(self, folder: Path) -> Iterator[None]:
        self.executed, self.opened = [], []
        self.folder = folder.resolve()
        try:
            yield
        finally:
            self.folder = None


def read_all() -> list[Row]:
    """Read every hostile file and count."""
    watch = _Watch()
    rows = []
    for name, cases, make_all in (
        ("checkpoints: pickles that run code when unpickled", checkpoints.LIVE, _pickles),
        ("checkpoints: other pickles", checkpoints.OTHER, _pickles),
        ("checkpoints: containers", checkpoints.CONTAINERS, _containers),
        ("checkpoints: safetensors", checkpoints.SAFETENSORS, _safetensors),
        ("HDF5: entries", hdf5.HOSTILE, _entries),
        ("HDF5: attributes", hdf5.ATTRIBUTES, _attributes),
    ):
        row = Row(name, len(cases))
        for case in cases:
            for make, read in make_all(case):
                _read_one(row, case, make, read, watch)
        rows.append(row)
    return rows


def table(rows: list[Row]) -> str:
    """Return the counts as a Markdown table."""
    heads = "| files | ways | read | refused | executed | other files opened |"
    lines = [heads, "|---" + "|---:" * 5 + "|"]
    for row in rows:
        counts = (row.cases, row.files, row.refused, len(row.executed), len(row.elsewhere))
        lines.append(f"| {row.name} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    return "\n".join(lines) + "\n"


Case = tuple[Callable[[Path, Path], Path], Callable[[Path], object]]


def _pickles(case: str) -> Iterator[Case]:
    protocol, make = {**checkpoints.LIVE, **checkpoints.OTHER}[case]
    for form in checkpoints.FORMS.values():
        for wrapped in (False, True):

            def write(
                folder: Path, canary: Path, form: Any = form, wrapped: bool = wrapped
            ) -> Path:
                body = make(str(canary))
                if wrapped:
                    body = checkpoints.dictionary(state_dict=body, epoch=b"K\x03")
                return _written(folder / "theirs.pt", form(checkpoints.whole(body, protocol)))

            yield write, read_weights


def _containers(case: str) -> Iterator[Case]:
    make = checkpoints.CONTAINERS[case]
    yield lambda folder, canary: _written(folder / "theirs.pt", make(str(canary))), read_weights


def _safetensors(case: str) -> Iterator[Case]:
    content = checkpoints.SAFETENSORS[case]
    for suffix in (".safetensors", ".pt"):

        def write(folder: Path, canary: Path, suffix: str = suffix) -> Path:
            return _written(folder / f"theirs{suffix}", content)

        yield write, read_weights


def _entries(case: str) -> Iterator[Case]:
    for kind, (make, read, names) in hdf5.ENTRIES.items():
        for name in names:
            if (kind, name, case) in hdf5.HARMLESS:
                continue

            def write(folder: Path, canary: Path, make: Any = make, name: str = name) -> Path:
                path = folder / "theirs.h5"
                make(path)
                with h5py.File(path, "r+") as file:
                    shape = file[name].shape
                    hdf5.HOSTILE[case](file, name)
                with h5py.File(folder / "other.h5", "w") as other:  # what links lead to
                    other["numbers"] = np.ones(shape)
                return path

            yield write, read


def _attributes(case: str) -> Iterator[Case]:
    value, name = hdf5.ATTRIBUTES[case]

    def write(folder: Path, canary: Path) -> Path:
        hdf5.surface(folder / "theirs.h5")
        with h5py.File(folder / "theirs.h5", "r+") as file:
            file.attrs.pop(name, None)
            if value is not None:
                file.attrs[name] = value
        return folder / "theirs.h5"

    yield write, read_surface


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _read_one(row: Row, case: str, make: Any, read: Any, watch: _Watch) -> None:
    top = Path(tempfile.mkdtemp(prefix="isoloss-hostile-"))
    try:
        folder = top / "a"
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = make(folder, top / "canary")
            baits = {one: _never_read(one) for one in folder.iterdir() if one != path}
            before = sorted(top.rglob("*"))
            row.files += 1
            with watch.of(folder):
                try:
                    read(path)
                except IsolossError as error:
                    row.refused += 1 <= len(str(error).splitlines()) <= 3
        row.executed += [f"{case}: {what}" for what in watch.executed]
        if sorted(top.rglob("*")) != before:
            row.executed.append(f"{case}: files came or went")
        opened = {*watch.opened, *(str(one) for one, at in baits.items() if _time(one) != at)}
        row.elsewhere += [f"{case}: {what}" for what in sorted(opened)]
    finally:
        shutil.rmtree(top)


def _never_read(path: Path) -> int:
    """Set a file's time of last access back; reading it brings that forward again."""
    os.utime(path, (0, path.stat().st_mtime))
    return _time(path)


def _time(path: Path) -> int:
    return path.stat().st_atime_ns
