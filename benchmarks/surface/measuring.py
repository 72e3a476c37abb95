"""What is measured: seconds a point, memory, and whole commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.surface.subject import Plane, point
from benchmarks.turns import Contender, Three, ended, three

PEERS = "benchmarks.surface.peers"
# The first is what the ratios are to.
OURS = {
    "isoloss": (f"{PEERS}.isoloss", "Losses", (None,)),
    "isoloss, compiled": (f"{PEERS}.isoloss", "Losses", (True,)),
    "isoloss, not compiled": (f"{PEERS}.isoloss", "Losses", (False,)),
}
OTHERS = {
    "loop, by trial": (f"{PEERS}.loops", "plain", ()),
    "loop, compiled, by trial": (f"{PEERS}.loops", "compiled", ()),
    "loss-landscape": (f"{PEERS}.loss_landscape", "as_run", ()),
    "loss-landscape, tensors": (f"{PEERS}.loss_landscape", "of_tensors", ()),
    "loss-landscape, tensors, tuned": (f"{PEERS}.loss_landscape", "of_tensors", ()),
    "loss_landscapes": (f"{PEERS}.loss_landscapes", "losses", ()),
}
# glibc keeps freed memory instead of handing it back to the kernel.
TUNED = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


@dataclass(frozen=True)
class Row:
    """What a contender took for a point, in seconds; `note` where it did not run."""

    contender: str
    first: float | None = None
    later: Three | None = None
    ratio: Three | None = None  # of the contender's times to isoloss's
    error: float | None = None  # the largest relative one
    note: str = ""

    def text(self) -> str:
        """Return a line of the table."""
        if self.later is None or self.ratio is None:
            return f"{self.contender:32} {self.note}"
        times, ratios = (f"{a:.3f} ({b:.3f} to {c:.3f})" for a, b, c in (self.later, self.ratio))
        return f"{self.contender:32} {self.first:8.2f} {times:>26} {ratios:>26} {self.error:9.1e}"


def of_points(plane: Plane, rounds: int, names: Sequence[str]) -> list[Row]:
    """Print and return a row a contender: all evaluate a point, in turns, in each round.

    Args:
        plane: The network, the data and the directions.
        rounds: How many points, after the first.
        names: Of the contenders; `isoloss` takes part anyway.
    """
    exact = {index: plane.loss_in_double(*point(index)) for index in range(rounds + 1)}
    contenders = {
        # Without the data that this plane has read: each process reads its own.
        name: Contender(module, make, (replace(plane), *more), TUNED if "tuned" in name else None)
        for name, (module, make, more) in {**OURS, **OTHERS}.items()
        if name in ("isoloss", *names)
    }
    print(f"{'a point':32} {'first':>8} {'later, s':>26} {'ratio':>26} {'error':>9}")
    found: dict[str, list[Any]] = {}
    with ended(contenders):
        for index in range(rounds + 1):
            for name, contender in contenders.items():
                found.setdefault(name, []).append(contender.ask(*point(index)))
            print(f"round {index} of {rounds}", file=sys.stderr)
    rows = []
    ours = [answer[0] for answer in found["isoloss"][1:]]
    for name, answers in found.items():
        if isinstance(answers[0], str):
            rows.append(Row(name, note=answers[0]))
        else:
            times = [seconds for seconds, _ in answers[1:]]
            errors = [abs(loss - exact[i]) / exact[i] for i, (_, loss) in enumerate(answers)]
            ratios = [a / b for a, b in zip(times, ours, strict=True)]
            rows.append(Row(name, answers[0][0], three(times), three(ratios), max(errors)))
        print(rows[-1].text(), flush=True)
    return rows


def memory_of(plane: Plane) -> Callable[[], dict[str, int]]:
    """Return what measures a surface of nine points, not compiled, in a process of its own."""
    from benchmarks.surface.peers.isoloss import surface_of
    from isoloss.landscape import Grid

    data = plane.data
    assert plane.directions

    def measure() -> dict[str, int]:
        # The peak is counted from here on (proc(5)).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
        surface = surface_of(plane, False, Grid.parse("-1:1:3", "-1:1:3"))
        surface.run()
        problem = surface.problems["train"]
        return {
            "rise": _status("VmHWM") - before,
            "parameters": sum(t.numel() * t.element_size() for t in problem.parameters.values()),
            "data": sum(t.numel() * t.element_size() for t in data),
            "micro_batch": problem.plan.micro_batch * problem.plan.activation_bytes_per_sample,
        }

    return measure


def of_memory(plane: Plane) -> dict[str, float]:
    """Print and return the rise of the peak of memory, beside what it is expected to take."""
    asked = Contender("benchmarks.surface.measuring", "memory_of", (replace(plane),))
    with ended({"isoloss": asked}):
        answer = asked.ask()
    assert not isinstance(answer, str)
    sizes: dict[str, float] = {key: value / 2**20 for key, value in answer[1].items()}
    sizes["bound"] = 1.3 * (3 * sizes["parameters"] + sizes["data"] + sizes["micro_batch"]) + 100
    print(
        f"\nmemory of a surface, not compiled: {sizes['rise']:.0f} MiB above the imports; "
        f"1.3 (3 parameters + data + micro-batch) + 100 MiB = {sizes['bound']:.0f}"
    )
    return sizes


def of_commands(
    plane: Plane, side: int, peers: bool, compiled: bool = True, points: int = 51 * 51
) -> dict[str, Any]:
    """Print and return the seconds of whole commands, from a few points to all of a grid.

    A command is timed from the start of its process to its end, figures written, on a grid of
    side x side points. What is not spent on points is spent once, on those as on more.

    Args:
        plane: Says how many images and threads.
        side: Of the grid.
        peers: Whether loss-landscape's is timed as well.
        compiled: Whether ours compiles.
        points: Of the grid that is scaled up to.
    """
    found = {}
    environment = {**os.environ, "OMP_NUM_THREADS": str(plane.threads)}
    with tempfile.TemporaryDirectory() as folder:
        cli = [sys.executable, "-m", "isoloss.cli"]
        data = ["--dataset", "mnist"] if plane.of_mnist else ["--dataset", "digits"]
        run = ["--results", folder]
        # A surface is of what its run was trained on: of the whole split.
        train = ["train", "--run", "a", "--model", "fashion-cnn", *data, "--epochs", "1",
                 "--no-figures", *run]  # fmt: skip
        _timed([*cli, *train], environment)
        axis = f"=-1:1:{side}"
        asked = ["surface", "a", f"--x{axis}", f"--y{axis}", "--samples", str(len(plane.data[0])),
                 "--compile" if compiled else "--no-compile", "--json", *run]  # fmt: skip
        seconds, text = _timed([*cli, *asked], environment)
        said = json.loads(text)
        found["isoloss"] = _scaled(seconds, said["seconds"], side * side + 1, points + 1)
        if peers:
            script = [sys.executable, "-m", f"{PEERS}.whole_loss_landscape", folder, str(side),
                      str(len(plane.data[0])), str(plane.threads)]  # fmt: skip
            seconds, text = _timed(script, environment)
            inside = float(text.split()[-1])
            found["loss-landscape"] = _scaled(seconds, inside, side * side, points)
    print(f"\nwhole commands, {points:,} points from {side * side} measured:")
    for name, command in found.items():
        print(
            f"{name:32} {command['all']:8.0f} s: {command['apart']:.1f} s once, "
            f"{command['point']:.3f} s a point"
        )
    return found


def of_small_commands(plane: Plane) -> dict[str, float]:
    """Print and return the seconds of `--help`, and of `plot` of a stored grid of 51 x 51."""
    import numpy as np

    from isoloss.landscape import Grid

    cli = [sys.executable, "-m", "isoloss.cli"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "surface-2d.h5"
        from benchmarks.surface.peers.isoloss import surface_of

        surface = surface_of(plane, False, Grid.parse("-1:1:51", "-1:1:51"))
        # Values of a paraboloid: what they are does not matter for drawing them.
        xs = np.linspace(-1, 1, 51)
        known = {51 * j + i: (float(x * x + y * y), 50.0)
                 for j, y in enumerate(xs) for i, x in enumerate(xs)}  # fmt: skip
        surface.run(path, known=known)
        found = {
            "--help": min(_timed([*cli, "--help"], os.environ)[0] for _ in range(3)),
            "plot": min(_timed([*cli, "plot", str(path)], os.environ)[0] for _ in range(3)),
        }
    print("\n" + ", ".join(f"`{name}` {seconds:.2f} s" for name, seconds in found.items()))
    return found


def _scaled(whole: float, inside: float, measured: int, points: int) -> dict[str, float]:
    each = inside / measured
    return {"all": whole - inside + each * points, "apart": whole - inside, "point": each}


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return seconds, done.stdout


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
