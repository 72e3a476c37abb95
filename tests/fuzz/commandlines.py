"""Whole command lines, in this process: what they print, how they end, and where they write.

A line ends with exit code 0, 1 or 2, with three lines on standard error at most, without an error
that nobody expected, and leaves nothing outside the folder of results.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st

from isoloss import cli
from isoloss.commands import COMMANDS
from isoloss.commands.flags import spelling
from isoloss.errors import IsolossError
from isoloss.experiments.options import Option, declared
from tests.fuzz import prepared
from tests.fuzz.harness import Finding, Reader, copy_tree
from tests.fuzz.inputs import damaged_text, numbers, words
from tests.fuzz.texts import ARGUMENTS, CONFIG, FIXED, RANGES, SPECS, TOML

# Each command on something small; what is drawn comes after it and wins.
SMALL = "--samples 20 --no-figures"
BASES = {
    "train": ["--epochs 1 --fraction 0.05 --run new", "--epochs 0 --fraction 0.05 --run new",
              "--epochs 1 --fraction 0.05 --run new --no-figures",
              "--epochs 2 --run tiny --resume --no-figures"],
    "evaluate": ["tiny", "tiny --no-figures"],
    "tune": ["--name a --search lr=loguniform:1e-3:1 --trials 1 --set epochs=1 --set fraction=0.05"
             " --no-figures"],
    "surface": [f"tiny --x=-1:1:3 {SMALL}", f"tiny --x=-1:1:2 --y=-1:1:2 {SMALL}",
                "tiny --x=-1:1:3 --samples 20"],
    "trajectory": [f"tiny --ydir random --x auto:2 --y=-1:1:2 {SMALL}"],
    "sharpness": ["tiny --rho 0.1 --adaptive-rho none --starts 1 --draws 1 --m 5 --probes 2 "
                  f"{SMALL}"],
    "hessian": [f"tiny --top 1 --probes 1 --steps 3 --trace-budget 4 {SMALL}"],
    "compare": ["tiny other", "tiny other --by optimizer", "tiny"],
    "plot": ["FILE", "FILE FILE"],
    "export": ["FILE --to csv", "FILE --to npz", "FILE --to vtk", "FILE --to ll", "FILE --to npy",
               "FILE --to csv --out results/a.csv --force"],
    "reproduce": ["tiny"],
    "list": ["runs", "models", "data", "optimizers", "schedules", "losses", "augmentations"],
    "demo": ["surplus"],  # the whole takes minutes
}  # fmt: skip
MEASURED = "--x=-1:1:3 --y=none --top 1 --probes 1 --steps 3 --trace-budget 4 --samples 20"
# Numbers of these decide how long a command takes: small ones, and what is none.
LENGTHS = {
    "epochs", "trials", "jobs", "repeat", "max_products", "trace_budget", "probes", "steps",
    "fraction", "trace_error", "tol", "top", "smallest", "starts", "ascent_steps", "draws",
    "subsets",
}  # fmt: skip
SHORT = ["0", "1", "2", "-1", "0.5", "nan", "inf", "²", "½", "x", "", "1e999", "1j", "True", "3"]
# Other people's weights and the network are not fetched; downloads are not tried.
NEVER = {"download", "results", "as_json"}
NETWORKS = ["fashion-cnn", "resnet20", "ecg-attention", "gcn", "torchvision:", "torchvision:nosuch",
            "plugin.py:factory", "torch.nn:Linear", "nosuch:thing", "densenet:", "mlp"]  # fmt: skip
DATA = ["digits", "synthetic-images", "synthetic-graphs", "mnist", "tu:X", "npz:a.npz", "mitbih",
        "plugin.py:factory", "digits:", "npz:"]  # fmt: skip
FILES = ["results/runs/tiny/a.h5", "results/a.h5", "results/runs/tiny/config.json", "results",
         "missing/a.h5", "a.toml", "a.json", "", ".", "results/a\0.h5", "/dev/null",
         "results/" + "a" * 300 + ".h5", "results/runs/tiny/surface.h5",
         "results/runs/tiny/roc.csv", "a.h5/b.h5"]  # fmt: skip
RUNS = ["tiny", "other", "tinny", "new", "../tiny", ".tiny", "", "tiny/", "²", "a" * 300]


def _value(option: Option) -> st.SearchStrategy[str]:
    if option.name in LENGTHS:
        return st.sampled_from(SHORT)
    if option.name in ("x", "y"):
        # At most 3 points an axis; what is longer takes its time, rightly.
        points = st.sampled_from(
            [
                "-1:1:3",
                "0:1:2",
                "0:0:1",
                "1:0:3",
                "nan:1:2",
                "0:1e999:2",
                "-1e308:1e308:3",
                "0:1:²",
                "0:1:2:3",
                "1_0:2_0:2",
                "0:1",
                ":::",
                "auto:2",
                "auto:²",
                "auto:",
            ]
        )
        return points
    likely: st.SearchStrategy[str] = st.sampled_from(
        [*option.choices, *filter(None, [option.none]), "1", "2", "0.1", "auto", "all"]
    )
    special = {
        "model": NETWORKS, "dataset": DATA, "run": RUNS, "runs": RUNS, "name": RUNS,
        "files": FILES,
        "search": RANGES, "fixed": FIXED,
        "device": ["cpu", "cpu:0", "cpu:²", "cpu:9", "cuda", "meta", "cpu:"],
        "by": ["optimizer", "seed", "lr", "model_arg", "label", "nosuch"],
        "loss": ["cross-entropy", "mse", "smooth-crossentropy", *SPECS[-6:]],
        "optimizer": ["sgd", "adam", "sam", "asam", "grad-shift", "sgd-sam", "rmsprop"],
        "schedule": ["cosine", "halve", "step", "plateau", "constant"],
        "bn": ["eval", "train", "recalibrate"], "base": ["sgd", "adam"], "amp": ["bf16"],
        "augment": ["affine", "shift", "crop"], "norm": ["filter", "layer", "model", "none"],
        "xdir": ["random", "pca:0", "pca:1", "pca:²", "pca:0:tiny,other", "pca:0:,"],
        "ignore": ["biasbn", "none"], "checkpoint": ["last", "best", "epoch-0001", "epoch-²",
                                                    "results/runs/tiny/checkpoints/last.pt"],
    }  # fmt: skip
    if option.name in special:
        likely = st.one_of(st.sampled_from(special[option.name]), likely)
    if Path in option.types:  # none that a file would rightly be written to
        return st.sampled_from(FILES)
    if dict in option.types:
        pairs = [*ARGUMENTS, "widths=[1e9]", "classes=3", "samples=30", "every=²", "factor=nan",
                 "depth=-1", "label_smoothing=2", "samples=1e999", "at='x'", "size=-1",
                 "seed=" + "9" * 30, "samples=1" + "0" * 15, "path=a\0b"]  # fmt: skip
        return st.one_of(st.sampled_from(pairs), st.sampled_from(pairs).flatmap(damaged_text))
    return st.one_of(likely, numbers, words)


@st.composite
def lines(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, int]]]:
    """Draw a command line, and edits of a stored file where it draws one."""
    prepared.results()  # not within the time of a line
    name = draw(st.sampled_from([*BASES, "train", "surface", "hessian", "evaluate", "plot"]))
    argv = [name, *draw(st.sampled_from(BASES[name])).split()]
    options = [o for group in COMMANDS[name].groups for o in declared(group) if o.name not in NEVER]
    for _ in range(draw(st.integers(0, 4))):
        option = draw(st.sampled_from(options))
        if option.positional:
            if draw(st.integers(0, 3)) == 0:
                argv.insert(1, draw(_value(option)))
            continue
        flag = draw(st.sampled_from(spelling(option)))
        if bool in option.types:
            argv.append(draw(st.sampled_from([flag, f"--{option.off}" if option.off else flag])))
        else:
            value = draw(_value(option))
            argv += [f"{flag}={value}"] if draw(st.booleans()) else [flag, value]
    if draw(st.integers(0, 9)) == 0:
        argv.insert(draw(st.integers(1, len(argv))), draw(words))
    if draw(st.integers(0, 3)) == 0:
        argv.append("--json")
    if argv[0] == "compare" and {"--again", "--measure"} & {*argv}:
        argv += MEASURED.split()
    # What takes minutes, or fetches: a bare demo, or a first run where none is named.
    if argv[0] == "demo" and "surplus" not in argv:
        argv.append("surplus")
    chosen = draw(st.sampled_from(["surface", "curve", "hessian", "missing", "config", "run"]))
    return ["--no-figures" if a == "--debug" else a for a in argv], [(chosen, 0)]


def run_line(drawn: tuple[list[str], list[tuple[str, int]]], folder: Path) -> object:
    """Run one line in a copy of the results; raise `Finding` where it does what none may do."""
    argv, ((chosen, _),) = drawn
    results = copy_tree(prepared.results(), folder / "results")
    run = results / "runs" / "tiny"
    drawable = {
        "surface": run / prepared.surface(2).name, "curve": run / prepared.surface(1).name,
        "hessian": run / prepared.stored("hessian.h5").name, "missing": run / "missing.h5",
        "config": run / "config.json", "run": run,
    }  # fmt: skip
    argv = [str(drawable[chosen]) if a == "FILE" else a for a in argv]
    (folder / "plugin.py").write_text("from torch import nn\nfactory = nn.Linear\n")
    (folder / "a.toml").write_text(TOML)
    (folder / "a.json").write_text(str(CONFIG))
    before = _others(folder)
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", how) for how in ("strict", "backslashreplace")
    )
    with _workplace(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(argv)
        except SystemExit as error:
            raise Finding("unexpected", "cli.main", f"SystemExit({error.code!r})") from error
        finally:
            for stream in (out, err):
                stream.flush()
    said = err.buffer.getvalue().decode()
    shown = [line for line in said.splitlines() if line.strip()]
    if code not in (0, 1, 2):
        raise Finding("unexpected", "exit code", f"{code}: {said}")
    if "error: unexpected" in said or "Traceback" in said:
        raise Finding("unexpected", shown[-2][:80] if len(shown) > 1 else said, said)
    if code and not 1 <= len(shown) <= 3:
        raise Finding("unexpected", f"{len(shown)} lines", said)
    if written := _others(folder) - before:
        raise Finding("unexpected", "written outside the results", str(sorted(written)[:5]))
    if code:
        raise IsolossError(said)
    return code


def _others(folder: Path) -> set[str]:
    """Return all files but those of the results (and what Python makes of a plug-in)."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return {str(path) for path in found if path.parts[0] not in ("results", "__pycache__")}


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[None]:
    """Work in a folder, which holds the results and no data."""
    known = {name: value for name, value in os.environ.items() if name != "ISOLOSS_DATA"}
    here = {**known, "ISOLOSS_RESULTS": str(folder / "results")}
    before = Path.cwd()
    os.chdir(folder)
    try:
        with mock.patch.dict(os.environ, here, clear=True):
            yield
    finally:
        os.chdir(before)


READER = Reader("command lines", lines(), run_line)
