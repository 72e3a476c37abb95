"""What a command refuses: the exit code, three lines at most, nothing half-written."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import torch

from isoloss import cli


def run_command(capsys, *arguments, results):
    code = cli.main([*map(str, arguments), "--results", str(results)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    train = ["train", "--run", "tiny", "--epochs", "1", "--fraction", "0.1", "--no-figures"]
    assert cli.main([*train, "--results", str(results)]) == 0
    return results


@pytest.fixture
def results(one_run, tmp_path):
    return shutil.copytree(one_run, tmp_path / "results")


def files(folder):
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


# The command, its exit code, and what the message must name.
REFUSED = {
    "axis turned round": ("surface tiny --x=1:-1:20", 2, ["x axis", "1:-1:20"]),
    "axis of no points": ("surface tiny --x=-1:1:0", 2, ["x axis", "both ends"]),
    "axis of letters": ("surface tiny --x=a:b:c", 2, ["min:max:count", "a:b:c"]),
    "second axis": ("surface tiny --y=0:1", 2, ["y axis", "min:max:count"]),
    "axis of too many points": (
        "surface tiny --x=-1:1:10000000000",
        2,
        ["x axis", "10,000,000,000", "100,000,000 points"],
    ),
    "plane of too many points": (
        "surface tiny --x=-1:1:20000 --y=-1:1:20000",
        2,
        ["20000 x 20000", "400,000,000"],
    ),
    "too many points along directions": (
        "surface tiny --x=-1:1:20000 --repeat 9999",
        2,
        ["--repeat", "9999", "20,000"],
    ),
    "too many directions": ("surface tiny --repeat 1000000", 2, ["--repeat", "1 to 10000"]),
    "too many eigenvalues": ("hessian tiny --top 1000000000", 2, ["--top", "0 to 10000"]),
    "too many probes": ("hessian tiny --probes 1000000000", 2, ["--probes", "0 to 10000"]),
    "too many steps": ("hessian tiny --steps 1000000000", 2, ["--steps", "1 to 10000"]),
    "samples in another script": ("surface tiny --samples=²", 2, ["--samples", "²"]),
    "axis in another script": ("surface tiny --x=-1:1:²", 2, ["x axis", "²"]),
    "number of a device": ("surface tiny --device cpu:²", 2, ["--device", "cpu:²"]),
    "no such processor": ("surface tiny --device cpu:99", 1, ["cpu:99", "cpu:0"]),
    "seed": ("surface tiny --seed 99999999999999999999999999", 2, ["--seed"]),
    "seed of a training": ("train --seed 99999999999999999999999999", 2, ["--seed"]),
    "normalisation": ("surface tiny --norm filtre", 2, ["filter", "filtre"]),
    "split": ("surface tiny --split tests", 2, ["train, val, test, both"]),
    "no direction": ("surface tiny --repeat 0", 2, ["--repeat", "1 to 10000"]),
    "half a direction": ("surface tiny --repeat 1.5", 2, ["--repeat", "1.5"]),
    "samples": ("surface tiny --samples some", 2, ["--samples", "some"]),
    "dtype": ("surface tiny --dtype float16", 2, ["float64", "float16"]),
    "device": ("surface tiny --device gpu", 2, ["--device", "cuda"]),
    "policy": ("hessian tiny --bn running", 2, ["recalibrate", "running"]),
    "operator": ("hessian tiny --operator newton", 2, ["hessian, ggn", "newton"]),
    "nothing to do": ("hessian tiny --top 0 --probes 0 --trace-budget 0", 2, ["nothing"]),
    "missing run": ("surface tinny", 1, ["tinny", "tiny"]),
    "missing run of two": ("compare tiny other", 1, ["other"]),
    "a run twice": ("compare tiny tiny", 2, ["once"]),
    "nothing measured": (
        "compare tiny",
        1,
        ["surface or curvature of tiny", "compare tiny --measure"],
    ),
    "model": ("train --model fashion-cn", 2, ["fashion-cnn", "classifier"]),
    "data": ("train --dataset minst", 2, ["mnist", "digits"]),
    "optimizer": ("train --optimizer sgdm", 2, ["sgd", "adam"]),
    "loss": ("train --loss crosentropy", 2, ["cross-entropy"]),
    "schedule": ("train --schedule cosin", 2, ["cosine"]),
    "argument of a model": ("train --model-arg widht=3", 2, ["widht"]),
    "argument without value": ("train --model-arg width", 2, ["key=value"]),
    "radius without sam": ("train --optimizer sgd --rho 0.1", 2, ["rho"]),
    "learning rate": ("train --lr -1", 2, ["lr"]),
    "batch size": ("train --batch-size all", 2, ["full", "all"]),
    "run name": ("train --run ../elsewhere", 2, ["--run", "elsewhere"]),
    "taken name": ("train --run tiny", 1, ["--force", "--resume"]),
    "no data": ("train --dataset mnist --data-dir nowhere", 1, ["nowhere", "--download"]),
    "no plug-in": ("train --model nowhere.py:net", 1, ["nowhere.py"]),
    "file without model": ("surface --checkpoint weights.pt", 2, ["--model", "--dataset"]),
    "no file": ("surface --checkpoint w.pt --model fashion-cnn --dataset digits", 1, ["w.pt"]),
    "no such list": ("list network", 2, ["models", "network"]),
    "no such command": ("surfaces", 2, ["surface"]),
    "no such option": ("surface tiny --xx=-1:1:3", 2, ["--x"]),
    "nothing to plot": ("plot nowhere.h5", 1, ["nowhere.h5"]),
    "summary over itself": ("surface tiny --out tiny.json", 2, ["--out", ".h5"]),
    "name of a path": ("surface ../tiny", 2, ["RUN", "../tiny"]),
    "config": ("train --config nowhere.toml", 2, ["nowhere.toml"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, results, capsys):
    line, exit_code, named = REFUSED[case]
    before = files(results)
    arguments = line.split()
    if arguments[0] in ("plot", "surfaces"):  # no --results there
        code = cli.main(arguments)
        captured = capsys.readouterr()
        out, error = captured.out, captured.err
    else:
        code, out, error = run_command(capsys, *arguments, results=results)
    assert code == exit_code, error
    assert 1 <= len(error.splitlines()) <= 3, error
    assert "Traceback" not in error + out
    for text in named:
        assert text in error
    assert files(results) == before


def test_a_checkpoint_of_another_network_leaves_no_run(results, capsys):
    weights = results / "runs" / "tiny" / "checkpoints" / "last.pt"
    before = files(results)
    code, _, error = run_command(
        capsys, "surface", "new", "--checkpoint", weights, "--model", "classifier",
        "--dataset", "digits", results=results,
    )  # fmt: skip
    assert code == 1
    assert "does not fit" in error
    assert len(error.splitlines()) <= 3
    assert files(results).keys() == before.keys()


def garbage(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"no more" * 50)


def foreign(path):
    with h5py.File(path, "w") as file:
        file["weights"] = np.ones(3)


def truncated(path):
    with h5py.File(path, "w") as file:
        file["train_loss"] = np.ones((100, 100))
    path.write_bytes(path.read_bytes()[:4000])


@pytest.mark.parametrize("make", [garbage, foreign, truncated])
@pytest.mark.parametrize("command", ["surface tiny --x=-1:1:3", "hessian tiny", "plot"])
def test_files_that_are_not_ours_are_left_alone(make, command, results, capsys):
    name = "hessian.h5" if command.startswith("hessian") else "surface-1d.h5"
    path = results / "runs" / "tiny" / name
    make(path)
    before = path.read_bytes()
    if command == "plot":
        code = cli.main(["plot", str(path)])
        error = capsys.readouterr().err
    else:
        code, _, error = run_command(capsys, *command.split(), results=results)
    assert code == 1
    assert "expected" in error
    assert len(error.splitlines()) <= 3
    assert path.read_bytes() == before


def test_a_checkpoint_that_would_run_code_is_refused(results, tmp_path, capsys):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            import pathlib

            return pathlib.Path.touch, (marker,)

    torch.save({"state_dict": Payload()}, tmp_path / "evil.pt")
    code, _, error = run_command(
        capsys, "evaluate", "--checkpoint", tmp_path / "evil.pt", "--model", "fashion-cnn",
        "--dataset", "digits", results=results,
    )  # fmt: skip
    assert code == 1
    assert "refused" in error
    assert not marker.exists()
    assert {p.name for p in (results / "runs").iterdir()} == {"tiny"}


def test_debug_shows_the_traceback(results, capsys):
    code, _, error = run_command(capsys, "surface", "other", "--debug", results=results)
    assert code == 1
    assert "Traceback" in error
