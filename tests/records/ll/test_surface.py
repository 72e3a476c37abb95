"""Surface files of the loss-landscape code, against files put together as it does, by hand."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from isoloss.records.files import FileError
from isoloss.records.ll import direction_file, finished_points, kind_of
from isoloss.records.ll.surface import directions_image, surface_image
from isoloss.records.surface_data import SurfaceData
from isoloss.records.surfaces import SurfaceStore, read_surface

X, Y = np.linspace(-1, 1, 5), np.linspace(0, 2, 3)
# What such files are called.
NAME = "model.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,5]x[0.0,2.0,3].h5"


def loss(x, y=0.0):
    return 10 * x**2 + 3 * y + x * y + 7


def accuracy(x, y=0.0):
    return 50 + 10 * x + y


def filled(x, y, function, points, pending=-1.0):
    """An array as that code fills it: declared (nx, ny), by the flat numbers of a meshgrid."""
    if y is None:
        array = np.full(len(x), pending)
        array[points] = function(x[points])
        return array
    array = np.full((len(x), len(y)), pending)
    xs, ys = np.meshgrid(x, y)
    array.ravel()[points] = function(xs.ravel()[points], ys.ravel()[points])
    return array


def written(path, x=X, y=Y, points=None, **columns):
    """A surface file; `points` are the flat numbers of those that are finished."""
    size = len(x) * (1 if y is None else len(y))
    points = np.arange(size) if points is None else points
    columns = columns or {"train_loss": loss, "train_acc": accuracy}
    with h5py.File(path, "w") as file:
        file["dir_file"] = "somewhere/else/model.t7_weights.h5"
        file["xcoordinates"] = x
        if y is not None:
            file["ycoordinates"] = y
        for name, function in columns.items():
            file[name] = filled(x, y, function, points)
    return path


@pytest.mark.parametrize("y", [Y, np.linspace(-2, 2, 5), np.linspace(0, 1, 11), None], ids=str)
def test_every_value_is_in_its_place(tmp_path, y):
    data = read_surface(written(tmp_path / NAME, y=y))
    grids = (X,) if y is None else np.meshgrid(X, y)
    np.testing.assert_array_equal(data.values["train_loss"], loss(*grids))
    np.testing.assert_array_equal(data.values["train_acc"], accuracy(*grids))
    assert data.done.all()
    assert kind_of(tmp_path / NAME) == "LL surface"


def test_pending_points_are_nan(tmp_path):
    points = [0, 3, 7, 14]
    data = read_surface(written(tmp_path / NAME, points=points))
    assert np.flatnonzero(data.done.ravel()).tolist() == points
    assert np.isnan(data.values["train_loss"][~data.done]).all()
    xs, ys = np.meshgrid(X, Y)
    np.testing.assert_array_equal(data.values["train_acc"].ravel()[points],
                                  accuracy(xs.ravel(), ys.ravel())[points])  # fmt: skip


def test_a_negative_smallest_eigenvalue_is_a_value(tmp_path):
    """`max_eig` alone says what is pending: `min_eig` begins with +1 and may be -1."""
    path = written(tmp_path / NAME)
    with h5py.File(path, "r+") as file:
        file["max_eig"] = np.array([[2.0, -1, 3], *[[4.0, 5, 6]] * 4])
        file["min_eig"] = np.array([[-1.0, 1, 1], *[[-2.0, -1, 0]] * 4])
    data = read_surface(path)
    pending = np.zeros(15, bool)
    pending[1] = True
    np.testing.assert_array_equal(np.isnan(data.values["max_eig"]).ravel(), pending)
    np.testing.assert_array_equal(np.isnan(data.values["min_eig"]).ravel(), pending)
    assert data.values["min_eig"].ravel()[[0, 2]].tolist() == [-1.0, 1.0]
    np.testing.assert_array_equal(data.done.ravel(), ~pending)


def test_eigenvalues_of_which_none_is_finished_hide_no_loss(tmp_path):
    path = written(tmp_path / NAME)
    with h5py.File(path, "r+") as file:
        file["max_eig"], file["min_eig"] = -np.ones((5, 3)), np.ones((5, 3))
    data = read_surface(path)
    assert data.done.all()
    assert sorted(data.values) == ["train_acc", "train_loss"]
    # Where nothing at all is finished, the columns are there all the same.
    data = read_surface(written(tmp_path / "new.h5", points=[]))
    assert sorted(data.values) == ["train_acc", "train_loss"]
    assert not data.done.any()


def test_a_square_file_of_ours_is_what_that_code_reads(tmp_path):
    """Its figures take `Z = f[name][:]` with `X, Y = meshgrid(x, y)`."""
    axis = np.linspace(-1, 1, 7)
    store = SurfaceStore(tmp_path / "s.h5", axis, axis, ["train_loss", "train_acc"], {})
    store.start()
    for index in range(49):
        place = axis[index % 7], axis[index // 7]
        store.append(index, (loss(*place), accuracy(*place)))
    store.append(49, (loss(0.0), 50.0))
    store.finish()
    data = read_surface(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        xs, ys = np.meshgrid(file["xcoordinates"][:], file["ycoordinates"][:])
        for name, function in (("train_loss", loss), ("train_acc", accuracy)):
            theirs = file[name][:]
            np.testing.assert_array_equal(theirs, function(xs, ys))
            np.testing.assert_array_equal(theirs, data.values[name])


@pytest.mark.parametrize("y", [Y, None], ids=["plane", "curve"])
def test_what_is_written_is_what_that_code_writes(tmp_path, y):
    points = np.array([0, 2, 4])
    shape = (5,) if y is None else (3, 5)
    done = np.zeros(shape, bool)
    done.ravel()[points] = True
    grids = (X,) if y is None else np.meshgrid(X, y)
    values = {
        "train_loss": np.where(done, loss(*grids), np.nan),
        "max_eig": np.where(done, accuracy(*grids), np.nan),
        "min_eig": np.where(done, -loss(*grids), np.nan),
    }
    (tmp_path / NAME).write_bytes(
        surface_image(SurfaceData(X, y, values, done, {}, {}), "directions.h5")
    )
    with h5py.File(tmp_path / NAME) as file:
        assert file["dir_file"][()] == b"directions.h5"
        np.testing.assert_array_equal(file["train_loss"], filled(X, y, loss, points))
        np.testing.assert_array_equal(file["max_eig"], filled(X, y, accuracy, points))
        negative = filled(X, y, lambda *p: -loss(*p), points, pending=1.0)
        np.testing.assert_array_equal(file["min_eig"], negative)
        assert "isoloss" not in file.attrs
    again = read_surface(tmp_path / NAME)
    np.testing.assert_array_equal(again.done, done)
    for name, array in values.items():
        np.testing.assert_array_equal(again.values[name], array)


def test_a_value_that_is_nan_stays_finished(tmp_path):
    values = {"train_loss": np.array([1.0, np.nan, np.inf, np.nan])}
    done = np.array([True, True, True, False])
    data = SurfaceData(np.arange(4.0), None, values, done, {}, {})
    (tmp_path / "s.h5").write_bytes(surface_image(data, "d.h5"))
    again = read_surface(tmp_path / "s.h5")
    np.testing.assert_array_equal(again.done, done)
    np.testing.assert_array_equal(again.values["train_loss"], values["train_loss"])


COLUMNS = ["train_loss", "train_acc"]


@pytest.mark.parametrize("y", [Y, None], ids=["plane", "curve"])
def test_finished_points_come_by_the_number_a_store_gives_them(tmp_path, y):
    points = [0, 2, 3]
    path = written(tmp_path / NAME, y=y, points=points)
    found = finished_points(path, X, y, COLUMNS)
    assert sorted(found) == points
    store = SurfaceStore(None, X, y, COLUMNS, {})
    store.records.update(found)
    data = store.data()
    grids = (X,) if y is None else np.meshgrid(X, y)
    np.testing.assert_array_equal(data.values["train_loss"][data.done], loss(*grids)[data.done])
    # The order of the values is that of the columns that are asked for.
    other = finished_points(path, X, y, COLUMNS[::-1])
    assert {point: values[::-1] for point, values in other.items()} == found


def test_a_point_is_finished_in_all_columns_that_are_asked_for(tmp_path):
    path = written(tmp_path / NAME)
    with h5py.File(path, "r+") as file:
        file["test_loss"] = filled(X, Y, loss, [1, 4])
    assert len(finished_points(path, X, Y, ["train_loss"])) == 15
    assert sorted(finished_points(path, X, Y, ["train_loss", "test_loss"])) == [1, 4]


@pytest.mark.parametrize(
    ("x", "y", "columns", "message"),
    [
        (X[:-1], Y, COLUMNS, "4 points from -1 to 0.5 as `xcoordinates`.* 5 points from -1 to 1"),
        (X, Y + 1e-6, COLUMNS, "`ycoordinates`"),
        (X, None, COLUMNS, "expected a curve, got .* with `ycoordinates`"),
        (X, Y, ["train_loss", "train_loss_se"], "expected train_loss_se in .*, got train_"),
    ],
)
def test_what_does_not_fit_is_not_continued(tmp_path, x, y, columns, message):
    path = written(tmp_path / NAME)
    with pytest.raises(FileError, match=message) as caught:
        finished_points(path, x, y, columns)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_file_of_ours_is_continued_by_its_own_command(tmp_path):
    store = SurfaceStore(tmp_path / "s.h5", X, None, ["train_loss"], {})
    store.start()
    store.append(0, (1.0,))
    store.finish()
    with pytest.raises(FileError, match="got one of Isoloss"):
        finished_points(tmp_path / "s.h5", X, None, ["train_loss"])


def test_the_direction_file_lies_beside_the_surface(tmp_path):
    path = written(tmp_path / NAME)
    assert direction_file(path) is None
    (tmp_path / "model.t7_weights.h5").write_bytes(directions_image({"x": [np.ones(3)]}))
    assert direction_file(path) == tmp_path / "model.t7_weights.h5"
    for content in (np.ones(3), "", "..", NAME, np.bytes_(b"\xff"), "[" * 9999, h5py.Empty("f8")):
        with h5py.File(path, "r+") as file:
            del file["dir_file"]
            file["dir_file"] = content
        assert direction_file(path) is None
