"""A disk that is full: an error, nothing lost, and the same command goes on when there is space."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isoloss import cli

resource = pytest.importorskip("resource", reason="limits on the size of files are of POSIX")

TRAIN = "train --run tiny --epochs 1 --fraction 0.1 --dataset-arg size=8"
COMMANDS = {
    "train": TRAIN.replace("tiny", "new") + " --no-figures",
    "resume": "train --run tiny --resume --epochs 2 --no-figures",
    "evaluate": "evaluate tiny --no-figures",
    "curve": "surface tiny --x=-1:1:5 --samples 20",
    "hessian": "hessian tiny --top 1 --smallest 0 --probes 1 --steps 5 --trace-budget 10 "
    "--samples 20 --no-figures",
    "compare": "compare tiny other",
}
MEASURE = ("surface tiny --x=-1:1:3 --no-figures", "surface other --x=-1:1:3 --no-figures")


def run(line: str, results: Path) -> tuple[int, str]:
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main([*line.split(), "--results", str(results)])
    return code, error.getvalue()


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file grow beyond a size; Python ignores the signal, so writing fails instead."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "log.txt"
    }


def prepare(results: Path) -> None:
    for name in ("tiny", "other"):
        line = TRAIN.replace("tiny", name) + " --schedule halve --no-figures"
        assert run(line, results) == (0, "")
    for line in MEASURE:
        assert run(line, results) == (0, "")


def try_all(folder: Path) -> dict[str, dict[str, object]]:
    """Give every command on a disk without space, and again with space; run in a process."""
    first = folder / "first"
    prepare(first)
    found: dict[str, dict[str, object]] = {}
    for name, line in COMMANDS.items():
        results = shutil.copytree(first, folder / name)
        if name == "curve":
            (results / "runs" / "tiny" / "surface-1d.h5").unlink()
        before = contents(results)
        with limited(1000):
            code, error = run(line, results)
        found[name] = {
            "code": code, "error": error,
            "lost": sorted(set(before) - set(contents(results))),
            "new": sorted(set(contents(results)) - set(before)),
            "again": run(line, results),
        }  # fmt: skip
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """In a process of its own: HDF5 used to end it."""
    folder = tmp_path_factory.mktemp("full")
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow) if c in ("train", "resume") else c for c in COMMANDS],
)
def test_a_disk_without_space_is_an_error_and_no_end(
    command: str, outcomes: dict[str, dict[str, object]]
) -> None:
    found = outcomes[command]
    error = str(found["error"])
    assert found["code"] == 1, error
    assert 1 <= len(error.splitlines()) <= 3, error
    assert "could not write" in error
    assert "File too large" in error
    assert "unexpected" not in error
    assert found["lost"] == []
    assert not [name for name in found["new"] if name.endswith((".png", ".pdf"))]  # type: ignore[attr-defined]
    assert found["again"] == [0, ""]


def _whole(results: Path) -> bytes:
    return (results / "runs" / "tiny" / "surface-1d.h5").read_bytes()


def on_small_disk(folder: Path, size: str) -> Callable[[], None]:
    """Mount a file system of that size; return what takes it away."""
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("needs leave to mount a small file system")
    return lambda: subprocess.run(["umount", "-l", str(folder)], check=True) and None


def test_a_surface_goes_on_when_there_is_space_again(tmp_path: Path) -> None:
    """On a real file system that is full: the file in the end is as if it had never been."""
    first, disk = tmp_path / "first", tmp_path / "disk"
    line = "surface tiny --x=-1:1:5 --no-figures"
    assert run(TRAIN + " --no-figures", first)[0] == 0
    release = on_small_disk(disk, "4m")
    try:
        results = shutil.copytree(first, disk / "results")
        filler = disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        code, error = run(line, results)
        assert code == 1, error
        assert len(error.splitlines()) <= 3, error
        assert "No space left on device" in error
        filler.unlink()
        assert run(line, results) == (0, "")
        found = _whole(results)
        (results / "runs" / "tiny" / "surface-1d.h5").unlink()
        assert run(line, results) == (0, "")
        assert found == _whole(results)
    finally:
        release()


if __name__ == "__main__":
    print(json.dumps(try_all(Path(sys.argv[1]))))
