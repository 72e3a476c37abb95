"""HDF5 files made to deceive: read by no reader, and before anything is allocated."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from isoloss import cli
from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5
from isoloss.records.spectra import (
    DensityData,
    EigenpairsData,
    SpectrumData,
    TraceData,
    read_spectrum,
    write_spectrum,
)
from isoloss.records.surfaces import StoredDirection, SurfaceStore, read_surface

Damage = Callable[[h5py.File, str], None]


def surface(path: Path) -> None:
    """A curve of ours, whole."""
    x = np.linspace(-1, 1, 5)
    recipe = {"kind": "random"}
    store = SurfaceStore(
        path, x, None, ["train_loss", "train_acc"], {"a": 1},
        [StoredDirection(recipe, [np.ones(3)])],
    )  # fmt: skip
    store.start()
    for index in range(6):
        store.append(index, (float(index), 50.0))
    store.finish()


def foreign_surface(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = file["ycoordinates"] = np.linspace(-1, 1, 5)
        file["train_loss"] = np.ones((5, 5))
        file["dir_file"] = "directions.h5"


def spectrum(path: Path) -> None:
    nodes = np.linspace(0, 1, 12).reshape(2, 6)
    grid = np.linspace(0, 1, 9)
    account = {"converged": True, "reason": "", "bandwidth": 0.1}
    write_spectrum(
        path,
        SpectrumData(
            {"a": 1},
            EigenpairsData(np.ones(2), np.ones(2), {"w": np.ones((2, 3))}, None, None, {}, account),
            TraceData(1.0, 0.1, 10, account),
            DensityData(nodes, nodes, grid, grid, grid, grid, account),
        ),
    )


def external(file: h5py.File, name: str) -> None:
    """The numbers of another file, such as /etc/passwd."""
    shape, secret = file[name].shape, Path(file.filename).with_name("secret")
    secret.write_bytes(b"1234567\n" * 100)
    del file[name]
    file.create_dataset(name, shape, "f8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, name: str) -> None:
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape=shape, dtype="f8")
    layout[...] = h5py.VirtualSource("other.h5", "numbers", shape=shape)
    file.create_virtual_dataset(name, layout)


def replaced(content: Callable[[tuple[int, ...]], object]) -> Damage:
    def damage(file: h5py.File, name: str) -> None:
        shape = file[name].shape
        del file[name]
        file[name] = content(shape)

    return damage


def claimed(file: h5py.File, name: str, **how: object) -> None:
    """Terabytes of the fill value in a file of some kilobytes."""
    rank = len(file[name].shape)
    del file[name]
    file.create_dataset(name, (2**20,) * rank if rank > 1 else (2**40,), "f8", **how)


def a_group(file: h5py.File, name: str) -> None:
    del file[name]
    file.create_group(name)["inside"] = 1.0


def of_type(kind: np.dtype | object) -> Damage:
    def damage(file: h5py.File, name: str) -> None:
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, dtype=kind)

    return damage


HOSTILE: dict[str, Damage] = {
    "external storage": external,
    "virtual": virtual,
    "external link": replaced(lambda shape: h5py.ExternalLink("other.h5", "/numbers")),
    "dangling link": replaced(lambda shape: h5py.SoftLink("/nowhere")),
    "looping link": lambda file, name: replaced(lambda shape: h5py.SoftLink(f"/{name}"))(
        file, name
    ),
    "link to another entry": replaced(lambda shape: h5py.SoftLink("/xcoordinates")),
    "terabytes of fill values": lambda file, name: claimed(file, name, fillvalue=1.0),
    "terabytes in chunks": lambda file, name: claimed(file, name, chunks=True, compression="gzip"),
    "group": a_group,
    "texts": of_type(h5py.string_dtype()),
    "texts of fixed length": of_type("S8"),
    "references": of_type(h5py.ref_dtype),
    "arrays of any length": of_type(h5py.vlen_dtype(np.float64)),
    "compound": of_type(np.dtype([("a", "f8"), ("b", "i4")])),
    "opaque": of_type(h5py.opaque_dtype(np.dtype("V16"))),
    "complex": of_type(np.complex128),
    "empty": replaced(lambda shape: h5py.Empty("f8")),
    "another rank": replaced(lambda shape: np.ones((*shape, 1))),
    "another length": replaced(lambda shape: np.ones(tuple(n + 1 for n in shape))),
    "a type": replaced(lambda shape: np.dtype("f8")),
}

ENTRIES = {
    "surface": (surface, read_surface, ["xcoordinates", "train_loss", "done", "origin/train_acc"]),
    "foreign": (foreign_surface, read_surface, ["ycoordinates", "train_loss"]),
    "spectrum": (
        spectrum, read_spectrum,
        ["eigenvalues", "eigenvectors/w", "trace/estimate", "density/nodes", "density/curve"],
    ),
}  # fmt: skip

# Another layout of as many numbers is taken; a scalar has no length, and HDF5 stores it itself.
HARMLESS = {
    ("foreign", "train_loss", "another rank"),
    ("spectrum", "eigenvectors/w", "another rank"),
    *(
        (kind, name, what)
        for kind, name in (("surface", "origin/train_acc"), ("spectrum", "trace/estimate"))
        for what in ("another length", "external storage")
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize(
    ("kind", "entry"), [(kind, name) for kind, (*_, names) in ENTRIES.items() for name in names]
)
def test_an_entry_that_is_no_plain_array_is_refused(
    kind: str, entry: str, what: str, tmp_path: Path
) -> None:
    if (kind, entry, what) in HARMLESS:
        return
    make, read, _ = ENTRIES[kind]
    path = tmp_path / "file.h5"
    make(path)
    read(path)  # the file is sound before
    with h5py.File(path, "r+") as file:
        HOSTILE[what](file, entry)
    tracemalloc.start()
    try:
        with pytest.raises(FileError) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    lines = str(caught.value).splitlines()
    assert 1 <= len(lines) <= 3
    assert str(path) in lines[0]
    assert "expected" in str(caught.value)
    if kind == "foreign":  # nobody is told to delete what Isoloss cannot make again
        assert "delete" not in str(caught.value)


def test_a_chunk_that_unfolds_to_far_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:  # the array is small, its one chunk is not
        numbers = file.create_dataset(
            "xcoordinates", (5,), "f8", maxshape=(None,), chunks=(2**24,), compression="gzip"
        )
        numbers[:] = np.arange(5)
    assert path.stat().st_size < 2**20
    with pytest.raises(FileError, match=r"128 MiB, more than a file of this size holds"):
        read_surface(path)


def test_many_entries_together_are_refused_as_one_is(tmp_path: Path) -> None:
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = file["ycoordinates"] = np.linspace(-1, 1, 1000)
        for index in range(20):  # 8 MB each, none of them in the file
            file.create_dataset(f"loss{index}", (1000, 1000), "f8")
    with pytest.raises(FileError, match="more than a file of this size holds"):
        read_surface(path)


def test_a_compressed_surface_is_read(tmp_path: Path) -> None:
    path = tmp_path / "small.h5"
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = np.linspace(-1, 1, 500)
        file["ycoordinates"] = np.linspace(-1, 1, 400)
        file.create_dataset("train_loss", (500, 400), "f4", fillvalue=2.0, compression="gzip",
                            shuffle=True, fletcher32=True)  # fmt: skip
    assert path.stat().st_size < 20_000
    np.testing.assert_array_equal(read_surface(path).values["train_loss"], np.full((400, 500), 2.0))


def test_the_same_array_under_two_names_is_no_circle(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    foreign_surface(path)
    with h5py.File(path, "r+") as file:
        file["round"] = file["/"]  # a hard link of the root to itself
        file["again"] = file["train_loss"]
    assert sorted(read_surface(path).values) == ["again", "train_loss"]


ATTRIBUTES: dict[str, tuple[object, str]] = {
    "settings of numbers": (np.ones(3), "settings"),
    "settings that are no JSON": ("{", "settings"),
    "settings that are a list": ("[1, 2]", "settings"),
    "settings nested too deeply": ('{"a":' * 10_000 + "1" + "}" * 10_000, "settings"),
    "settings that are no UTF-8": (np.bytes_(b'{"label": "\xff\xfe"}'), "settings"),
    "settings of half a character": (r'{"label": "\ud800"}', "settings"),
    "kind of numbers": (1.0, "isoloss"),
    "kind of many texts": (["surface", "surface"], "isoloss"),
    "format of text": ("1", "format"),
    "format that is no number": (np.nan, "format"),
    "no format": (None, "format"),
    "cosine that is no number": (np.nan, "cosine"),
    "cosines": (np.ones(3), "cosine"),
    "cosine of text": ("0", "cosine"),
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_attributes_of_another_kind_are_refused(case: str, tmp_path: Path) -> None:
    value, name = ATTRIBUTES[case]
    path = tmp_path / "s.h5"
    surface(path)
    with h5py.File(path, "r+") as file:
        file.attrs.pop(name, None)
        if value is not None:
            file.attrs[name] = value
    with pytest.raises(FileError) as caught:
        read_surface(path)
    assert len(str(caught.value).splitlines()) <= 3
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("content", [{}, {"bandwidth": "wide"}, {"bandwidth": True}])
def test_an_account_that_lacks_what_is_drawn_is_refused(content: dict, tmp_path: Path) -> None:
    path = tmp_path / "h.h5"
    spectrum(path)
    with h5py.File(path, "r+") as file:
        file["density"].attrs["account"] = str(content).replace("'", '"').replace("True", "true")
    with pytest.raises(FileError, match="bandwidth"):
        read_spectrum(path)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    surface(path)
    with h5py.File(path, "r+") as file:
        h5py.h5g.create(file.id, b"\xff\xfe")
    with pytest.raises(FileError) as caught:
        read_surface(path)
    str(caught.value).encode("utf-8")


def test_a_long_name_or_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    foreign_surface(path)
    with h5py.File(path, "r+") as file:
        file["loss\n" * 1000] = h5py.SoftLink("/nowhere")
    with pytest.raises(FileError) as caught:
        read_surface(path)
    assert len(str(caught.value)) < 600
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "points", [[0.0, np.nan, 1.0], [0.0, np.inf, 1.0], [0.0, 0.0, 1.0], []], ids=str
)
def test_coordinates_that_make_no_axis_are_refused(points: list[float], tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["xcoordinates"], file["train_loss"] = np.array(points), np.ones(len(points))
    with pytest.raises(FileError, match="distinct finite coordinates"):
        read_surface(path)


def test_the_command_says_so_in_three_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (what, damage) in enumerate(HOSTILE.items()):
        path = tmp_path / f"{number}.h5"
        foreign_surface(path)
        with h5py.File(path, "r+") as file:
            damage(file, "xcoordinates")
        assert cli.main(["plot", str(path)]) == 1, what
        error = capsys.readouterr().err
        assert 1 <= len(error.splitlines()) <= 3, error
        assert "unexpected" not in error, error
    assert not list(tmp_path.glob("*.png"))


def test_a_file_cut_short_or_with_bytes_changed_is_read_or_refused(tmp_path: Path) -> None:
    """Nothing but a `FileError` comes of damage.

    Bytes are changed in files without texts alone: HDF5 may search for a changed one for ever.
    """
    generator = np.random.default_rng(0)
    path, copy = tmp_path / "whole.h5", tmp_path / "damaged.h5"
    refused = []
    for make, read, _ in ENTRIES.values():
        path.unlink(missing_ok=True)
        make(path)
        with h5py.File(path, "r+") as file:
            if make is foreign_surface:
                del file["dir_file"]
        content = path.read_bytes()
        damaged = [content[:length] for length in range(0, len(content), len(content) // 40)]
        if make is foreign_surface:
            for _ in range(300):
                changed = bytearray(content)
                for place in generator.integers(0, len(content), 8):
                    changed[place] = generator.integers(0, 256)
                damaged.append(bytes(changed))
        for wrong in damaged:
            copy.write_bytes(wrong)
            try:
                read(copy)
            except FileError as error:
                refused.append(str(error))
    assert len(refused) > 150
    assert all(len(text.splitlines()) <= 3 for text in refused)


def test_opening_reads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    surface(path)
    shutil.copy(path, tmp_path / "copy.h5")
    with open_hdf5(path, "surface") as file:
        assert file.names() == ["dir_file", "done", "origin", "train_acc", "train_loss",
                                "xcoordinates", "xdirection"]  # fmt: skip
        assert file.lengths("train_loss") == (5,)
        assert file.lengths("dir_file") is None
