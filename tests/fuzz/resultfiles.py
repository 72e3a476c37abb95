"""Readers of stored results: run folders, reports, HDF5 files, journals, searches."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st

from isoloss.evaluation.paired import paired_differences, read_answers
from isoloss.evaluation.roc import read_roc
from isoloss.experiments.search_space import parse_search
from isoloss.experiments.study import TrialTable, open_study
from isoloss.experiments.train_options import stored_options
from isoloss.records.density_pair import read_density_pair
from isoloss.records.export import FORMATS, export
from isoloss.records.files import FileError
from isoloss.records.history_lines import read_history_lines
from isoloss.records.journal import Journal, read_header
from isoloss.records.json_text import to_json
from isoloss.records.ll import (
    described,
    direction_file,
    finished_points,
    read_direction,
    read_projection,
)
from isoloss.records.npy import npy_bytes
from isoloss.records.over_training import over_training_summary, read_over_training
from isoloss.records.runs import Run
from isoloss.records.sharpness import Measured, read_sharpness, sharpness_rows
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import read_surface, stored_settings
from tests.fuzz import prepared
from tests.fuzz.harness import Reader
from tests.fuzz.inputs import as_bytes, damaged_bytes, damaged_json, file_of

RUN_FILES = ("config.json", "facts.json", "run.json", "history.json", "evaluation.json")


def read_run(drawn: tuple[str, bytes], folder: Path) -> object:
    run = Run(folder / "tiny")
    run.path.mkdir()
    for name in RUN_FILES:
        shutil.copy(prepared.run() / name, run.path / name)
    (run.path / drawn[0]).write_bytes(drawn[1])
    read = [run.label, run.status, run.config(), run.facts(), run.manifest(), run.evaluation()]
    return [*read, run.history(), stored_options(run)]


def read_roc_file(drawn: bytes, folder: Path) -> object:
    (folder / "roc.csv").write_bytes(drawn)
    return read_roc(folder / "roc.csv")


PREDICTIONS = "index,truth,guess,confidence,group\n0,a,a,0.9,1\n1,a,b,0.8,1\n2,b,b,0.7,2\n"


def read_predictions(drawn: bytes, folder: Path) -> object:
    (folder / "predictions.csv").write_bytes(drawn)
    answers = read_answers(folder / "predictions.csv")
    return paired_differences([("a", answers), ("b", answers)])


# What can be wrong with an entry of an HDF5 file.
VALUES: dict[str, Any] = {
    "nan": np.nan, "empty": np.empty(0), "text": "text", "bytes": b"\xff\xfe",
    "matrix": np.ones((2, 3)),
    "long": np.ones(1000), "whole": np.arange(3), "complex": np.ones(3, complex), "huge": 1e308,
    "bool": np.ones(3, bool), "half": np.ones(3, "f2"), "cube": np.ones((2, 2, 2)),
    "negative": -np.ones(3), "inf": np.full(3, np.inf), "json": '{"a": ', "list": "[1]",
    "deep": "[" * 9999,
    "strings": np.array([b"a", b"b"]), "empty dataset": h5py.Empty("f8"), "zero": 0, "-1": -1,
}  # fmt: skip
Edit = tuple[str, int, str]


def edit_hdf5(path: Path, edits: list[Edit]) -> None:
    """Exchange, drop, move and enlarge entries and attributes; the file stays HDF5."""
    with h5py.File(path, "r+") as file:
        for kind, number, value in edits:
            names: list[str] = []
            file.visit(names.append)
            if not names:
                return
            name = sorted(names)[number % len(names)]
            item = file[name]
            attributes = [(owner, key) for owner in (file, item) for key in owner.attrs]
            if kind == "drop":
                del file[name]
            elif kind == "exchange":
                del file[name]
                file[name] = VALUES[value]
            elif kind == "group":
                del file[name]
                file.create_group(name).attrs["account"] = "{}"
            elif kind == "move":
                file.move(name, f"{name}-{number}")
            elif kind == "link":
                del file[name]
                file[name] = h5py.SoftLink("/") if number % 2 else h5py.ExternalLink("/etc/a", "/a")
            elif kind == "claim":  # far larger than the file
                del file[name]
                shape = (10**12,) if number % 2 else (10**6, 10**6)
                file.create_dataset(name, shape, "f8", chunks=True)
            elif kind == "attribute" and attributes:
                owner, key = attributes[number % len(attributes)]
                owner.attrs[key] = VALUES[value]
            elif kind == "no attribute" and attributes:
                owner, key = attributes[number % len(attributes)]
                del owner.attrs[key]


edits = st.lists(
    st.tuples(
        st.sampled_from(["drop", "exchange", "exchange", "group", "move", "link", "claim",
                         "attribute", "attribute", "no attribute"]),
        st.integers(0, 200),
        st.sampled_from(sorted(VALUES)),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


@st.composite
def hdf5_files(draw: st.DrawFn, valid: Callable[[], Path]) -> tuple[Path, list[Edit], bytes | None]:
    """Draw what to do with a valid file: edits of its entries, of its bytes, or other content."""
    file = valid()
    kind = draw(st.integers(0, 3))
    if kind == 3:
        content = file.read_bytes()
        return file, [], draw(st.one_of(damaged_bytes(content), as_bytes))
    return file, draw(edits), None


def hdf5_reader(read: Callable[[Path], object]) -> Callable[[Any, Path], object]:
    def one(drawn: tuple[Path, list[Edit], bytes | None], folder: Path) -> object:
        path = folder / "a.h5"
        if drawn[2] is None:
            shutil.copy(drawn[0], path)
            edit_hdf5(path, drawn[1])
        else:
            path.write_bytes(drawn[2])
        return read(path)

    return one


def whole_surface(path: Path) -> object:
    data = read_surface(path)
    if data.settings:  # one of ours
        stored_settings(path)
    columns = {
        name: (data.median(name), data.band(name), data.widest(name)) for name in data.values
    }
    distances = [path.relative_distance for path in data.trajectories.values()]
    return columns, data.median_loss, data.loss_range, distances


def whole_training(path: Path) -> object:
    data = read_over_training(path)
    return repr(data), data.to_dataframe(), over_training_summary(data)


@functools.cache
def foreign() -> Path:
    """A surface as the loss-landscape code writes it."""
    path = prepared.results() / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["xcoordinates"], file["ycoordinates"] = np.linspace(-1, 1, 3), np.linspace(-1, 1, 4)
        file["train_loss"] = file["train_acc"] = np.arange(12.0).reshape(3, 4) - 1
        file["dir_file"] = "directions.h5"
        file["xdirection/0"] = np.ones(4)
    return path


@functools.cache
def directions() -> Path:
    """Principal directions and a trajectory on them, which that code keeps in two files."""
    path = prepared.results() / "directions.h5"
    with h5py.File(path, "w") as file:
        for axis in "xy":
            for number, shape in enumerate([(2, 3), (2,), ()]):
                file[f"{axis}direction/{number}"] = np.ones(shape, "f4")
        file["explained_variance_ratio_"] = [0.7, 0.2]
        file["proj_xcoord"] = file["proj_ycoord"] = np.arange(5.0)
    return path


def read_directions(path: Path) -> object:
    described(path)
    found = read_projection(path)
    arrays = [read_direction(path, axis) for axis in "xy"]
    return found.on_plane(arrays[0], [a + np.arange(a.size).reshape(a.shape) for a in arrays[1]])


def continued(path: Path) -> object:
    direction_file(path)
    x, y = np.linspace(-1, 1, 3), np.linspace(-1, 1, 4)
    return finished_points(path, x, y, ["train_loss", "train_acc"])


def exported(path: Path) -> object:
    """A result in every format that holds it; at least one does."""
    made, refused = [], []
    for to in FORMATS:
        try:
            made += export(path, to).files
        except FileError as error:
            refused.append(error)
    if not made:
        raise refused[0]
    return made


@functools.cache
def density_pair() -> tuple[bytes, bytes]:
    weights = np.full((2, 4, 4), 0.25)
    return npy_bytes(np.arange(8.0).reshape(2, 4).astype("c8")), npy_bytes(weights)


def read_pair(drawn: tuple[bytes, bytes], folder: Path) -> object:
    for name, content in zip(("eigen", "weight"), drawn, strict=True):
        (folder / f"a_{name}.npy").write_bytes(content)
    return exported(folder / "a_eigen.npy"), read_density_pair(folder / "a_weight.npy")


HISTORY = "".join(
    f'{{"step_type":"{kind}","loss":{loss},"accuracy":0.5,"epoch":{epoch}}}\n'
    for epoch in range(3)
    for kind, loss in (("train", 0.5), ("test", "null"))
)


def read_history_file(drawn: bytes, folder: Path) -> object:
    (folder / "a.dat").write_bytes(drawn)
    return [run.history() for run in read_history_lines(folder / "a.dat")]


HEADER = {"shape": [3], "settings": {"a": 1}}


@functools.cache
def journal() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        written = Journal(Path(folder) / "a.journal", HEADER, 2)
        written.start()
        for index in range(5):
            written.append(index, (float(index), 1.0))
        written.close()
        return written.path.read_bytes()


def read_journal(drawn: bytes, folder: Path) -> object:
    path = folder / "a.journal"
    path.write_bytes(drawn)
    read_header(path)
    records = Journal(path, HEADER, 2).read()
    assert all(len(values) == 2 for values in records.values())
    return records


SEARCH = ["lr=loguniform:1e-3:1"]


@functools.cache
def study() -> bytes:
    """The file of a search with one trial that is complete."""
    from isoloss.experiments.study import ask, tell
    from isoloss.experiments.trial_runs import TrialResult

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "s"
        folder.mkdir()
        begun = open_study(folder, {"search": {"lr": "x"}, "fixed": {}, "seed": 0})
        space = parse_search(SEARCH)
        number, _ = ask(begun, space, 0)
        tell(begun, number, TrialResult("complete", "", 0.5, 0.1, 1.0, 2.0))
        return (folder / "study.db").read_bytes()


def read_study(drawn: bytes, folder: Path) -> object:
    path = folder / "s"
    path.mkdir()
    (path / "study.db").write_bytes(drawn)
    opened = open_study(path, {"search": {"lr": "x"}, "fixed": {}, "seed": 0})
    return TrialTable(opened, parse_search(SEARCH), path).rows


@st.composite
def run_files(draw: st.DrawFn) -> tuple[str, bytes]:
    name = draw(st.sampled_from(RUN_FILES))
    valid = json.loads((prepared.run() / name).read_text(encoding="utf-8"))
    return name, draw(damaged_json(valid))


def near_file(valid: Callable[[], bytes]) -> st.SearchStrategy[bytes]:
    return st.deferred(lambda: st.one_of(damaged_bytes(valid()), as_bytes))


SHARPNESS = to_json(
    {
        "kind": "sharpness",
        "settings": {"options": {"rho": "0.1"}, "plan": {}, "optimizer": "sgd"},
        "rescaling": {"first": "0", "second": "2", "factor": 2.0},
        "rows": [
            dataclasses.asdict(Measured("worst case", "l2", 0.1, 0.5, lowest=0.4)),
            dataclasses.asdict(Measured("trace", "", math.nan, 2.0, error=0.1, error_of="probes")),
        ],
    }
)


def read_sharpness_file(drawn: bytes, folder: Path) -> object:
    (folder / "sharpness.json").write_bytes(drawn)
    data = read_sharpness(folder / "sharpness.json")
    return [sharpness_rows([("a", data)]), data.find("worst case", "l2")]


READERS = [
    Reader("run files", run_files(), read_run),
    Reader(
        "roc.csv",
        st.deferred(lambda: file_of(prepared.stored("roc.csv").read_text(encoding="utf-8"))),
        read_roc_file,
    ),
    Reader("predictions.csv", file_of(PREDICTIONS), read_predictions),
    Reader(
        "surface HDF5",
        hdf5_files(lambda: prepared.surface(2)),
        hdf5_reader(whole_surface),
    ),
    Reader(
        "HDF5 of paths",
        hdf5_files(lambda: prepared.stored("trajectory.h5")),
        hdf5_reader(whole_surface),
    ),
    Reader("curve HDF5", hdf5_files(lambda: prepared.surface(1)), hdf5_reader(whole_surface)),
    Reader("foreign surface HDF5", hdf5_files(foreign), hdf5_reader(whole_surface)),
    Reader(
        "spectrum HDF5",
        hdf5_files(lambda: prepared.stored("hessian.h5")),
        hdf5_reader(read_spectrum),
    ),
    Reader(
        "over-training HDF5",
        hdf5_files(lambda: prepared.stored("hessian-over-training.h5")),
        hdf5_reader(whole_training),
    ),
    Reader("direction HDF5", hdf5_files(directions), hdf5_reader(read_directions)),
    Reader("foreign surface continued", hdf5_files(foreign), hdf5_reader(continued)),
    Reader("surface exported", hdf5_files(lambda: prepared.surface(2)), hdf5_reader(exported)),
    Reader(
        "over-training exported",
        hdf5_files(lambda: prepared.stored("hessian-over-training.h5")),
        hdf5_reader(exported),
    ),
    Reader(
        "spectrum exported",
        hdf5_files(lambda: prepared.stored("hessian.h5")),
        hdf5_reader(exported),
    ),
    Reader(
        "density pairs",
        st.tuples(near_file(lambda: density_pair()[0]), near_file(lambda: density_pair()[1])),
        read_pair,
    ),
    Reader("histories", file_of(HISTORY, ":"), read_history_file),
    Reader("sharpness JSON", damaged_json(SHARPNESS), read_sharpness_file),
    Reader("journals", near_file(journal), read_journal),
    Reader("searches", near_file(study), read_study),
]
