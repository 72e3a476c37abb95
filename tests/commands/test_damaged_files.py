"""A run whose stored files are damaged: commands go on without them, or say what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from isoloss import cli

RUN = "train --run tiny --epochs 1 --fraction 0.1 --dataset-arg size=8 --no-figures"
SURFACE = "surface tiny --x=-1:1:3 --samples 20 --no-figures"
HESSIAN = (
    "hessian tiny --top 1 --smallest 0 --probes 1 --steps 4 --trace-budget 10 --samples 20 "
    "--no-figures"
)
COMMANDS = (
    "list runs",
    "evaluate tiny --no-figures",
    SURFACE,
    HESSIAN,
    "compare tiny other --no-figures",
    "train --run tiny --resume --epochs 1 --no-figures",
    "plot {run}/surface-1d.h5",
    "plot {run}/hessian.h5",
)
FILES = (
    "config.json", "facts.json", "run.json", "history.json", "evaluation.json",
    "checkpoints/digests.json", "checkpoints/state.pt", "checkpoints/last.pt",
    "surface-1d.h5", "hessian.h5", "surface-1d.h5.journal",
)  # fmt: skip


def run(line: str, results: Path) -> tuple[int, str, str]:
    arguments = line.format(run=results / "runs" / "tiny").split()
    if arguments[0] != "plot":
        arguments += ["--results", str(results)]
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = cli.main(arguments)
    return code, out.getvalue(), error.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, all that is measured on them, and the journal of a surface."""
    results = tmp_path_factory.mktemp("damaged") / "results"
    lines = [RUN, RUN.replace("tiny", "other"), SURFACE, SURFACE.replace("tiny", "other"), HESSIAN]
    for line in lines:
        assert run(line, results)[0] == 0
    (results / "runs" / "tiny" / "surface-1d.h5.journal").write_bytes(b'{"a": 1}\n' + bytes(40))
    return results


def other_bytes(seed: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        generator, changed = np.random.default_rng(seed), bytearray(content)
        for place in generator.integers(0, len(content), 4):
            changed[place] = generator.integers(0, 256)
        return bytes(changed)

    return change


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "garbage": lambda content: bytes(range(256)) * 4,
    "another encoding": lambda content: '{"é": 1}'.encode("utf-16"),
    "bytes changed": other_bytes(0),
    "other bytes changed": other_bytes(1),
}
AS_JSON: dict[str, str] = {
    "null": "null", "number": "3", "text": '"text"', "list": "[]", "list of numbers": "[1, 2]",
    "object": "{}", "deep": "[" * 100_000, "half a character": r'{"label": "\ud800"}',
    "big number": '{"seed": 1' + "0" * 5000 + "}", "not a number": "NaN",
}  # fmt: skip
WRONG = (None, 3, -1.5, "text", [], {}, [1, "a"], {"a": None}, True)


def damaged(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield kinds of damage to a file, and what is in it then."""
    if not name.endswith(".h5"):  # HDF5 may search for a changed byte for ever
        yield from ((what, change(content)) for what, change in DAMAGE.items())
    else:
        yield from ((what, DAMAGE[what](content)) for what in list(DAMAGE)[:5])
    if not name.endswith(".json"):
        return
    yield from ((what, text.encode()) for what, text in AS_JSON.items())
    stored = json.loads(content)
    entries = stored[0] if isinstance(stored, list) else stored
    for number, key in enumerate(entries):
        changed = {k: v for k, v in entries.items() if k != key}
        if number % 3:
            changed[key] = WRONG[number % len(WRONG)]
        whole = [changed] if isinstance(stored, list) else changed
        yield f"another {key}", json.dumps(whole).encode()


LIST, EVALUATE, _, _, COMPARE, RESUME, PLOT_SURFACE, PLOT_HESSIAN = COMMANDS
# What reads which file; the others do not look at it.
READERS = {
    "config.json": (LIST, EVALUATE, RESUME),
    "facts.json": (EVALUATE, RESUME),
    "run.json": (LIST, EVALUATE, RESUME),
    "history.json": (COMPARE, RESUME),
    "evaluation.json": (LIST, COMPARE, EVALUATE),
    "checkpoints/digests.json": (EVALUATE, RESUME),
    "checkpoints/state.pt": (RESUME,),
    "checkpoints/last.pt": (EVALUATE,),
    "surface-1d.h5": (SURFACE, COMPARE, PLOT_SURFACE),
    "hessian.h5": (HESSIAN, COMPARE, PLOT_HESSIAN),
    "surface-1d.h5.journal": (SURFACE,),
}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_or_does_not_matter(
    name: str, every: bool, finished: Path, tmp_path: Path
) -> None:
    """Each kind of damage before one of the commands that read the file, or before all of them."""
    results = shutil.copytree(finished, tmp_path / "results")
    place = results / "runs" / "tiny"
    readers, wrong = READERS[name], []
    for number, (what, content) in enumerate(damaged(name, (place / name).read_bytes())):
        for line in readers if every else [readers[number % len(readers)]]:
            (place / name).write_bytes(content)
            code, _, error = run(line, results)
            lines = error.splitlines()
            sound = (code == 0 and not lines) or (code in (1, 2) and 1 <= len(lines) <= 3)
            if not sound or "unexpected" in error or "Traceback" in error:
                wrong.append(f"{what}: {line.split()[0]}: {code} {error}")
            if code == 0 or (place / name).read_bytes() != content:
                shutil.rmtree(place)
                shutil.copytree(finished / "runs" / "tiny", place)
    assert not wrong, "\n".join(wrong)
