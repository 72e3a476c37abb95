"""A small network, trained and measured once in a process: what readers of results are given."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import shutil
import tempfile
from pathlib import Path

from isoloss import cli

TRAIN = "train --epochs 1 --fraction 0.05 --no-figures"
SMALL = "--samples 20 --no-figures"
MADE = (
    f"{TRAIN} --run tiny --checkpoint-every 1",
    f"{TRAIN} --run other --optimizer sam --seed 1",
    f"surface tiny --x=-1:1:3 {SMALL}",
    f"surface other --x=-1:1:3 {SMALL}",
    f"surface tiny --x=-1:1:3 --y=-1:1:2 --repeat 2 {SMALL}",
    f"trajectory tiny --ydir random --x=-1:1:3 --y=-1:1:2 {SMALL}",
    f"hessian tiny --top 1 --probes 2 --steps 4 --trace-budget 6 {SMALL}",
    f"hessian tiny --epochs all --top 2 --trace-budget 6 {SMALL}",
)


@functools.cache
def results() -> Path:
    """Return a folder of results with two runs, two curves, two surfaces, a spectrum and one
    curvature over a training."""
    folder = Path(tempfile.mkdtemp(prefix="isoloss-fuzz-results-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for line in MADE:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main([*line.split(), "--results", str(folder)])
        assert code == 0, said.getvalue()
    return folder


def run() -> Path:
    """Return the folder of the run that everything was measured of."""
    return results() / "runs" / "tiny"


def stored(pattern: str) -> Path:
    """Return the one file of that run that has a name like this."""
    (file,) = run().glob(pattern)
    return file


def surface(dimensions: int) -> Path:
    """Return the file of its curve (1) or of its surface along two planes (2)."""
    import h5py

    for file in sorted(run().glob("surface*.h5")):
        with h5py.File(file) as opened:
            if ("ycoordinates" in opened) == (dimensions == 2):
                return file
    raise AssertionError(f"no surface of {dimensions} dimensions in {run()}")
