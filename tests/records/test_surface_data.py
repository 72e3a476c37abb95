"""What several directions say together, against plain numpy; their file, whole and damaged."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from isoloss.records.files import FileError
from isoloss.records.identity import differing, unlike
from isoloss.records.surface_data import Repeats, SurfaceData
from isoloss.records.surfaces import StoredDirection, StoredRepeat, SurfaceStore, read_surface

X, Y = np.linspace(-1, 1, 5), np.linspace(0, 1, 3)


def several(each: np.ndarray, done: np.ndarray | None = None, **others) -> SurfaceData:
    """Surface or curve of (K, ..) losses."""
    done = np.ones(each.shape, bool) if done is None else done
    values = {"train_loss": each, **others}
    y = Y if each.ndim == 3 else None
    return SurfaceData(
        X, y, {k: v[0] for k, v in values.items()}, done[0], {}, {}, None, Repeats(values, done)
    )


def losses(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).lognormal(size=(count, *shape))


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
@pytest.mark.parametrize("count", [2, 3, 9, 10, 12, 21])
def test_median_and_band_are_order_statistics_of_the_directions(count, shape):
    each = losses(count, *shape)
    data = several(each)
    ordered = np.sort(each, axis=0)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    np.testing.assert_array_equal(data.median("train_loss"), middle)
    np.testing.assert_array_equal(data.median_loss, middle)
    np.testing.assert_array_equal(data.loss_range, [ordered[0], ordered[-1]])
    # Below ten the range; then 0.1 and 0.9 of the way from first to last, rounded outwards.
    cut = 0 if count < 10 else (count - 1) // 10
    np.testing.assert_array_equal(data.band("train_loss"), [ordered[cut], ordered[-1 - cut]])
    assert data.band_name == ("range" if count < 10 else "10th to 90th percentiles")
    assert (data.repeat, data.directions_done) == (count, count)


def test_one_direction_is_its_own_median_and_range():
    loss = np.array([np.nan, 1.0, np.inf, 2.0, 3.0])
    data = SurfaceData(X, None, {"test_loss": loss, "test_acc": 9 * loss}, np.ones(5, bool), {}, {})
    for values in (data.median_loss, *data.loss_range, *data.band("test_loss")):
        np.testing.assert_array_equal(values, loss)
    assert (data.repeat, data.directions_done, data.widest("test_loss")) == (1, 1, None)
    with pytest.raises(FileError, match="surface of a loss, got one of max_eig"):
        _ = SurfaceData(X, None, {"max_eig": loss}, np.ones(5, bool), {}, {}).median_loss


def test_nan_stays_nan_and_an_infinite_loss_is_the_largest():
    each = np.tile(np.array([1.0, 2.0, 3.0])[:, None], 5)
    each[0, 0] = np.nan
    each[0, 1] = np.inf
    each[:2, 2] = np.inf
    each[:, 3] = np.inf
    data = several(each)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(data.median_loss, [np.nan, 3, np.inf, np.inf, 2])
        low, high = data.loss_range
    np.testing.assert_array_equal(low, [np.nan, 2, 3, np.inf, 1])
    np.testing.assert_array_equal(high, [np.nan, np.inf, np.inf, np.inf, 3])
    ten = several(np.concatenate([each, losses(9, 5)]))
    with np.errstate(all="raise"):
        low, high = ten.band("train_loss")
    assert np.isnan(low[0])
    assert high[3] == np.inf


def test_only_finished_directions_count_and_the_first_stands_alone_before():
    each, done = losses(4, 3, 5), np.ones((4, 3, 5), bool)
    done[2, 1, 1:], done[3] = False, False
    data = several(np.where(done, each, np.nan), done)
    np.testing.assert_array_equal(data.median_loss, np.median(each[:2], axis=0))
    assert (data.repeat, data.directions_done) == (4, 2)
    assert data.median_done.all()
    done = done.copy()
    done[:2, 2, 4] = False
    alone = several(np.where(done, each, np.nan), done)
    np.testing.assert_array_equal(alone.median_loss, np.where(done[0], each[0], np.nan))
    np.testing.assert_array_equal(alone.median_done, done[0])
    assert (alone.directions_done, alone.band_name) == (1, "range")


def test_where_directions_differ_most():
    each = np.ones((3, 3, 5))
    each[:, 2, 1] = 0.5, 4.0, 1.0
    each[1, 0, 0] = 6.0
    each[1, 1, 1] = np.inf
    each[1, 1, 2], each[2, 1, 2] = 100.0, 0.0  # no ratio to zero
    widest = several(each).widest("train_loss")
    assert (widest.at, widest.low, widest.median, widest.high) == ((-0.5, 1.0), 0.5, 1.0, 4.0)
    assert widest.ratio == 8.0
    curve = several(each[:, 2])
    assert curve.widest("train_loss").at == (-0.5,)
    assert several(-each).widest("train_loss") is None


def store_at(path, repeat=3, **options):
    axis = StoredDirection({"seed": 0}, [np.arange(2.0)])
    repeats = [StoredRepeat([axis, axis], 0.1 * k) for k in range(1, repeat)]
    columns = ["train_loss", "train_acc"]
    return SurfaceStore(path, X, Y, columns, {"a": 1}, [axis, axis], 0.0, repeats, **options)


def filled(path):
    store = store_at(path)
    store.start()
    for index in range(46):
        store.append(index, (float(index), 100.0 - index))
    store.finish()
    return store


def test_the_file_keeps_every_value_in_its_place_and_the_first_where_it_always_was(tmp_path):
    made = filled(tmp_path / "s.h5").data()
    data = read_surface(tmp_path / "s.h5")
    numbers = np.arange(45.0).reshape(3, 3, 5)
    for found in (made, data):
        np.testing.assert_array_equal(found.repeats.values["train_loss"], numbers)
        np.testing.assert_array_equal(found.values["train_loss"], numbers[0])
        np.testing.assert_array_equal(found.repeats.cosines, [0.0, 0.1, 0.2])
        assert found.origin == {"train_loss": 45.0, "train_acc": 55.0}
    # What the plotting scripts of Li et al.'s code read.
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["train_loss"].shape == (len(file["ycoordinates"]), len(file["xcoordinates"]))
        np.testing.assert_array_equal(file["train_loss"][:], numbers[0])
        np.testing.assert_array_equal(file["repeats/train_loss"][:], numbers)
        assert file["repeats/done"][:].all()
        np.testing.assert_array_equal(file["repeats/ydirection/2/0"][:], [0.0, 1.0])
    assert sorted(store_at(tmp_path / "s.h5").load()) == list(range(46))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda group: group.pop("done"), "`repeats/done`: .* got none"),
        (
            lambda group: group.update(train_loss=np.zeros((3, 5, 3))),
            r"`repeats/train_loss`: expected numbers of shape \(3, 3, 5\), got shape \(3, 5, 3\)",
        ),
        (
            lambda group: group.update(train_acc=np.zeros((2, 3, 5))),
            r"`repeats/train_acc`: expected numbers of shape \(3, 3, 5\), got shape \(2, 3, 5\)",
        ),
        (lambda group: group.pop("train_acc"), "expected train_acc, train_loss in `repeats`"),
    ],
)
def test_a_file_whose_repeats_do_not_fit_is_refused(tmp_path, damage, message):
    filled(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        arrays = {n: a[:] for n, a in file["repeats"].items() if isinstance(a, h5py.Dataset)}
        damage(arrays)
        del file["repeats"]
        for name, array in arrays.items():
            file[f"repeats/{name}"] = array
    with pytest.raises(FileError, match=message):
        read_surface(tmp_path / "s.h5")


def test_files_without_the_setting_are_of_one_direction():
    before, one = {"loss": "mse"}, {"loss": "mse", "repeat": 1}
    four = {"loss": "mse", "repeat": 4, "repeats": {"seeds": [0, 5]}}
    assert differing(before, one) == []
    assert differing(before, four)[0] == "repeat (stored 1, now 4)"
    assert unlike({"a": before, "b": one}) == {}
    assert unlike({"a": before, "b": four}) == {"repeat": {"a": 1, "b": 4}}
    other = {**four, "repeats": {"seeds": [0, 6]}}
    assert unlike({"a": four, "b": other}) == {"seeds of repeats": {"a": [0, 5], "b": [0, 6]}}
