"""Readers of data sets: text files, idx, NumPy archives, PhysioNet's records."""

from __future__ import annotations

import functools
import gzip
import io
import struct
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from isoloss.datasets import load_data, physionet
from isoloss.datasets.heartbeats import RATE, cut_at_annotations, cut_like_kachuee
from isoloss.datasets.tables import read_numbers
from tests.fuzz.harness import Reader
from tests.fuzz.inputs import as_bytes, damaged_bytes, file_of

NUMBERS = "1,2,3\n4,5,6\n7,8,9\n"
_BEAT = [f"{value:.2f}" for value in np.linspace(0, 1, 187)]
BEATS = "".join(",".join([*_BEAT, str(row % 5)]) + "\n" for row in range(12))
# Ten graphs, a path of two or three nodes each.
_SIZES = [2 + graph % 2 for graph in range(10)]
_FIRST = np.cumsum([1, *_SIZES])[:-1].tolist()
GRAPHS = {
    "graph_indicator": [graph + 1 for graph, size in enumerate(_SIZES) for _ in range(size)],
    "A": [f"{f + i}, {f + i + 1}" for f, size in zip(_FIRST, _SIZES, strict=True)
          for i in range(size - 1)],
    "graph_labels": [graph % 2 for graph in range(10)],
    "node_labels": [node % 3 for node in range(sum(_SIZES))],
    "edge_labels": [edge % 2 for edge in range(sum(_SIZES) - 10)],
    "node_attributes": [f"{node}, {node / 2}" for node in range(sum(_SIZES))],
    "graph_attributes": [graph / 10 for graph in range(10)],
    "label_readme": ["Class labels were converted to integer values using this map:", " 0 a"],
}  # fmt: skip


def read_table(drawn: tuple[bytes, int | None, bool], folder: Path) -> object:
    file = folder / "a.csv"
    file.write_bytes(drawn[0])
    return read_numbers(file, drawn[1], whole=drawn[2])


def read_beats(drawn: bytes, folder: Path) -> object:
    (folder / "mitbih_train.csv").write_bytes(drawn)
    (folder / "mitbih_test.csv").write_text(BEATS)
    return load_data("mitbih", {"source": "csv"}, folder)


def read_graphs(drawn: tuple[str, bytes, dict[str, bool]], folder: Path) -> object:
    damaged, content, arguments = drawn
    raw = folder / "X" / "raw"
    raw.mkdir(parents=True)
    for name, lines in GRAPHS.items():
        if name != "graph_attributes":
            (raw / f"X_{name}.txt").write_text("\n".join(map(str, lines)) + "\n")
    (raw / f"X_{damaged}.txt").write_bytes(content)
    return load_data("tu:X", arguments, folder)


def idx(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


_SMALL = np.arange(20, dtype=np.uint8) % 10
_IMAGES = np.zeros((20, 28, 28), np.uint8)


def read_idx(drawn: tuple[str, bytes], folder: Path) -> object:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(_IMAGES))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(_SMALL))
    (raw / drawn[0]).write_bytes(drawn[1])
    return load_data("mnist", {}, folder)


IDX = {
    "train-images-idx3-ubyte": idx(_IMAGES),
    "train-labels-idx1-ubyte": idx(_SMALL),
    "t10k-labels-idx1-ubyte": idx(_SMALL),
}
# Headers that agree with themselves: other counts, sizes and labels than those of the images.
_CONSISTENT = [
    idx(np.zeros(shape, np.uint8)) for shape in [(0, 28, 28), (20, 0, 28), (19, 28, 28), (20, 5, 7)]
] + [idx(_SMALL[:19]), idx(_SMALL + 200), idx(np.zeros(0, np.uint8)), idx(np.full(20, 3, np.uint8))]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(
        st.sampled_from(
            ["f4", "f8", "u1", "i8", "u8", "?", "U3", "S2", "c8", "M8[s]", "f2", "V3", "O", "g"]
        )
    )
    shape = draw(
        st.sampled_from(
            [
                (12,),
                (12, 1),
                (12, 3),
                (12, 4, 4),
                (12, 4, 4, 3),
                (12, 4, 4, 9),
                (0, 3),
                (),
                (11, 3),
                (12, 0),
                (1, 3),
                (12, 2, 2, 2, 2),
            ]
        )
    )
    if dtype in ("U3", "S2", "V3", "O", "M8[s]"):
        return np.zeros(shape, dtype)
    kind = draw(st.integers(0, 3))
    values = np.arange(int(np.prod(shape))).reshape(shape) % 3
    with np.errstate(all="ignore"):
        if kind == 1 and dtype in ("f4", "f8", "f2", "g"):
            return np.where(
                values == 1, draw(st.sampled_from([np.nan, np.inf, 1e300])), values
            ).astype(dtype)
        if kind == 2 and dtype in ("i8", "u8"):
            return values.astype(dtype) + np.array(2**62, dtype)
        if kind == 3:
            return (values.astype("i8") - 5).astype(dtype)
    return values.astype(dtype)


NAMES = ("x_train", "y_train", "x_test", "y_test")


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    labels = np.arange(12) % 3
    content: dict[str, Any] = dict.fromkeys(("x_train", "x_test"), np.ones((12, 3), "f4"))
    if draw(st.booleans()):
        content = dict.fromkeys(("x_train", "x_test"), np.zeros((12, 4, 4, 3), np.uint8))
    content |= {"y_train": labels, "y_test": labels}
    for name in draw(
        st.lists(
            st.sampled_from(
                [*NAMES, "x_val", "y_val", "class_names", "groups_train", "groups_test"]
            ),
            max_size=3,
        )
    ):
        content[name] = draw(arrays())
    if draw(st.integers(0, 9)) == 0:
        del content[draw(st.sampled_from(NAMES))]
    file = io.BytesIO()
    save = np.savez_compressed if draw(st.booleans()) else np.savez
    save(file, **content)
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged_bytes(file.getvalue()))
    return file.getvalue()


def huge_array() -> bytes:
    """An archive whose member states far more numbers than it holds."""
    import zipfile

    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in NAMES:
            archive.writestr(f"{name}.npy", member)
    return file.getvalue()


def read_npz(drawn: bytes, folder: Path) -> object:
    (folder / "a.npz").write_bytes(drawn)
    return load_data("npz:a.npz", {}, folder)


@functools.cache
def record() -> dict[str, bytes]:
    """Return the files of a short record of two leads with twelve beats, by suffix."""
    wfdb = physionet.import_wfdb()
    times = 288 * np.arange(1, 13)
    signal = np.zeros((4000, 2))
    signal[times] = 1.0
    with tempfile.TemporaryDirectory() as folder, physionet._wfdb_quiet():
        wfdb.wrsamp("100", fs=360, units=["mV", "mV"], sig_name=["MLII", "V5"], p_signal=signal,
                    fmt=["212", "212"], adc_gain=[200, 200], baseline=[1024, 1024],
                    write_dir=folder)  # fmt: skip
        wfdb.wrann("100", "atr", times, list("NVLS+FN/NNNN"), write_dir=folder)
        return {file.suffix: file.read_bytes() for file in Path(folder).iterdir()}


@st.composite
def records(draw: st.DrawFn) -> tuple[str, bytes]:
    valid = record()
    suffix = draw(st.sampled_from([".hea", ".hea", ".atr", ".dat"]))
    if suffix == ".hea":
        text = valid[suffix].decode()
        return suffix, draw(st.one_of(file_of(text, " "), file_of(text, "\n")))
    return suffix, draw(st.one_of(damaged_bytes(valid[suffix]), as_bytes))


def read_record(drawn: tuple[str, bytes], folder: Path) -> object:
    for suffix, content in record().items():
        (folder / f"100{suffix}").write_bytes(content)
    (folder / f"100{drawn[0]}").write_bytes(drawn[1])
    with mock.patch.object(physionet, "RECORDS", ("100",)):
        (one,) = physionet.read_records(folder, "MLII")
    for cut in (cut_at_annotations, cut_like_kachuee):
        beats = cut(one.signal, one.samples * RATE / physionet.RATE)
        assert len(beats.series) == len(beats.index)
    return one


tables = st.tuples(file_of(NUMBERS), st.sampled_from([None, 1, 3]), st.booleans())
graphs = st.sampled_from(sorted(GRAPHS)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        file_of("\n".join(map(str, GRAPHS[name])) + "\n", ", "),
        st.fixed_dictionaries({"node_attributes": st.booleans()}),
    )
)
images = st.sampled_from(sorted(IDX)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.one_of(
            damaged_bytes(IDX[name]),
            damaged_bytes(IDX[name], 1),
            st.sampled_from(_CONSISTENT),
            st.just(gzip.compress(IDX[name])),
            damaged_bytes(gzip.compress(IDX[name], mtime=0)),
            as_bytes,
        ),
    )
)

READERS = [
    Reader("tables of numbers", tables, read_table),
    Reader("CSV heartbeats", file_of(BEATS), read_beats),
    Reader("TU graphs", graphs, read_graphs),
    Reader("idx images", images, read_idx),
    Reader("npz data", st.one_of(archives(), archives(), as_bytes, st.just(huge_array())),
           read_npz),
    Reader("PhysioNet records", records(), read_record),
]  # fmt: skip
