"""Each format, read back by other means than those that wrote it, against closed forms."""

from __future__ import annotations

import base64
import csv
import json
import math
import xml.etree.ElementTree as ElementTree

import h5py
import numpy as np
import pytest

from isoloss.errors import UsageError
from isoloss.records.export import FORMATS, export
from isoloss.records.files import FileError
from isoloss.records.ll import read_direction
from isoloss.records.over_training import write_over_training
from isoloss.records.spectra import (
    DensityData,
    EigenpairsData,
    SpectrumData,
    TraceData,
    write_spectrum,
)
from isoloss.records.surfaces import StoredDirection, StoredRepeat, SurfaceStore
from tests.records.test_over_training import stored as over_training

X, Y = np.linspace(-1, 1, 5), np.linspace(0, 2, 3)
COLUMNS = ["train_loss", "train_acc"]
DIRECTIONS = [[np.arange(6.0).reshape(2, 3), np.ones(2)], [np.ones((2, 3)), np.zeros(2)]]
# By number: what is not finished, and what is finished and not finite (of the first repeat).
PENDING, INFINITE = (13, 14), 6


def loss(x, y=0.0, repeat=0):
    return 3 * x**2 + y + x * y + 0.1 + repeat


def accuracy(x, y=0.0, repeat=0):
    return 50 + 10 * x - y + repeat


def surface(path, y=Y, repeats=0, settings=None, directions=DIRECTIONS, pending=PENDING):
    """A surface of ours of quadratics, holes included."""
    shape = (5,) if y is None else (len(y), 5)
    axes = 1 if y is None else 2
    stored = [StoredDirection({"kind": "random"}, tensors) for tensors in directions[:axes]]
    store = SurfaceStore(
        path, X, y, COLUMNS, settings or {"label": "quadratic"}, stored,
        None if y is None else 0.25, [StoredRepeat(stored, 0.5)] * repeats,
    )  # fmt: skip
    store.start()
    size = int(np.prod(shape))
    for index in range(size * (1 + repeats)):
        repeat, place = divmod(index, size)
        at = (X[place],) if y is None else (X[place % 5], y[place // 5])
        values = loss(*at, repeat=repeat), accuracy(*at, repeat=repeat)
        if place not in pending:
            flawed = index == INFINITE < size
            store.append(index, (np.inf, values[1]) if flawed else values)
    store.append(store.size, (loss(0.0), accuracy(0.0)))
    store.finish()
    return path


def training(path, trace=False):
    changes = {"trace": 3.5, "trace_standard_error": 0.25} if trace else {}
    write_over_training(path, over_training(**changes))
    return path


def expected(y=Y, repeat=0):
    """Loss, accuracy and what is finished, (ny, nx) or (nx,)."""
    grids = (X,) if y is None else np.meshgrid(X, y)
    losses, accuracies = loss(*grids, repeat=repeat), accuracy(*grids, repeat=repeat)
    done = np.ones(losses.shape, bool)
    done.ravel()[[p for p in PENDING if p < losses.size]] = False
    if repeat == 0 and losses.size > INFINITE:
        losses.ravel()[INFINITE] = np.inf
    return np.where(done, losses, np.nan), np.where(done, accuracies, np.nan), done


def spectrum(path, *, pairs=True, density=True):
    nodes = np.array([[1.0, 2.0, 5.0], [0.5, 2.5, 4.0]])
    weights = np.array([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    grid = np.linspace(0, 6, 4)
    account = {"converged": True, "reason": "", "bandwidth": 0.1}
    found = EigenpairsData(
        np.array([5.0, 4.0]), np.array([1e-6, 1e-7]), {"w": np.ones((2, 3))},
        np.array([-1.0]), np.array([1e-5]), {}, account, np.array([0.25, 0.5]),
    )  # fmt: skip
    write_spectrum(
        path,
        SpectrumData(
            {"label": "diagonal"},
            found if pairs else None,
            TraceData(9.5, 0.5, 10, account),
            DensityData(nodes, weights, grid, grid**2, grid, 2 * grid, account)
            if density
            else None,
        ),
    )
    return path


def parsed(path):
    """What a `.vtp` file holds: points, arrays over them, cells of each kind."""
    (piece,) = ElementTree.parse(path).getroot().findall("PolyData/Piece")
    kinds = {"Float64": "<f8", "Int64": "<i8", "UInt8": "u1"}

    def array(element):
        content = base64.b64decode(element.text)
        size = int.from_bytes(content[:8], "little")
        assert size == len(content) - 8
        return np.frombuffer(content[8:], kinds[element.get("type")])

    def named(where):
        return {e.get("Name"): array(e) for e in piece.find(where).findall("DataArray")}

    points = named("Points")["Points"].reshape(-1, 3)
    assert len(points) == int(piece.get("NumberOfPoints"))
    cells = {}
    for kind in ("Lines", "Polys"):
        found = named(kind)
        assert len(found["offsets"]) == int(piece.get(f"NumberOf{kind}"))
        cells[kind] = np.split(found["connectivity"], found["offsets"][:-1])
    return points, named("PointData"), cells


def test_vtk_has_each_value_at_its_point(tmp_path):
    made = export(surface(tmp_path / "s.h5"), "vtk")
    assert made.files == [tmp_path / "s.vtp"]
    points, arrays, cells = parsed(tmp_path / "s.vtp")
    losses, accuracies, done = (array.ravel() for array in expected())
    assert list(arrays) == ["zvalue", *COLUMNS[::-1], "done"]
    np.testing.assert_array_equal(points[:, :2], np.stack(np.meshgrid(X, Y), -1).reshape(-1, 2))
    sound = np.isfinite(losses)
    np.testing.assert_array_equal(points[sound, 2], losses[sound])
    assert (points[~sound, 2] == losses[sound].min()).all()
    np.testing.assert_array_equal(arrays["zvalue"], losses)
    np.testing.assert_array_equal(arrays["train_loss"], losses)
    np.testing.assert_array_equal(arrays["train_acc"], accuracies)
    np.testing.assert_array_equal(arrays["done"], done)
    # Of the 4 x 2 cells those around the infinite point (x 1, y 1) and the two pending ones.
    squares = {(0, 1, 6, 5), (1, 2, 7, 6), (5, 6, 11, 10), (6, 7, 12, 11), (7, 8, 13, 12),
               (8, 9, 14, 13), (2, 3, 8, 7), (3, 4, 9, 8)}  # fmt: skip
    holes = {*PENDING, INFINITE}
    assert {tuple(c) for c in cells["Polys"]} == {c for c in squares if not holes & set(c)}
    assert made.notes[1] == "3 of 15 points are pending or not finite: holes"


def test_vtk_of_a_curve_is_lines(tmp_path):
    points, arrays, cells = parsed(
        export(surface(tmp_path / "c.h5", None, pending=(2,)), "vtk").files[0]
    )
    np.testing.assert_array_equal(points[[0, 1, 3, 4], 2], loss(X[[0, 1, 3, 4]]))
    assert (points[:, 1] == 0).all()
    assert [cell.tolist() for cell in cells["Lines"]] == [[0, 1], [3, 4]]
    assert np.isnan(arrays["train_loss"][2])
    # As is a plane of one row.
    path = surface(tmp_path / "row.h5", np.array([2.0]), pending=(2,))
    points, _, cells = parsed(export(path, "vtk").files[0])
    assert (points[:, 1] == 2).all()
    assert [cell.tolist() for cell in cells["Lines"]] == [[0, 1], [3, 4]]
    assert not any(cell.size for cell in cells["Polys"])


def test_vtk_of_several_planes_has_the_median_as_height(tmp_path):
    path = surface(tmp_path / "s.h5", repeats=2, pending=())
    points, arrays, _ = parsed(export(path, "vtk").files[0])
    each = np.stack([expected_without_holes(repeat) for repeat in range(3)])
    np.testing.assert_array_equal(arrays["zvalue"], np.median(each, axis=0).ravel())
    np.testing.assert_array_equal(arrays["train_loss_median"], arrays["zvalue"])
    np.testing.assert_array_equal(arrays["train_loss_low"], each.min(axis=0).ravel())
    np.testing.assert_array_equal(arrays["train_loss_high"], each.max(axis=0).ravel())
    np.testing.assert_array_equal(arrays["train_loss"], each[0].ravel())
    assert np.isfinite(points).all()


def expected_without_holes(repeat):
    losses = loss(*np.meshgrid(X, Y), repeat=repeat)
    if repeat == 0:
        losses.ravel()[INFINITE] = np.inf
    return losses


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("repeats", [0, 2])
@pytest.mark.parametrize("y", [Y, None], ids=["plane", "curve"])
def test_csv_has_a_row_for_each_point_along_each_plane(tmp_path, y, repeats):
    rows = rows_of(export(surface(tmp_path / "s.h5", y, repeats), "csv").files[0])
    assert list(rows[0]) == ["repeat", "x", *([] if y is None else ["y"]), *COLUMNS[::-1], "done"]
    size = 5 if y is None else 15
    assert len(rows) == size * (1 + repeats)
    for number, row in enumerate(rows):
        repeat, place = divmod(number, size)
        losses, accuracies, done = (array.ravel() for array in expected(y, repeat))
        assert int(row["repeat"]) == repeat
        assert float(row["x"]) == X[place % 5]
        if y is not None:
            assert float(row["y"]) == y[place // 5]
        assert row["done"] == str(int(done[place]))
        if done[place]:
            assert float(row["train_loss"]) == losses[place]
            assert float(row["train_acc"]) == accuracies[place]
        else:
            assert row["train_loss"] == row["train_acc"] == ""


@pytest.mark.parametrize("repeats", [0, 2])
@pytest.mark.parametrize("y", [Y, None], ids=["plane", "curve"])
def test_npz_has_the_names_of_the_file(tmp_path, y, repeats):
    path = surface(tmp_path / "s.h5", y, repeats)
    losses, accuracies, done = expected(y)
    with np.load(export(path, "npz").files[0], allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["train_loss"], losses)
        np.testing.assert_array_equal(archive["train_acc"], accuracies)
        np.testing.assert_array_equal(archive["done"], done)
        assert archive["origin/train_loss"] == loss(0.0)
        assert json.loads(str(archive["settings"])) == {"label": "quadratic"}
        added = {"settings"} | (set() if y is None else {"cosine"})
        with h5py.File(path) as file:
            names = []
            file.visititems(lambda n, e: names.append(n) if isinstance(e, h5py.Dataset) else None)
            kept = {name for name in names if not name.startswith("repeats/xdirection")}
            kept = {name for name in kept if not name.startswith("repeats/ydirection")}
            assert set(archive.files) - added == kept - {"dir_file"}
            for name in set(archive.files) - added:
                np.testing.assert_array_equal(archive[name], file[name][()])


@pytest.mark.parametrize("y", [Y, None], ids=["plane", "curve"])
def test_ll_is_filled_as_that_code_fills_it(tmp_path, y):
    made = export(surface(tmp_path / "s.h5", y), "ll")
    assert made.files == [tmp_path / "s-ll.h5", tmp_path / "s-ll-directions.h5"]
    losses, _, done = expected(y)
    with h5py.File(tmp_path / "s-ll.h5") as file:
        assert file["train_loss"].shape == ((5,) if y is None else (5, 3))
        flat = file["train_loss"][()].ravel()
        np.testing.assert_array_equal(flat, np.where(done, losses, -1.0).ravel())
        assert file["dir_file"][()].decode() == "s-ll-directions.h5"
        assert not file.attrs
    for axis, arrays in zip("xy" if y is not None else "x", DIRECTIONS, strict=False):
        found = read_direction(tmp_path / "s-ll-directions.h5", axis)
        for one, other in zip(found, arrays, strict=True):
            np.testing.assert_array_equal(one, other)
    # And the way back.
    again = rows_of(export(tmp_path / "s-ll.h5", "csv").files[0])
    assert again == rows_of(export(tmp_path / "s.h5", "csv").files[0])


def test_ll_says_what_it_leaves_out(tmp_path, monkeypatch):
    part = surface(tmp_path / "part.h5", settings={"selection": ["layer1.*"]}, repeats=1)
    made = export(part, "ll")
    assert made.files == [tmp_path / "part-ll.h5"]
    assert "of 2 directions or planes, the first" in made.notes
    assert "moves all parameters" in made.notes[1]
    monkeypatch.setattr("isoloss.records.surfaces.LARGEST_STORED_DIRECTION", 1)
    made = export(surface(tmp_path / "large.h5"), "ll")
    assert made.files == [tmp_path / "large-ll.h5"]
    assert made.notes == ["no directions: the file keeps their recipe only"]
    with pytest.raises(FileError, match="one of the loss-landscape code"):
        export(tmp_path / "large-ll.h5", "ll")


def test_npy_is_the_quadrature(tmp_path):
    made = export(spectrum(tmp_path / "h.h5"), "npy")
    assert made.files == [tmp_path / "h_eigen.npy", tmp_path / "h_weight.npy"]
    nodes, weights = (np.load(file, allow_pickle=False) for file in made.files)
    np.testing.assert_array_equal(nodes, [[1.0, 2.0, 5.0], [0.5, 2.5, 4.0]])
    np.testing.assert_array_equal(weights, [[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    # What PyHessian's figure makes of the two: a density of its own, of mass 1 before smoothing.
    assert (weights.sum(axis=1) == 1).all()
    # And the way on.
    with np.load(export(tmp_path / "h_weight.npy", "npz").files[0]) as archive:
        np.testing.assert_array_equal(archive["density/nodes"], nodes)


def test_spectra_as_tables_and_arrays(tmp_path):
    path = spectrum(tmp_path / "h.h5")
    made = export(path, "csv")
    assert made.files == [tmp_path / "h.csv", tmp_path / "h-density.csv"]
    rows = rows_of(tmp_path / "h.csv")
    assert [(r["end"], float(r["eigenvalue"])) for r in rows] == [
        ("largest", 5.0), ("largest", 4.0), ("smallest", -1.0)
    ]  # fmt: skip
    assert [float(r["sample_standard_error"]) for r in rows[:2]] == [0.25, 0.5]
    curve = rows_of(tmp_path / "h-density.csv")
    assert [float(r["curve"]) for r in curve] == [float(r["grid"]) ** 2 for r in curve]
    with np.load(export(path, "npz").files[0], allow_pickle=False) as archive, h5py.File(path) as f:
        names = []
        f.visititems(lambda n, e: names.append(n) if isinstance(e, h5py.Dataset) else None)
        assert set(archive.files) == {*names, "settings"}
        for name in names:
            np.testing.assert_array_equal(archive[name], f[name][()])


@pytest.mark.parametrize("trace", [True, False])
def test_curvature_over_a_training_as_table_and_arrays(tmp_path, trace):
    path = training(tmp_path / "t.h5", trace=trace)
    rows = rows_of(export(path, "csv").files[0])
    assert [int(row["epoch"]) for row in rows] == [0, 5, 10]
    assert [float(row["lambda_2"]) for row in rows] == [1.0, 1.25, 1.5]
    assert [float(row["threshold"]) for row in rows] == [4.0, 8.0, 12.0]
    assert all(math.isnan(float(row["trace"])) is not trace for row in rows)
    with np.load(export(path, "npz").files[0], allow_pickle=False) as archive, h5py.File(path) as f:
        names = []
        f.visititems(lambda n, e: names.append(n) if isinstance(e, h5py.Dataset) else None)
        assert set(archive.files) == {*names, "settings"}
        assert ("trace" in names) is trace
        for name in names:
            np.testing.assert_array_equal(archive[name], f[name][()])


@pytest.mark.parametrize("kind", ["surface", "spectrum", "training"])
def test_the_same_result_gives_the_same_bytes(tmp_path, kind):
    makes = {"surface": surface, "spectrum": spectrum, "training": training}
    path = makes[kind](tmp_path / "a.h5")
    for name, form in FORMATS.items():
        if getattr(form, kind) is None:
            continue
        first = {file: file.read_bytes() for file in export(path, name).files}
        again = export(path, name, force=True).files
        assert first == {file: file.read_bytes() for file in again}


@pytest.mark.parametrize(
    ("make", "to", "message"),
    [
        (surface, "npy", r"expected a spectrum for npy, got a surface: .*\n.*to vtk, csv, npz, ll"),
        (spectrum, "vtk", r"expected a surface for vtk, got a spectrum: .*\n.*to csv, npz, npy"),
        (spectrum, "ll", "expected a surface for ll"),
        (training, "npy", r"expected a spectrum for npy, got a curvature over a training:"
         r" .*\n.*to csv, npz"),
        (lambda p: spectrum(p, density=False), "npy", "with a density for npy, .* eigenpairs, tr"),
        (lambda p: spectrum(p, pairs=False, density=False), "csv", "eigenvalues for csv, .* trace"),
    ],
)  # fmt: skip
def test_what_a_format_does_not_hold_is_said(tmp_path, make, to, message):
    path = make(tmp_path / "a.h5")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileError, match=message) as caught:
        export(path, to)
    assert len(str(caught.value).splitlines()) <= 3
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_replaced_unasked(tmp_path):
    path, other = surface(tmp_path / "s.h5"), surface(tmp_path / "other.h5")
    before = other.read_bytes()
    export(path, "ll")
    (tmp_path / "s-ll-directions.h5").write_bytes(b"mine")
    (tmp_path / "s-ll.h5").unlink()
    with pytest.raises(FileError, match=r"no file at .*s-ll-directions.h5, got one\n.*`force`"):
        export(path, "ll")  # neither of the two
    assert not (tmp_path / "s-ll.h5").exists()
    assert export(path, "ll", force=True).files
    # Results are never replaced by exports, nor the source by itself.
    for out, message in ((other, "no result of Isoloss"), (path, "than the source")):
        with pytest.raises(FileError, match=message):
            export(path, "ll", out, force=True)
    assert other.read_bytes() == before
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(FileError, match="a folder"):
        export(path, "csv", tmp_path / "folder.csv", force=True)


@pytest.mark.parametrize(("to", "out"), [("vtk", "a.vtk"), ("npy", "a.npy"), ("csv", ".csv")])
def test_another_suffix_is_wrong_usage(tmp_path, to, out):
    path = {"npy": spectrum}.get(to, surface)(tmp_path / "s.h5")
    with pytest.raises(
        UsageError, match=f"`out`: expected a file that ends in {FORMATS[to].suffix}"
    ):
        export(path, to, tmp_path / out)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    path = surface(tmp_path / "s.h5")
    before = sorted(tmp_path.iterdir())

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isoloss.records.drafts.os.fsync", full)
    with pytest.raises(FileError, match="No space left"):
        export(path, "ll")
    assert sorted(tmp_path.iterdir()) == before


def test_dots_in_a_name_are_kept(tmp_path):
    name = "model.t7_weights_xnorm=filter.h5_[-1.0,1.0,5]x[0.0,2.0,3].h5"
    path = surface(tmp_path / name)
    assert export(path, "vtk").files[0].name == name.removesuffix(".h5") + ".vtp"
    assert export(path, "csv", tmp_path / "new" / "a.b.csv").files == [tmp_path / "new" / "a.b.csv"]


def test_strange_names_of_columns_are_written_as_text(tmp_path):
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["xcoordinates"] = np.arange(3.0)
        for name in ('a<b>&"c', "file", "settings", "line\nbreak", "\u0001"):
            file[name] = np.arange(3.0)
    _, arrays, _ = parsed(export(path, "vtk").files[0])
    assert {'a<b>&"c', "file", "'line\\nbreak'"} <= set(arrays)
    with np.load(export(path, "npz").files[0]) as archive:
        np.testing.assert_array_equal(archive["file"], np.arange(3.0))
