"""Directions of others and of ours as arrays, against files written by hand."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from isoloss.records.files import FileError
from isoloss.records.hdf5 import write_hdf5
from isoloss.records.ll import kind_of, read_direction
from isoloss.records.ll.directions import read_direction_file
from isoloss.records.surfaces import StoredDirection, SurfaceStore

# More than ten, so that the order of the names as text is another one; a state of no dimension.
SHAPES = [(2, 3), (2,), (), *((1, n) for n in range(1, 12))]


def arrays(seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype("f4") for shape in SHAPES]


def written(path, **axes):
    """A direction file, a list of arrays for each axis."""
    with h5py.File(path, "w") as file:
        for name, tensors in axes.items():
            group = file.create_group(f"{name}direction")
            for number, tensor in enumerate(tensors):
                group.create_dataset(str(number), data=tensor)
    return path


def test_arrays_come_by_number(tmp_path):
    path = written(tmp_path / "model.t7_weights_xignore=biasbn.h5", x=arrays(1), y=arrays(2))
    with h5py.File(path) as file:
        assert list(file["xdirection"])[2] == "10"  # what is to be put right
    for axis, seed in (("x", 1), ("y", 2)):
        found = read_direction(path, axis)
        assert [a.dtype for a in found] == [np.dtype("f4")] * len(SHAPES)
        for one, other in zip(found, arrays(seed), strict=True):
            np.testing.assert_array_equal(one, other)
    assert kind_of(path) == "LL directions"
    assert read_direction_file(path).shapes == {"x": SHAPES, "y": SHAPES}


def test_a_file_of_ours_gives_the_directions_that_were_stored(tmp_path):
    path = tmp_path / "surface.h5"
    stored = [StoredDirection({"kind": "random"}, arrays(seed)) for seed in (3, 4)]
    store = SurfaceStore(path, np.arange(2.0), np.arange(3.0), ["train_loss"], {}, stored, 0.0)
    store.start()
    store.finish()
    assert kind_of(path) == "surface"
    for axis, one in zip("xy", stored, strict=True):
        for found, tensor in zip(read_direction(path, axis), one.tensors, strict=True):
            np.testing.assert_array_equal(found, tensor)


def test_a_recipe_alone_is_no_direction(tmp_path, monkeypatch):
    monkeypatch.setattr("isoloss.records.surfaces.LARGEST_STORED_DIRECTION", 10)
    path = tmp_path / "surface.h5"
    direction = StoredDirection({"kind": "random"}, arrays(3))
    store = SurfaceStore(path, np.arange(2.0), None, ["train_loss"], {}, [direction])
    store.start()
    store.finish()
    with pytest.raises(FileError, match="its recipe and digest"):
        read_direction(path)


def test_pca_directions_say_what_they_explain(tmp_path):
    path = written(tmp_path / "directions.h5", x=arrays(1), y=arrays(2))
    with h5py.File(path, "r+") as file:
        file["explained_variance_ratio_"] = [0.7, 0.2]
        file["singular_values_"] = file["explained_variance_"] = [3.0, 1.0]
    np.testing.assert_array_equal(read_direction_file(path).explained, [0.7, 0.2])
    with h5py.File(path, "r+") as file:
        del file["ydirection"]
    with pytest.raises(FileError, match=r"shape \(1\)"):
        read_direction_file(path)


def without(name):
    def change(file):
        del file[name]

    return change


def exchanged(name, content):
    def change(file):
        del file[name]
        file[name] = content

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("xdirection"), "direction `xdirection` .* got ydirection"),
        (without("xdirection/3"), r"arrays named 0 to 12 .* got 0, 1, 10"),
        (lambda file: file.move("xdirection/3", "xdirection/03"), "arrays named 0 to 13"),
        (exchanged("xdirection", np.ones(3)), "a group"),
        (exchanged("xdirection/4", np.array([[np.nan]])), "finite .*`xdirection/4`"),
        (exchanged("xdirection/4", "text"), "`xdirection/4`"),
        (
            lambda file: (without("xdirection")(file), file.create_group("xdirection")),
            "got nothing",
        ),
    ],
)
def test_what_is_no_direction_is_refused(tmp_path, change, message):
    path = written(tmp_path / "d.h5", x=arrays(1), y=arrays(2))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(FileError, match=message) as caught:
        read_direction(path, "x")
    assert len(str(caught.value).splitlines()) <= 3
    assert "delete" not in str(caught.value)


def test_kinds_are_told_apart(tmp_path):
    entries = {
        "LL projection": ("proj_xcoord", "proj_ycoord"),
        "LL surface": ("xcoordinates", "train_loss"),
        "other": ("weights",),
    }
    for kind, names in entries.items():
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name in names:
                file[name] = np.arange(3.0)
        assert kind_of(tmp_path / "a.h5") == kind
    write_hdf5(tmp_path / "h.h5", "hessian", {}, lambda file: None, 0)
    assert kind_of(tmp_path / "h.h5") == "hessian"
